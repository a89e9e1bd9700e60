// Cells: user data as it is stored. One byte of flags, then
//   plain       the bytes
//   compressed  a zstd frame
//   reference   SHA-256 of the content, in table payloads
//   encrypted   length of the key's id (1 byte), the id, nonce (12), AES-256-GCM of one of the above without flags, tag
//   (16)
// A cell knows what it belongs to (its `place`, authenticated by the encryption): one moved to another row does not
// open.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/state-manager/store/key_ring.h"

namespace tutti::state_manager {

class CellCodec {
 public:
  explicit CellCodec(const KeyRing& keys) : keys_(keys) {}

  enum class Compression { kIfWorthIt, kNone };
  // Compresses what is worth it, encrypts when there are keys.
  std::string Seal(absl::string_view plain, absl::string_view place,
                   Compression compression = Compression::kIfWorthIt) const;
  // A cell that refers to a payload.
  std::string Reference(absl::string_view hash) const;
  // The hash of a reference; empty for a cell that holds its content.
  static std::string HashOf(absl::string_view cell);
  // DATA_LOSS: damaged, or moved. FAILED_PRECONDITION names a key that is missing.
  absl::StatusOr<std::string> Open(absl::string_view cell, absl::string_view place) const;
  // The id of the key a cell needs; empty when none.
  static std::string KeyOf(absl::string_view cell);
  // Identifies a content: SHA-256, or HMAC-SHA-256 under the oldest key when there are keys, so that the database alone
  // does not tell whether a guessed content is in it.
  std::string Digest(absl::string_view plain) const;
  bool encrypts() const { return !keys_.Get()->active.empty(); }

 private:
  const KeyRing& keys_;
};

}  // namespace tutti::state_manager
