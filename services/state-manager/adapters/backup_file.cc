#include "services/state-manager/adapters/backup_file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

using tutti::state::v1::BackupChunk;

constexpr char kMagic[] = "tutti-backup 1\n";
constexpr size_t kMagicSize = sizeof(kMagic) - 1;
constexpr size_t kDigest = 32;
constexpr int kLevel = 3;
constexpr size_t kMaxFrame = size_t{256} << 20;

struct FileCloser {
  void operator()(FILE* file) const { fclose(file); }
};
using File = std::unique_ptr<FILE, FileCloser>;

absl::Status FileError(absl::string_view what, const std::string& file) {
  bool full = errno == ENOSPC || errno == EDQUOT;
  return Error(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kFailedPrecondition, "BACKUP_FILE",
               absl::StrCat(what, " ", file, ": ", strerror(errno)));
}

absl::Status NoBackup(const std::string& file, absl::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "BACKUP_DAMAGED", absl::StrCat(file, " is no whole backup: ", why));
}

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new()) { EVP_DigestInit_ex(context_, EVP_sha256(), nullptr); }
  ~Digest() { EVP_MD_CTX_free(context_); }
  void Add(const void* data, size_t size) { EVP_DigestUpdate(context_, data, size); }
  std::string End() {
    std::string out(kDigest, '\0');
    unsigned int length = 0;
    EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(out.data()), &length);
    return out;
  }

 private:
  EVP_MD_CTX* context_;
};

std::string Length(size_t size) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(size >> shift));
  return out;
}

}  // namespace

absl::Status WriteBackupFile(
    const std::string& file,
    const std::function<absl::Status(const std::function<absl::Status(const BackupChunk&)>&)>& fill) {
  const std::string part = file + ".part";
  int descriptor = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);  // it holds everything
  File out(descriptor < 0 ? nullptr : fdopen(descriptor, "wb"));
  if (!out) return FileError("cannot write", part);
  Digest digest;
  auto write = [&](const std::string& bytes) {
    digest.Add(bytes.data(), bytes.size());
    return fwrite(bytes.data(), 1, bytes.size(), out.get()) == bytes.size() ? absl::OkStatus()
                                                                            : FileError("cannot write", part);
  };
  auto finish = [&]() -> absl::Status {
    TUTTI_RETURN_IF_ERROR(write(kMagic));
    TUTTI_RETURN_IF_ERROR(fill([&](const BackupChunk& chunk) -> absl::Status {
      std::string plain = chunk.SerializeAsString();
      std::string packed(ZSTD_compressBound(plain.size()), '\0');
      packed.resize(ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), kLevel));
      TUTTI_RETURN_IF_ERROR(write(Length(packed.size())));
      return write(packed);
    }));
    TUTTI_RETURN_IF_ERROR(write(Length(0)));
    TUTTI_RETURN_IF_ERROR(write(digest.End()));
    bool kept = fflush(out.get()) == 0 && fsync(fileno(out.get())) == 0;
    if (!kept || rename(part.c_str(), file.c_str()) != 0) return FileError("cannot write", file);
    return absl::OkStatus();
  };
  absl::Status status = finish();
  if (!status.ok()) unlink(part.c_str());
  return status;
}

absl::Status ReadBackupFile(const std::string& file, const std::function<absl::Status(const BackupChunk&)>& take) {
  File in(fopen(file.c_str(), "rb"));
  if (!in) return FileError("cannot read", file);
  std::vector<char> buffer(size_t{1} << 20);
  {
    fseek(in.get(), 0, SEEK_END);
    auto size = static_cast<size_t>(ftell(in.get()));
    fseek(in.get(), 0, SEEK_SET);
    if (size < kMagicSize + 4 + kDigest) return NoBackup(file, "it is too short");
    Digest digest;
    for (size_t left = size - kDigest; left > 0;) {
      size_t got = fread(buffer.data(), 1, std::min(left, buffer.size()), in.get());
      if (got == 0) return FileError("cannot read", file);
      digest.Add(buffer.data(), got);
      left -= got;
    }
    std::string stored(kDigest, '\0');
    if (fread(stored.data(), 1, kDigest, in.get()) != kDigest || stored != digest.End()) {
      return NoBackup(file, "its checksum is wrong");
    }
    fseek(in.get(), 0, SEEK_SET);
  }
  std::string magic(kMagicSize, '\0');
  if (fread(magic.data(), 1, kMagicSize, in.get()) != kMagicSize || magic != kMagic) {
    return NoBackup(file, "it does not begin as one of this version");
  }
  for (;;) {
    unsigned char length[4];
    if (fread(length, 1, 4, in.get()) != 4) return NoBackup(file, "it is cut off");
    size_t size = (size_t{length[0]} << 24) | (size_t{length[1]} << 16) | (size_t{length[2]} << 8) | length[3];
    if (size == 0) return absl::OkStatus();
    if (size > kMaxFrame) return NoBackup(file, "a frame is too long");
    std::string packed(size, '\0');
    if (fread(packed.data(), 1, size, in.get()) != size) return NoBackup(file, "it is cut off");
    unsigned long long content = ZSTD_getFrameContentSize(packed.data(), packed.size());
    if (content > kMaxFrame) return NoBackup(file, "a frame's length is wrong");
    std::string plain(content, '\0');
    size_t got = ZSTD_decompress(plain.data(), plain.size(), packed.data(), packed.size());
    BackupChunk chunk;
    if (ZSTD_isError(got) != 0 || !chunk.ParseFromString(plain)) return NoBackup(file, "a frame is damaged");
    TUTTI_RETURN_IF_ERROR(take(chunk));
  }
}

}  // namespace tutti::state_manager
