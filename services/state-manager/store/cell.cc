#include "services/state-manager/store/cell.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <zstd.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr unsigned char kCompressed = 1, kEncrypted = 2, kReference = 4, kKnownFlags = 7;
constexpr size_t kNonce = 12, kTag = 16;
// Below, compressing costs a writer more time than the bytes are worth (docs/performance.md).
constexpr size_t kWorthCompressing = 1024;
constexpr int kLevel = 1;
// Far above any request; a frame that says more is damaged.
constexpr size_t kMaxContent = size_t{1} << 30;

absl::Status Damaged(absl::string_view place, absl::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "CELL_DAMAGED",
               absl::StrCat("stored data of ", place, " cannot be read: ", why,
                            ". Restore it from a backup; `tutti backup` makes them"));
}

const unsigned char* Raw(absl::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* Raw(std::string& text, size_t at) { return reinterpret_cast<unsigned char*>(text.data()) + at; }

struct CipherDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, CipherDeleter>;

// What the tag covers besides the content: the flags and the place.
std::string Aad(unsigned char flags, absl::string_view place) {
  return absl::StrCat(std::string(1, static_cast<char>(flags)), place);
}

std::string Encrypt(const Keys& keys, absl::string_view body, const std::string& aad) {
  std::string out(1, static_cast<char>(keys.active.size()));
  out += keys.active;
  size_t nonce = out.size();
  out.resize(nonce + kNonce + body.size() + kTag);
  if (RAND_bytes(Raw(out, nonce), kNonce) != 1) std::abort();  // without randomness nothing may be written
  Cipher cipher(EVP_CIPHER_CTX_new());
  int length = 0;
  EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Raw(keys.by_id.at(keys.active)), Raw(out, nonce));
  EVP_EncryptUpdate(cipher.get(), nullptr, &length, Raw(aad), static_cast<int>(aad.size()));
  EVP_EncryptUpdate(cipher.get(), Raw(out, nonce + kNonce), &length, Raw(body), static_cast<int>(body.size()));
  EVP_EncryptFinal_ex(cipher.get(), Raw(out, nonce + kNonce + body.size()), &length);
  EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTag, Raw(out, nonce + kNonce + body.size()));
  return out;
}

absl::StatusOr<std::string> Decrypt(const Keys& keys, absl::string_view sealed, const std::string& aad,
                                    absl::string_view place) {
  size_t id_size = sealed.empty() ? 0 : static_cast<unsigned char>(sealed[0]);
  if (sealed.size() < 1 + id_size + kNonce + kTag) return Damaged(place, "it is cut off");
  std::string id(sealed.substr(1, id_size));
  auto key = keys.by_id.find(id);
  if (key == keys.by_id.end()) {
    return Error(absl::StatusCode::kFailedPrecondition, "ENCRYPTION_KEY_MISSING",
                 absl::StrCat("stored data of ", place, " is encrypted with key \"", id,
                              "\", which is not among the keys given (--state-manager.encryption.key-dir)"));
  }
  absl::string_view nonce = sealed.substr(1 + id_size, kNonce);
  absl::string_view body = sealed.substr(1 + id_size + kNonce, sealed.size() - 1 - id_size - kNonce - kTag);
  std::string tag(sealed.substr(sealed.size() - kTag));
  std::string out(body.size(), '\0');
  Cipher cipher(EVP_CIPHER_CTX_new());
  int length = 0;
  EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Raw(key->second), Raw(nonce));
  EVP_DecryptUpdate(cipher.get(), nullptr, &length, Raw(aad), static_cast<int>(aad.size()));
  EVP_DecryptUpdate(cipher.get(), Raw(out, 0), &length, Raw(body), static_cast<int>(body.size()));
  EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTag, tag.data());
  if (EVP_DecryptFinal_ex(cipher.get(), Raw(out, 0) + out.size(), &length) != 1) {
    return Damaged(place,
                   absl::StrCat("it was altered, moved, or key \"", id, "\" is not the key it was written with"));
  }
  return out;
}

// A context each thread keeps: making one costs more than a small compression.
ZSTD_CCtx* Compressor() {
  thread_local std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
  return context.get();
}

}  // namespace

std::string CellCodec::Seal(absl::string_view plain, absl::string_view place, Compression compression) const {
  auto keys = keys_.Get();
  unsigned char flags = keys->active.empty() ? 0 : kEncrypted;
  std::string compressed;
  if (compression == Compression::kIfWorthIt && plain.size() >= kWorthCompressing) {
    compressed.resize(ZSTD_compressBound(plain.size()));
    size_t size =
        ZSTD_compressCCtx(Compressor(), compressed.data(), compressed.size(), plain.data(), plain.size(), kLevel);
    if (ZSTD_isError(size) == 0 && size + size / 8 < plain.size()) {
      compressed.resize(size);
      flags |= kCompressed;
    }
  }
  absl::string_view body = (flags & kCompressed) != 0 ? absl::string_view(compressed) : plain;
  std::string head(1, static_cast<char>(flags));
  if ((flags & kEncrypted) != 0) return head + Encrypt(*keys, body, Aad(flags, place));
  return absl::StrCat(head, body);
}

std::string CellCodec::Reference(absl::string_view hash) const {
  return absl::StrCat(std::string(1, static_cast<char>(kReference)), hash);
}

std::string CellCodec::HashOf(absl::string_view cell) {
  if (cell.size() == 1 + SHA256_DIGEST_LENGTH && static_cast<unsigned char>(cell[0]) == kReference) {
    return std::string(cell.substr(1));
  }
  return "";
}

std::string CellCodec::KeyOf(absl::string_view cell) {
  if (cell.size() < 2 || (static_cast<unsigned char>(cell[0]) & kEncrypted) == 0) return "";
  return std::string(cell.substr(2, static_cast<unsigned char>(cell[1])));
}

absl::StatusOr<std::string> CellCodec::Open(absl::string_view cell, absl::string_view place) const {
  if (cell.empty()) return std::string();
  auto flags = static_cast<unsigned char>(cell[0]);
  if ((flags & ~kKnownFlags) != 0 || (flags & kReference) != 0) return Damaged(place, "its form is not known");
  absl::string_view body = cell.substr(1);
  std::string decrypted;
  if ((flags & kEncrypted) != 0) {
    TUTTI_ASSIGN_OR_RETURN(decrypted, Decrypt(*keys_.Get(), body, Aad(flags, place), place));
    body = decrypted;
  }
  if ((flags & kCompressed) == 0) return std::string(body);
  unsigned long long size = ZSTD_getFrameContentSize(body.data(), body.size());
  if (size > kMaxContent) return Damaged(place, "its length is wrong");
  std::string out(size, '\0');
  size_t got = ZSTD_decompress(out.data(), out.size(), body.data(), body.size());
  if (ZSTD_isError(got) != 0 || got != size) return Damaged(place, "its compression is damaged");
  return out;
}

std::string CellCodec::Digest(absl::string_view plain) const {
  auto keys = keys_.Get();
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  if (keys->by_id.empty()) {
    SHA256(Raw(plain), plain.size(), Raw(out, 0));
  } else {
    const std::string& key = keys->by_id.begin()->second;
    unsigned int length = 0;
    HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), Raw(plain), plain.size(), Raw(out, 0), &length);
  }
  return out;
}

}  // namespace tutti::state_manager
