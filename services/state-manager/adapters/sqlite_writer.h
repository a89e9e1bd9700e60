// The one that writes to a SQLite database: batches become transactions, or, where their writer can defer them, records
// of a log that are put into the tables later, many in one transaction (docs/adr/0015).
//
// What is deferred is in the tables before anybody else reads or writes: every other transaction begins with it, reads
// wait for it while behind() is true. So nobody but the deferring writer ever sees a database that lacks what was
// acknowledged. There are two logs: while a thread beside the writing one puts what one of them holds into the tables,
// the other takes what comes.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/async/executor.h"
#include "runtime/sync/mutex.h"
#include "services/state-manager/adapters/group_commit.h"
#include "services/state-manager/adapters/spare_space.h"
#include "services/state-manager/adapters/sqlite_db.h"
#include "services/state-manager/adapters/write_log.h"

namespace tutti::state_manager {

// Up to which generation the log's records are in the tables, which is written with them.
absl::StatusOr<uint64_t> AppliedGeneration(Transaction& tx);
absl::Status NoteApplied(Transaction& tx, uint64_t generation);

// Used by one thread, but for behind().
class SqliteWriter final : private WriteSession {
 public:
  using Announce = std::function<void(std::vector<News>)>;

  SqliteWriter(SqliteDb& db, DatabaseMetrics& metrics, Announce announce)
      : db_(db), metrics_(metrics), announce_(std::move(announce)) {}
  // Takes writes of `deferrer` as records from now on; what the log's files hold from an earlier process is put into
  // the tables first. `peek` reads the same database.
  absl::Status UseLog(const std::array<std::string, 2>& files, DeferringWriter& deferrer,
                      std::unique_ptr<SqliteDb> peek, std::chrono::milliseconds longest_behind);

  // Uses `spare` on a full disk: writes are refused, and what was acknowledged can still be read.
  void UseSpare(SpareSpace& spare, std::string file, std::chrono::milliseconds pause);
  void Commit(std::vector<WriteOp>& batch);
  // Puts what is deferred into the tables while nobody waits.
  void Idle();
  // Something acknowledged is not in the tables.
  bool behind() const { return behind_.load(std::memory_order_acquire); }

 private:
  absl::StatusOr<Transaction*> Begin() override;
  absl::Status Commit() override;
  void Rollback() override;

  bool IsDiskFull();
  // Answers those that write, and leaves those that wait for the tables.
  void RefuseWrites(std::vector<WriteOp>& batch) const;
  bool TryDefer(std::vector<WriteOp>& batch);
  // Has the applying thread put into the tables what is deferred by now, if it is time.
  void HandOver();
  // Until it has done so; the connection is this thread's then.
  void AwaitApplied();
  // Of the applying thread.
  absl::Status ApplySealed(uint64_t generation);
  // Begin and Commit with nothing between.
  absl::Status Settle();
  bool log_in_use() const { return deferrer_ != nullptr; }
  WriteLog& log() { return *logs_[current_]; }
  WriteLog& other_log() { return *logs_[1 - current_]; }

  SqliteDb& db_;  // the applying thread's while it applies
  DatabaseMetrics& metrics_;
  const Announce announce_;
  SpareSpace* spare_ = nullptr;
  std::string file_;
  std::chrono::milliseconds room_pause_{0};
  std::chrono::steady_clock::time_point next_reservation_;
  DeferringWriter* deferrer_ = nullptr;
  std::unique_ptr<SqliteDb> peek_;
  std::chrono::milliseconds longest_behind_{0};
  std::array<std::unique_ptr<WriteLog>, 2> logs_;
  size_t current_ = 0;         // the log that takes what comes
  uint64_t generation_ = 0;    // its
  bool others_write_ = false;  // in the transaction
  bool settles_ = false;       // the transaction ends the generation
  bool doubtful_ = false;      // it is unknown what the last attempt to write has left: tables only, until one succeeds
  std::chrono::steady_clock::time_point tail_since_;
  std::atomic<bool> behind_{false};

  bool handed_over_ = false;  // the sealed part, and what became of it not looked at
  Mutex mutex_;
  CondVar wake_;
  std::optional<absl::Status> applied_ ABSL_GUARDED_BY(mutex_);  // what became of it
  std::unique_ptr<WorkerPool> applier_;                          // one thread; ends first
};

}  // namespace tutti::state_manager
