#include "services/state-manager/adapters/postgres_database.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {
// Any constant will do, as long as every Tutti uses it: "tuttidb" in ASCII.
constexpr int64_t kMigrationLock = 0x74757474696462;
}  // namespace

absl::Status MigratePostgres(const PostgresOptions& options, const MigrationTarget& target) {
  PostgresOptions patient = options;
  patient.statement_timeout = absl::Hours(24);  // an index over a large table takes its time
  TUTTI_ASSIGN_OR_RETURN(auto session, PostgresSession::Connect(options.dsn, patient));
  // Reads the version of the database, under the lock of the transaction when there is one.
  auto version_of = [&](Transaction& tx) -> absl::StatusOr<int64_t> {
    // Not to_regclass: it answers from a cache that a transaction which waited for the lock has not renewed.
    Statement exists = tx.Prepare(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'schema_migrations' "
        "AND "
        "n.nspname = current_schema()");
    bool there = exists.Step();
    TUTTI_RETURN_IF_ERROR(exists.status());
    if (!there) return 0;
    Statement current = tx.Prepare("SELECT coalesce(max(version), 0) FROM schema_migrations");
    int64_t version = current.Step() ? current.Int(0) : 0;
    TUTTI_RETURN_IF_ERROR(current.status());
    return version;
  };
  for (;;) {
    TUTTI_RETURN_IF_ERROR(session->BeginRead(false));
    TUTTI_ASSIGN_OR_RETURN(int64_t version, version_of(*session));
    session->EndRead();
    TUTTI_RETURN_IF_ERROR(CheckVersion(version, target));
    std::vector<Migration> pending = Pending(version, target);
    if (target.dry_run) {
      for (const auto& migration : pending) {
        if (target.report) target.report(migration);
      }
      return absl::OkStatus();
    }
    if (pending.empty()) return absl::OkStatus();
    const Migration& migration = pending.front();
    TUTTI_ASSIGN_OR_RETURN(Transaction * tx, session->Begin());
    absl::Status status = tx->Execute(absl::StrCat("SELECT pg_advisory_xact_lock(", kMigrationLock, ")"));
    if (status.ok()) {
      auto locked = version_of(*tx);
      status = locked.status();
      if (status.ok() && *locked != version) {  // another replica was first
        session->Rollback();
        continue;
      }
    }
    if (status.ok() && target.report) target.report(migration);
    if (status.ok()) {
      status = tx->Execute(
          "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, "
          "apply_time TIMESTAMPTZ NOT NULL DEFAULT now())");
    }
    if (status.ok()) status = tx->Execute(SqlOf(migration, Dialect::kPostgres));
    if (status.ok()) {
      Statement note = tx->Prepare("INSERT INTO schema_migrations (version, name) VALUES ($1, $2)");
      status = note.BindAll(migration.version, migration.name).Run();
    }
    if (status.ok()) status = session->Commit();
    if (!status.ok()) {
      session->Rollback();
      return Prefix(status, absl::StrCat("migration ", migration.version, " (", migration.name, "): "));
    }
  }
}

PostgresDatabase::PostgresDatabase(PostgresOptions options, NewsListener& listener)
    : options_(std::move(options)), listener_(listener) {}

absl::StatusOr<std::unique_ptr<PostgresDatabase>> PostgresDatabase::Open(PostgresOptions options,
                                                                         NewsListener& listener) {
  TUTTI_RETURN_IF_ERROR(MigratePostgres(options, MigrationTarget()));
  std::unique_ptr<PostgresDatabase> out(new PostgresDatabase(std::move(options), listener));
  const PostgresOptions& o = out->options_;
  int lanes = std::max(1, std::min(o.write_lanes, o.pool_size - 1));
  int readers = std::max(1, o.pool_size - lanes);
  out->pool_ = std::make_unique<PostgresPool>(o.dsn, o.pool_size, o, out->metrics_);
  if (!o.replica_dsn.empty()) {
    out->replica_pool_ = std::make_unique<PostgresPool>(o.replica_dsn, readers, o, out->metrics_);
  }
  out->news_ = std::make_unique<PostgresNews>(o.listen_dsn.empty() ? o.dsn : o.listen_dsn, listener);
  out->readers_ = std::make_unique<WorkerPool>("db-read", readers, o.max_read_queue);
  out->group_commit_ = std::make_unique<GroupCommit>(
      GroupCommit::Options{.name = "db-write", .lanes = lanes, .max_batch = o.max_batch, .max_queue = o.max_queue},
      [raw = out.get()](std::vector<WriteOp>& batch) { raw->CommitWith(batch); });
  return out;
}

PostgresDatabase::~PostgresDatabase() {
  group_commit_.reset();
  readers_.reset();
  news_.reset();
  replica_pool_.reset();
  pool_.reset();
}

void PostgresDatabase::CommitWith(std::vector<WriteOp>& batch) {
  auto lease = pool_->Acquire();
  if (!lease.ok()) {
    for (auto& op : batch) op.finish(lease.status());
    return;
  }
  CommitBatch(**lease, batch, metrics_, [this](std::vector<News> news) { Announce(std::move(news)); });
}

void PostgresDatabase::Announce(std::vector<News> news) {
  listener_.OnNews(news);
  news_->Send(news);
}

void PostgresDatabase::Write(WriteOp op) { group_commit_->Enqueue(std::move(op)); }

absl::Status PostgresDatabase::ReadWith(PostgresPool& pool, ReadOp& op) {
  absl::Status status;
  for (int tries = 0; tries < 2; ++tries) {
    TUTTI_ASSIGN_OR_RETURN(PostgresPool::Lease session, pool.Acquire());
    status = session->BeginRead(op.snapshot);
    if (status.ok()) status = RunGuarded([&] { return op.query(*session); });
    if (status.ok() || !session->failure().ok()) status = session->failure();
    bool again = session->broken();  // the connection was lost on the way: a read may be repeated
    session->EndRead();
    if (!again) break;
  }
  return status;
}

void PostgresDatabase::Read(ReadOp op) {
  auto shared = std::make_shared<ReadOp>(std::move(op));
  bool posted = readers_->TryPost([this, shared] {
    absl::Status status = absl::UnavailableError("no replica");
    if (replica_pool_ && shared->allow_stale) status = ReadWith(*replica_pool_, *shared);
    // Without its replica the suite reads on, from the primary; also where the replica has given the read up for what
    // it had to replay (40001).
    if (absl::IsUnavailable(status) || absl::IsAborted(status)) status = ReadWith(*pool_, *shared);
    shared->finish(status);
  });
  if (!posted) shared->finish(Busy("reads"));
}

}  // namespace tutti::state_manager
