// UTF-8 as in RFC 3629.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tutti {

// The offset of the first byte that is not valid UTF-8, or npos.
size_t FirstInvalidUtf8(absl::string_view text);
inline bool IsValidUtf8(absl::string_view text) { return FirstInvalidUtf8(text) == absl::string_view::npos; }
// The text with each invalid byte as U+FFFD.
std::string CleanUtf8(absl::string_view text);
// At most `max_bytes`, never cut inside a character.
absl::string_view Utf8Prefix(absl::string_view text, size_t max_bytes);

}  // namespace tutti
