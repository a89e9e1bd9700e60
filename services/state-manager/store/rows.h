// What all tables have in common: times, JSON objects of strings, ids and pages.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/map.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tutti::state_manager {

using StringMap = google::protobuf::Map<std::string, std::string>;

inline void SetMicros(int64_t micros, google::protobuf::Timestamp* out) {
  out->set_seconds(micros / 1000000);
  out->set_nanos(static_cast<int32_t>(micros % 1000000) * 1000);
}
inline int64_t ToMicros(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000000 + time.nanos() / 1000;
}
inline int64_t ToMicros(const google::protobuf::Duration& duration) {
  return duration.seconds() * 1000000 + duration.nanos() / 1000;
}

std::string ToJsonText(const StringMap& map);
void FromJsonText(absl::string_view json, StringMap* out);

// INVALID_ARGUMENT with the field: `text` is empty (when required), longer than `max` bytes, or has characters that
// databases do not take (NUL, invalid UTF-8).
absl::Status CheckText(absl::string_view field, absl::string_view text, size_t max, bool required = false);
// As CheckText, of letters, digits, `-`, `_`, `.` and those in `more`.
absl::Status CheckId(absl::string_view field, absl::string_view id, absl::string_view more = "");
// At most 64 entries of at most 64 and 1024 bytes.
absl::Status CheckLabels(absl::string_view field, const StringMap& labels, int max = 64);
// A duration within [min, max] seconds.
absl::Status CheckDuration(absl::string_view field, const google::protobuf::Duration& duration, int64_t min_seconds,
                           int64_t max_seconds);
absl::Status Invalid(absl::string_view field, absl::string_view what);

}  // namespace tutti::state_manager
