// One PostgreSQL connection, used by one thread at a time. libpqxx's exceptions end here.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/state-manager/adapters/group_commit.h"
#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

struct PostgresOptions {
  // libpq's connection string or URI.
  std::string dsn;
  // For reads that allow staleness; empty: none.
  std::string replica_dsn;
  // For LISTEN, which needs a session of its own: past a pooler in transaction mode, name the server itself. Empty:
  // dsn.
  std::string listen_dsn;
  int pool_size = 10;
  // Connections that commit beside each other.
  int write_lanes = 2;
  size_t max_batch = 1024;
  size_t max_queue = 65536;
  size_t max_read_queue = 4096;
  // Also whether the session is ours to set up. Off behind a pooler in transaction mode: what is set would stay on
  // whichever connection of the server it was, for whoever has it next.
  bool prepared_statements = true;
  absl::Duration connect_timeout = absl::Seconds(3);
  // A statement, and an answer of a server that does not react at all, take no longer.
  absl::Duration statement_timeout = absl::Seconds(15);
  absl::Duration pool_wait = absl::Seconds(5);
  // Added to the database's time; tests move it.
  std::function<absl::Duration()> time_shift;
};

class PostgresSession final : public Transaction, public WriteSession {
 public:
  // UNAVAILABLE: no server there, or it refuses. Blocks up to the connect timeout.
  static absl::StatusOr<std::unique_ptr<PostgresSession>> Connect(const std::string& dsn,
                                                                  const PostgresOptions& options);
  ~PostgresSession() override;

  Dialect dialect() const override { return Dialect::kPostgres; }
  Statement Prepare(absl::string_view sql) override;
  int64_t NowMicros() override;
  int64_t ClockShiftMicros() const override;
  absl::Status Execute(const std::string& script) override;
  const absl::Status& failure() const override { return failure_; }
  int64_t rows_written() const override { return rows_written_; }

  absl::StatusOr<Transaction*> Begin() override;
  absl::Status Commit() override;
  void Rollback() override;
  // A read: statements stand for themselves, or see one snapshot.
  absl::Status BeginRead(bool snapshot);
  void EndRead();
  // Whether the server still answers.
  bool Ping();

  // The connection is lost: the session is of no more use.
  bool broken() const { return broken_; }
  // The socket; -1 when there is none. A watchdog may shut it down.
  int socket() const { return socket_; }
  // Microseconds since 1970 when the exchange in progress began; 0: none is. Thread safe.
  int64_t busy_since() const { return busy_since_; }

 private:
  class StatementOfPostgres;
  struct Connection;

  explicit PostgresSession(const PostgresOptions& options);
  // Runs `body`, turns what it throws into a status, and keeps the first one.
  template <class Body>
  absl::Status Guard(Body body);
  absl::Status Keep(absl::Status status);
  // Returns COMMIT_UNKNOWN in place of the error of a commit whose answer was lost; else the error as it is.
  absl::Status DoubtCommit(const absl::Status& status);
  // Sends BEGIN, before a transaction's first statement.
  void EnsureBegun();

  enum class State {
    kIdle,
    kReading,  // statements stand for themselves, or the snapshot was begun
    kToBegin,  // a transaction of which the server knows nothing yet
    kBegun,
    kCommitted,  // with its only statement
  };

  const PostgresOptions& options_;
  std::unique_ptr<Connection> connection_;
  absl::flat_hash_map<std::string, std::unique_ptr<StatementOfPostgres>> prepared_;
  absl::Status failure_;
  State state_ = State::kIdle;
  int64_t transaction_time_ = 0;
  int64_t rows_written_ = 0;
  bool broken_ = false;
  int socket_ = -1;
  int generation_ = 0;
  std::atomic<int64_t> busy_since_{0};
};

// libpq's escaping of a value in a connection string.
std::string WithParameter(const std::string& dsn, absl::string_view key, absl::string_view value);

}  // namespace tutti::state_manager
