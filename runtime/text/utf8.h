// UTF-8 as in RFC 3629.
#pragma once

#include <cstdint>
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

// Appends a code point up to U+10FFFF that is no surrogate.
void AppendUtf8(uint32_t code, std::string* out);
// The code point at `*at` of valid UTF-8; moves `*at` behind it.
uint32_t NextUtf8(absl::string_view text, size_t* at);
// Code points in valid UTF-8.
size_t CountUtf8(absl::string_view text);
// The offset of the code point at `index`, counted from the offset `from`; the text's size when there are fewer.
size_t OffsetOfUtf8(absl::string_view text, size_t index, size_t from = 0);

}  // namespace tutti
