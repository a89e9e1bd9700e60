#include "services/state-manager/store/rows.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/utf8.h"

namespace tutti::state_manager {

std::string ToJsonText(const StringMap& map) {
  Json out = Json::object();
  for (const auto& [key, value] : map) out[key] = value;
  return DumpJson(out);
}

void FromJsonText(absl::string_view json, StringMap* out) {
  Json parsed = Json::parse(json.begin(), json.end(), nullptr, false);
  if (!parsed.is_object()) return;
  for (const auto& [key, value] : parsed.items()) {
    if (value.is_string()) (*out)[key] = value.get<std::string>();
  }
}

absl::Status Invalid(absl::string_view field, absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", absl::StrCat(field, " ", what))
      .Violation(field, what);
}

absl::Status CheckText(absl::string_view field, absl::string_view text, size_t max, bool required) {
  if (required && text.empty()) return Invalid(field, "must be given");
  if (text.size() > max) return Invalid(field, absl::StrCat("has ", text.size(), " bytes; at most ", max));
  if (absl::StrContains(text, '\0')) return Invalid(field, "has a NUL character");
  if (!IsValidUtf8(text)) return Invalid(field, "is not valid UTF-8");
  return absl::OkStatus();
}

absl::Status CheckId(absl::string_view field, absl::string_view id, absl::string_view more) {
  TUTTI_RETURN_IF_ERROR(CheckText(field, id, 200, /*required=*/true));
  for (char c : id) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
        absl::StrContains(more, c)) {
      continue;
    }
    return Invalid(field, absl::StrCat("has the character '", absl::string_view(&c, 1),
                                       "'; letters, digits, '-', '_', '.'", more.empty() ? "" : " and ", more));
  }
  return absl::OkStatus();
}

absl::Status CheckLabels(absl::string_view field, const StringMap& labels, int max) {
  if (static_cast<int>(labels.size()) > max) {
    return Invalid(field, absl::StrCat("has ", labels.size(), " entries; at most ", max));
  }
  for (const auto& [key, value] : labels) {
    TUTTI_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".", key), key, 64, /*required=*/true));
    TUTTI_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".", key), value, 1024));
  }
  return absl::OkStatus();
}

absl::Status CheckDuration(absl::string_view field, const google::protobuf::Duration& duration, int64_t min_seconds,
                           int64_t max_seconds) {
  bool valid = duration.seconds() >= min_seconds && duration.nanos() >= 0 && duration.nanos() < 1000000000 &&
               (duration.seconds() < max_seconds || (duration.seconds() == max_seconds && duration.nanos() == 0));
  if (valid) return absl::OkStatus();
  return Invalid(field, absl::StrCat("must be ", min_seconds, " s to ", max_seconds, " s"));
}

}  // namespace tutti::state_manager
