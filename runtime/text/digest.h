// Names for content.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tutti {

// SHA-256, the first 128 bits, as 32 hex digits: the same content has the same name everywhere and for ever.
std::string HexDigest(absl::string_view content);

}  // namespace tutti
