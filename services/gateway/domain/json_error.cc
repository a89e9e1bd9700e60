#include "services/gateway/domain/json_error.h"

#include <google/protobuf/descriptor.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/status/error.h"
#include "runtime/text/nearest_name.h"

namespace tutti::gateway {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

constexpr absl::string_view kUnknownField = ": Cannot find field.";

// The type at `spec.steps[0].agent`, of a message of type `from`; null when the path leads elsewhere.
const Descriptor* TypeAt(const Descriptor* from, absl::string_view path) {
  for (absl::string_view part : absl::StrSplit(path, '.', absl::SkipEmpty())) {
    const std::string name(part.substr(0, part.find('[')));
    const FieldDescriptor* field = from->FindFieldByCamelcaseName(name);
    if (!field) field = from->FindFieldByName(name);
    if (!field || field->type() != FieldDescriptor::TYPE_MESSAGE) return nullptr;
    from = field->message_type();
    if (field->is_map()) {
      const FieldDescriptor* value = from->map_value();
      if (value->type() != FieldDescriptor::TYPE_MESSAGE) return nullptr;
      from = value->message_type();
    }
  }
  return from;
}

std::string KnownFields(const Descriptor* type, const std::string& wrong) {
  std::vector<std::string> names;
  for (int i = 0; i < type->field_count(); ++i) names.push_back(type->field(i)->json_name());
  return DidYouMeanOf(wrong, names);
}

// "… for type type.googleapis.com/tutti.state.v1.Role"
std::string KnownValues(const Descriptor* any, absl::string_view message) {
  const size_t at = message.rfind('/');
  if (!absl::StrContains(message, "invalid value") || at == absl::string_view::npos) return "";
  const auto* type = any->file()->pool()->FindEnumTypeByName(std::string(message.substr(at + 1)));
  if (!type) return "";
  std::vector<std::string> names;
  for (int i = 0; i < type->value_count(); ++i) {
    if (type->value(i)->number() != 0) names.push_back(type->value(i)->name());
  }
  return absl::StrCat("; known: ", absl::StrJoin(names, ", "));
}

}  // namespace

absl::Status ExplainJsonError(const google::protobuf::Message& into, absl::string_view message) {
  // "(spec.steps[0]) foo: Cannot find field." names the place in parentheses.
  std::string field = "body", place;
  absl::string_view what = message;
  const size_t open = message.find('('), close = message.find(')');
  if (open != absl::string_view::npos && close != absl::string_view::npos && open < close) {
    absl::string_view inner = message.substr(open + 1, close - open - 1);
    if (!inner.empty() && !absl::StrContains(inner, ' ')) {
      field = place = std::string(inner);
      what = absl::StripLeadingAsciiWhitespace(message.substr(close + 1));
    }
  }
  std::string help;
  if (absl::EndsWith(what, kUnknownField)) {
    const std::string wrong(absl::StripSuffix(what, kUnknownField));
    if (const Descriptor* type = TypeAt(into.GetDescriptor(), place)) help = KnownFields(type, wrong);
  } else {
    help = KnownValues(into.GetDescriptor(), what);
  }
  const std::string text = absl::StrCat(help.empty() ? message : absl::StripSuffix(message, "."), help);
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_JSON",
               absl::StrCat("the body is not what the method takes: ", text))
      .Violation(field, text);
}

}  // namespace tutti::gateway
