// Page tokens (AIP-158): opaque, URL-safe, tied to the request's other fields.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tutti {

inline constexpr int kDefaultPageSize = 50;
inline constexpr int kMaxPageSize = 1000;

// 0 is the default, more than the maximum is the maximum. INVALID_ARGUMENT: negative.
absl::StatusOr<int> PageSize(int requested);
// `cursor` is where the next page begins, `request` stands for the fields that must not change between pages.
std::string EncodePageToken(absl::string_view cursor, absl::string_view request);
// Empty for an empty token. INVALID_ARGUMENT: not one of ours, or of another request.
absl::StatusOr<std::string> DecodePageToken(absl::string_view token, absl::string_view request);

}  // namespace tutti
