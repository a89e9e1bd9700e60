#include "runtime/text/digest.h"

#include <openssl/sha.h>

#include "absl/strings/escaping.h"

namespace tutti {

std::string HexDigest(absl::string_view content) {
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(content.data()), content.size(), hash);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(hash), 16));
}

}  // namespace tutti
