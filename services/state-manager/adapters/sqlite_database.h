// SQLite as the state-manager's database: one writer thread with group commit, and reader connections beside it.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/executor.h"
#include "runtime/time/clock.h"
#include "services/state-manager/adapters/group_commit.h"
#include "services/state-manager/adapters/sqlite_db.h"
#include "services/state-manager/adapters/sqlite_writer.h"

namespace tutti::state_manager {

// The log's files in the data folder.
inline constexpr const char* kLogFiles[] = {"tutti.log0", "tutti.log1"};

class SqliteDatabase final : public Database {
 public:
  struct Options {
    // The folder of tutti.db; empty is a database in memory, gone with the object (tests, simulation).
    std::string data_dir;
    size_t max_batch = 4096;
    size_t max_queue = 65536;
    // Whose writes are taken as records of a log before they are in the tables; the same one at each opening. Without
    // it, and in memory, there is no log.
    DeferringWriter* deferrer = nullptr;
    // When what it holds is put into the tables: after as long without a write, longer than a caller needs to come
    // again with the next; and while there are writes, before it is older.
    std::chrono::milliseconds idle_after{5};
    std::chrono::milliseconds longest_behind{40};
    // Kept free for a full disk, so that reads go on; 0: nothing is.
    size_t spare_bytes = SpareSpace::kBytes;
    // Pause between two looks for room on a full disk.
    std::chrono::milliseconds room_pause{1000};
  };
  // Creates the folder and the database when they are missing, and migrates it. FAILED_PRECONDITION: the folder is in
  // use, not writable, or the database is newer than this program. DATA_LOSS: the database is damaged.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(Options options, const Clock& clock,
                                                              NewsListener& listener);
  ~SqliteDatabase() override;

  Dialect dialect() const override { return Dialect::kSqlite; }
  void Write(WriteOp op) override;
  void Read(ReadOp op) override;
  absl::Status Writable() const override;
  void Announce(std::vector<News> news) override;
  DatabaseMetrics& metrics() { return metrics_; }

 private:
  void ReadNow(std::shared_ptr<ReadOp> op);
  SqliteDatabase(Options options, const Clock& clock, NewsListener& listener);

  const Options options_;
  const Clock& clock_;
  NewsListener& listener_;
  DatabaseMetrics metrics_;
  int lock_file_ = -1;
  std::unique_ptr<SpareSpace> spare_;  // null in memory
  std::unique_ptr<SqliteDb> write_db_;
  std::unique_ptr<SqliteWriter> writer_;
  Mutex readers_mutex_;
  std::vector<std::unique_ptr<SqliteDb>> readers_ ABSL_GUARDED_BY(readers_mutex_);
  std::unique_ptr<WorkerPool> reader_pool_;
  std::unique_ptr<GroupCommit> group_commit_;
};

// Of the last records in the log of a data folder, which another may be writing; 0: none.
uint64_t LoggedGeneration(const std::string& dir);

// Locks a data folder for this process, creating it when it is missing; the file descriptor to close.
// FAILED_PRECONDITION: in use, or not writable.
absl::StatusOr<int> LockDataDir(const std::string& dir);

}  // namespace tutti::state_manager
