// A file of records, each on the disk when Append returns: one write into space that is there already and one
// fdatasync, the least that a commit can cost. What it holds is put into the database later, many records at once, and
// its space is used again (docs/adr/0015).
//
// A record is framed by 32 bytes, integers little-endian: magic (u32), length (u32), CRC-32 of all that follows it
// (u32), zero (u32), generation (u64), number within the generation (u64); the record; zeros up to a multiple of 32.
// Records of one generation follow each other from the file's begin. The database says up to which generation its
// tables have them: only later ones are read at start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tutti::state_manager {

// Used by one thread at a time.
class WriteLog {
 public:
  // Of one generation. A record that is larger than what is left is refused.
  static constexpr size_t kCapacity = size_t{8} << 20;

  // Opens the file, or creates it. Generations up to `applied` are in the database. DATA_LOSS: something acknowledged
  // is damaged. FAILED_PRECONDITION: it cannot be opened or read.
  static absl::StatusOr<std::unique_ptr<WriteLog>> Open(const std::string& file, uint64_t applied);
  ~WriteLog();
  WriteLog(const WriteLog&) = delete;
  WriteLog& operator=(const WriteLog&) = delete;

  // Of the records in a file that another may be writing; 0: none.
  static uint64_t GenerationOf(const std::string& file);

  // What was found when it was opened and is in no table yet, in order; of generation().
  const std::vector<std::string>& found() const { return found_; }

  // After an error it is unknown whether the record is there, and nothing more is taken in this generation.
  absl::Status Append(absl::string_view record);
  bool Fits(size_t record_bytes) const;
  bool empty() const { return end_ == 0 && !failed_; }
  size_t bytes() const { return end_; }
  // Of the records appended now; 0 before the first.
  uint64_t generation() const { return generation_; }
  // All records of the last generation are in the database, which says so itself.
  void BeginGeneration(uint64_t generation);
  // The same, and no generation begins here for now.
  void Empty() { BeginGeneration(0); }
  // Nobody needs what the file still holds of former generations. An error is none: they are not read anyhow.
  void Wipe();

 private:
  WriteLog(std::string file, int descriptor) : file_(std::move(file)), descriptor_(descriptor) {}
  absl::Status Read(uint64_t applied);
  absl::Status Extend(size_t bytes);

  const std::string file_;
  const int descriptor_;
  uint64_t generation_ = 0;
  uint64_t number_ = 0;
  size_t end_ = 0;        // of this generation's records
  size_t allocated_ = 0;  // the file's size; all of it has been written before
  size_t dirty_ = 0;      // what was written since the last Wipe ends here
  bool failed_ = false;
  std::string frame_;
  std::vector<std::string> found_;
};

}  // namespace tutti::state_manager
