#include "runtime/text/page_token.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti {
namespace {
// FNV-1a: the token must be the same in every replica and release.
uint64_t Fingerprint(absl::string_view text) {
  uint64_t hash = 14695981039346656037ull;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211ull;
  return hash;
}
}  // namespace

absl::StatusOr<int> PageSize(int requested) {
  if (requested < 0) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_PAGE_SIZE", "page_size must not be negative")
        .Violation("page_size", "must not be negative");
  }
  return requested == 0 ? kDefaultPageSize : std::min(requested, kMaxPageSize);
}

std::string EncodePageToken(absl::string_view cursor, absl::string_view request) {
  return absl::WebSafeBase64Escape(absl::StrCat("1", absl::Hex(Fingerprint(request), absl::kZeroPad16), cursor));
}

absl::StatusOr<std::string> DecodePageToken(absl::string_view token, absl::string_view request) {
  if (token.empty()) return std::string();
  std::string raw;
  if (!absl::WebSafeBase64Unescape(token, &raw) || raw.size() < 17 || raw[0] != '1' ||
      raw.substr(1, 16) != absl::StrCat(absl::Hex(Fingerprint(request), absl::kZeroPad16))) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_PAGE_TOKEN",
                 "page_token is not the next_page_token of this same request; begin without one")
        .Violation("page_token", "not the next_page_token of this same request");
  }
  return raw.substr(17);
}

}  // namespace tutti
