// A thin, checked skin over one SQLite connection. Used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/state-manager/ports/database.h"

struct sqlite3;
struct sqlite3_stmt;

namespace tutti::state_manager {

// The house's SQL (ports/database.h) in SQLite's words.
std::string ToSqlite(absl::string_view sql);

// RESOURCE_EXHAUSTED with DISK_FULL.
absl::Status DiskFull(absl::string_view file);

class SqliteDb final : public Transaction {
 public:
  enum class Mode { kWrite, kRead, kMemory };
  // The database's time.
  using Now = std::function<int64_t()>;

  // DATA_LOSS: not a database, or damaged. FAILED_PRECONDITION, PERMISSION_DENIED: cannot be opened for writing.
  static absl::StatusOr<std::unique_ptr<SqliteDb>> Open(const std::string& file, Mode mode, Now now);
  ~SqliteDb() override;

  Dialect dialect() const override { return Dialect::kSqlite; }
  Statement Prepare(absl::string_view sql) override;
  int64_t NowMicros() override;
  absl::Status Execute(const std::string& script) override;
  const absl::Status& failure() const override { return failure_; }
  int64_t rows_written() const override;
  void WipeDeleted() override { wipe_ = true; }

  absl::Status Begin();
  // For reads alone: all of them see one state, which is looked for once instead of by each. Ends with Commit.
  absl::Status BeginReads();
  absl::Status Commit();
  void Rollback();
  // A new transaction or read: forgets the last one's failure and time.
  void Reset();
  absl::Status ErrorOf(absl::string_view what) const;
  // Asked when the disk is full. True: there is room now, and the transaction is tried again (ABORTED).
  void set_make_room(std::function<bool()> make_room) { make_room_ = std::move(make_room); }
  // Outside transactions: does what WipeDeleted asked for, if somebody did. Waits for no reader that is in the way: the
  // next call tries again.
  void WipeIfWanted();

 private:
  class StatementOfSqlite;

  explicit SqliteDb(Now now);
  sqlite3* db_ = nullptr;
  const Now now_;
  int64_t transaction_time_ = 0;
  absl::Status failure_;
  bool wipe_ = false;
  std::function<bool()> make_room_;
  absl::flat_hash_map<std::string, std::unique_ptr<StatementOfSqlite>> prepared_;
};

}  // namespace tutti::state_manager
