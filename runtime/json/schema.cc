// Alone in its file: valijson's headers take seconds to compile. Without exceptions it would abort on a wrong schema.
#define VALIJSON_USE_EXCEPTIONS 1
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"

namespace tutti {
namespace {

// `[parameters][query]` style contexts of valijson as `parameters.query`; array positions as `[2]`.
std::string PathOf(const valijson::ValidationResults::Error& error, absl::string_view where) {
  std::string path(where);
  for (const auto& part : error.context) {
    if (part == "<root>") continue;
    std::string inner =
        part.size() >= 2 && part.front() == '[' && part.back() == ']' ? part.substr(1, part.size() - 2) : part;
    if (inner.size() >= 2 && inner.front() == '"') inner = inner.substr(1, inner.size() - 2);
    bool index = !inner.empty() && inner.find_first_not_of("0123456789") == std::string::npos;
    if (index) {
      absl::StrAppend(&path, "[", inner, "]");
    } else {
      absl::StrAppend(&path, path.empty() ? "" : ".", inner);
    }
  }
  return path;
}

// Names the keyword that ends processes: valijson follows a $ref to itself without end, std::regex a pattern onto the
// stack's end, and a division by zero is a signal.
std::string FindUnsupported(const Json& schema) {
  if (schema.is_object()) {
    for (const auto& [key, value] : schema.items()) {
      if (key == "$ref" && value.is_string()) return "$ref";
      if (key == "pattern" && value.is_string()) return "pattern";
      if (key == "patternProperties") return "patternProperties";
      if (key == "multipleOf" && IsNumber(value) && ToDouble(value).value_or(0) <= 0) {
        return "multipleOf with a number that is not above 0";
      }
    }
  }
  if (schema.is_structured()) {
    for (const auto& item : schema) {
      if (std::string found = FindUnsupported(item); !found.empty()) return found;
    }
  }
  return "";
}

}  // namespace

absl::Status ValidateJson(const Json& schema, const Json& value, absl::string_view where) {
  if (std::string keyword = FindUnsupported(schema); !keyword.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_SCHEMA",
                 absl::StrCat("the JSON Schema of ", where, " is itself wrong: the keyword ", keyword,
                              " is not supported"))
        .Violation(where, absl::StrCat("the keyword ", keyword, " is not supported"));
  }
  try {
    valijson::Schema parsed;
    valijson::SchemaParser parser;
    const Json plain_schema = WithDoubles(schema), plain_value = WithDoubles(value);  // the library knows no others
    valijson::adapters::NlohmannJsonAdapter schema_adapter(plain_schema);
    parser.populateSchema(schema_adapter, parsed);  // without a fetch function: remote $ref is refused
    valijson::Validator validator(valijson::Validator::kStrongTypes);
    valijson::adapters::NlohmannJsonAdapter target(plain_value);
    valijson::ValidationResults results;
    if (validator.validate(parsed, target, &results)) return absl::OkStatus();
    std::vector<FieldViolation> violations;
    valijson::ValidationResults::Error error;
    std::string text;
    while (results.popError(error) && violations.size() < 20) {
      violations.push_back({PathOf(error, where), error.description});
      if (violations.size() <= 3) {
        absl::StrAppend(&text, text.empty() ? "" : "; ", violations.back().field, ": ", error.description);
      }
    }
    return Error(absl::StatusCode::kInvalidArgument, "SCHEMA_VIOLATION",
                 absl::StrCat("does not fit the JSON Schema: ", text))
        .Violations(std::move(violations));
  } catch (const std::exception& e) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_SCHEMA",
                 absl::StrCat("the JSON Schema of ", where, " is itself wrong: ", e.what()))
        .Violation(where, e.what());
  }
}

}  // namespace tutti
