#include "services/state-manager/adapters/write_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr uint32_t kMagic = 0x676f6c74;  // "tlog"
constexpr size_t kAlign = 32;
constexpr size_t kStep = size_t{1} << 20;  // the file grows by as much

struct Header {
  uint32_t magic, length, crc, zero;
  uint64_t generation, number;
};
static_assert(sizeof(Header) == kAlign);
constexpr size_t kCovered = offsetof(Header, zero);  // what the CRC covers begins here
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are written as they are in memory");

size_t Aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

uint32_t CrcOf(const char* frame, size_t length) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(frame) + kCovered, sizeof(Header) - kCovered + length));
}

// Whether a whole frame of a generation after `applied` begins at `at`.
bool FrameAt(const std::string& content, size_t at, uint64_t applied, Header& header) {
  if (at + sizeof(Header) > content.size()) return false;
  std::memcpy(&header, content.data() + at, sizeof(Header));
  return header.magic == kMagic && header.generation > applied &&
         header.length <= content.size() - at - sizeof(Header) &&
         header.crc == CrcOf(content.data() + at, header.length);
}

std::optional<std::string> ReadAll(int descriptor) {
  struct stat info {};
  if (fstat(descriptor, &info) != 0) return std::nullopt;
  std::string out(static_cast<size_t>(info.st_size), '\0');
  for (size_t at = 0; at < out.size();) {
    ssize_t got = pread(descriptor, out.data() + at, out.size() - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::nullopt;
    at += static_cast<size_t>(got);
  }
  return out;
}

absl::Status FileError(absl::string_view what, const std::string& file) {
  return Error(absl::StatusCode::kFailedPrecondition, "WRITE_LOG",
               absl::StrCat("cannot ", what, " ", file, ": ", strerror(errno),
                            ". Check the folder's permissions, or choose another with --state-manager.data-dir"));
}

absl::Status WriteAll(int descriptor, absl::string_view bytes, size_t offset) {
  while (!bytes.empty()) {
    ssize_t written = pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return absl::ErrnoToStatus(errno, "the log cannot be written");
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WriteLog>> WriteLog::Open(const std::string& file, uint64_t applied) {
  int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return FileError("open", file);
  // That the file is there must outlive a power cut, too.
  std::string folder = std::filesystem::path(file).parent_path();
  int parent = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent >= 0) {
    (void)fsync(parent);  // some file systems cannot, and need not
    close(parent);
  }
  std::unique_ptr<WriteLog> log(new WriteLog(file, descriptor));
  TUTTI_RETURN_IF_ERROR(log->Read(applied));
  return log;
}

WriteLog::~WriteLog() { close(descriptor_); }

uint64_t WriteLog::GenerationOf(const std::string& file) {
  int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  auto content = ReadAll(descriptor);
  close(descriptor);
  // A record that is being written was not acknowledged, and the generation that it overwrites was applied.
  Header header{};
  return content && FrameAt(*content, 0, 0, header) ? header.generation : 0;
}

absl::Status WriteLog::Read(uint64_t applied) {
  auto all = ReadAll(descriptor_);
  if (!all) return FileError("read", file_);
  const std::string& content = *all;
  // A part of a step is what was being added when the process ended; nothing is in it.
  allocated_ = content.size() / kStep * kStep;
  dirty_ = content.size();
  size_t at = 0;
  Header header{};
  while (FrameAt(content, at, applied, header) && header.number == number_ &&
         (number_ == 0 || header.generation == generation_)) {
    generation_ = header.generation;
    found_.emplace_back(content, at + sizeof(Header), header.length);
    at += Aligned(sizeof(Header) + header.length);
    ++number_;
  }
  end_ = at;
  // A record is written when the one before it is on the disk, so that only the last can be half there, and it was not
  // acknowledged. If more follows, one before it was.
  for (; at < content.size(); at += kAlign) {
    if (!FrameAt(content, at, applied, header)) continue;
    return Error(absl::StatusCode::kDataLoss, "WRITE_LOG_DAMAGED",
                 absl::StrCat(file_, " is damaged before byte ", at,
                              ", and acknowledged writes are in it. It is left as it is. Restore the data folder from "
                              "a backup, or move the file away to go on without its last writes"));
  }
  return absl::OkStatus();
}

bool WriteLog::Fits(size_t record_bytes) const {
  return !failed_ && end_ + Aligned(sizeof(Header) + record_bytes) <= kCapacity;
}

absl::Status WriteLog::Extend(size_t bytes) {
  if (allocated_ >= bytes) return absl::OkStatus();
  // Space that was written before needs no change of the file system's own records at each commit.
  std::string zeros(kStep, '\0');
  while (allocated_ < bytes) {
    TUTTI_RETURN_IF_ERROR(WriteAll(descriptor_, zeros, allocated_));
    allocated_ += kStep;
  }
  return absl::OkStatus();
}

absl::Status WriteLog::Append(absl::string_view record) {
  if (!Fits(record.size())) return absl::ResourceExhaustedError("the log is full");
  Header header{kMagic, static_cast<uint32_t>(record.size()), 0, 0, generation_, number_};
  size_t size = Aligned(sizeof(Header) + record.size());
  frame_.assign(reinterpret_cast<const char*>(&header), sizeof(Header));
  frame_.append(record.data(), record.size());
  frame_.resize(size);
  header.crc = CrcOf(frame_.data(), record.size());
  std::memcpy(frame_.data(), &header, sizeof(Header));
  dirty_ = std::max(dirty_, end_ + size);
  absl::Status status = Extend(end_ + size);
  if (status.ok()) status = WriteAll(descriptor_, frame_, end_);
  if (status.ok() && fdatasync(descriptor_) != 0) status = absl::ErrnoToStatus(errno, "the log cannot be synced");
  if (!status.ok()) {
    failed_ = true;
    return status;
  }
  end_ += size;
  ++number_;
  return absl::OkStatus();
}

void WriteLog::BeginGeneration(uint64_t generation) {
  found_.clear();
  generation_ = generation;
  number_ = 0;
  end_ = 0;
  failed_ = false;
}

void WriteLog::Wipe() {
  if (end_ != 0 || dirty_ == 0) return;
  std::string zeros(std::min(dirty_, kStep), '\0');
  for (size_t at = 0; at < dirty_; at += zeros.size()) {
    if (!WriteAll(descriptor_, absl::string_view(zeros).substr(0, std::min(zeros.size(), dirty_ - at)), at).ok())
      return;
  }
  dirty_ = 0;
}

}  // namespace tutti::state_manager
