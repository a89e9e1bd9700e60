// PostgreSQL as the state-manager's database: several state-managers may work on one at the same time.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/async/executor.h"
#include "services/state-manager/adapters/group_commit.h"
#include "services/state-manager/adapters/migrator.h"
#include "services/state-manager/adapters/postgres_news.h"
#include "services/state-manager/adapters/postgres_pool.h"

namespace tutti::state_manager {

class PostgresDatabase final : public Database {
 public:
  // Migrates, then serves. UNAVAILABLE: the server cannot be reached. FAILED_PRECONDITION: it refuses, or its database
  // is newer than this program.
  static absl::StatusOr<std::unique_ptr<PostgresDatabase>> Open(PostgresOptions options, NewsListener& listener);
  ~PostgresDatabase() override;

  Dialect dialect() const override { return Dialect::kPostgres; }
  void Write(WriteOp op) override;
  void Read(ReadOp op) override;
  void Announce(std::vector<News> news) override;
  DatabaseMetrics& metrics() { return metrics_; }

 private:
  PostgresDatabase(PostgresOptions options, NewsListener& listener);
  void CommitWith(std::vector<WriteOp>& batch);
  absl::Status ReadWith(PostgresPool& pool, ReadOp& op);

  const PostgresOptions options_;
  NewsListener& listener_;
  DatabaseMetrics metrics_;
  std::unique_ptr<PostgresPool> pool_, replica_pool_;
  std::unique_ptr<PostgresNews> news_;
  std::unique_ptr<WorkerPool> readers_;
  std::unique_ptr<GroupCommit> group_commit_;
};

// Brings the database to the target under a lock, so that several may try at once.
absl::Status MigratePostgres(const PostgresOptions& options, const MigrationTarget& target);

}  // namespace tutti::state_manager
