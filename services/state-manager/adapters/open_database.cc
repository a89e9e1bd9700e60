#include "services/state-manager/adapters/open_database.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/state-manager/adapters/postgres_database.h"
#include "services/state-manager/adapters/sqlite_database.h"

namespace tutti::state_manager {
PostgresOptions ToPostgresOptions(const tutti::config::v1::StateManager& config) {
  const auto& postgres = config.postgres();
  PostgresOptions out;
  out.dsn = postgres.dsn();
  out.replica_dsn = postgres.replica_dsn();
  out.listen_dsn = postgres.listen_dsn();
  out.pool_size = std::max(2, postgres.pool_size());
  out.write_lanes = std::max(1, postgres.write_lanes());
  out.max_batch = static_cast<size_t>(std::max(1, config.max_batch()));
  out.max_queue = static_cast<size_t>(std::max(1, config.max_queue()));
  out.prepared_statements = postgres.prepared_statements();
  out.statement_timeout = FromProto(postgres.statement_timeout());
  out.pool_wait = FromProto(postgres.pool_wait());
  return out;
}

std::vector<tutti::config::v1::StateManager> ShardConfigs(const tutti::config::v1::StateManager& config) {
  std::vector<tutti::config::v1::StateManager> out;
  out.push_back(config);
  auto* home = out[0].mutable_postgres();
  home->clear_shard_dsns();
  home->clear_shard_listen_dsns();
  for (int i = 0; i < config.postgres().shard_dsns_size(); ++i) {
    tutti::config::v1::StateManager& shard = out.emplace_back(out[0]);
    shard.mutable_postgres()->set_dsn(config.postgres().shard_dsns(i));
    shard.mutable_postgres()->clear_replica_dsn();
    shard.mutable_postgres()->clear_listen_dsn();
    if (i < config.postgres().shard_listen_dsns_size()) {
      shard.mutable_postgres()->set_listen_dsn(config.postgres().shard_listen_dsns(i));
    }
  }
  return out;
}

absl::StatusOr<OpenedDatabase> OpenDatabase(const tutti::config::v1::StateManager& config, const Clock& clock,
                                            NewsListener& listener, DeferringWriter* deferrer) {
  OpenedDatabase out;
  if (config.postgres().dsn().empty()) {
    TUTTI_ASSIGN_OR_RETURN(auto sqlite,
                           SqliteDatabase::Open({.data_dir = config.data_dir(),
                                                 .max_batch = static_cast<size_t>(std::max(1, config.max_batch())),
                                                 .max_queue = static_cast<size_t>(std::max(1, config.max_queue())),
                                                 .deferrer = deferrer},
                                                clock, listener));
    out.metrics = &sqlite->metrics();
    out.description = absl::StrCat("SQLite in ", config.data_dir());
    out.database = std::move(sqlite);
  } else {
    auto opened = PostgresDatabase::Open(ToPostgresOptions(config), listener);
    if (absl::IsUnavailable(opened.status()) || absl::IsInvalidArgument(opened.status())) {
      return Prefix(opened.status(), "--state-manager.postgres.dsn: ");
    }
    TUTTI_RETURN_IF_ERROR(opened.status());
    auto postgres = *std::move(opened);
    out.metrics = &postgres->metrics();
    out.description = "PostgreSQL";
    out.database = std::move(postgres);
  }
  return out;
}

absl::Status MigrateDatabase(const tutti::config::v1::StateManager& config, const MigrationTarget& target) {
  if (!config.postgres().dsn().empty()) return MigratePostgres(ToPostgresOptions(config), target);
  TUTTI_ASSIGN_OR_RETURN(int lock, LockDataDir(config.data_dir()));
  auto db =
      SqliteDb::Open(absl::StrCat(config.data_dir(), "/tutti.db"), SqliteDb::Mode::kWrite, [] { return int64_t{0}; });
  absl::Status status = db.status();
  if (status.ok()) status = MigrateSqlite(**db, target);
  if (db.ok()) db->reset();
  close(lock);
  return status;
}

}  // namespace tutti::state_manager
