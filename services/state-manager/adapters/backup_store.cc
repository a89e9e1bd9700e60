#include "services/state-manager/adapters/backup_store.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/random/random.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/sync/mutex.h"
#include "runtime/time/system_time.h"
#include "services/state-manager/adapters/backup_file.h"
#include "services/state-manager/adapters/open_database.h"
#include "services/state-manager/adapters/postgres_database.h"
#include "services/state-manager/adapters/sqlite_database.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/store/state_store.h"

namespace tutti::state_manager {
namespace {

std::string FileOf(const tutti::config::v1::StateManager& config) {
  return absl::StrCat(config.data_dir(), "/tutti.db");
}
bool UsesPostgres(const tutti::config::v1::StateManager& config) { return !config.postgres().dsn().empty(); }

absl::Status ImportFile(Transaction& tx, const std::string& file, bool replace) {
  TUTTI_RETURN_IF_ERROR(PrepareImport(tx, replace));
  TUTTI_RETURN_IF_ERROR(ReadBackupFile(file, [&](const v1::BackupChunk& chunk) { return ImportChunk(tx, chunk); }));
  return FinishImport(tx);
}

// A store that nobody serves: what its log holds is put into its tables.
absl::Status TakeInLog(const tutti::config::v1::StateManager& config) {
  SystemClock clock;
  Xoshiro rng{Xoshiro::SeedFromSystem()};
  IdSource ids(clock, rng);
  WatchHub hub;
  StateStore::Options options;
  const auto& encryption = config.encryption();
  TUTTI_ASSIGN_OR_RETURN(
      options.keys,
      LoadKeys(encryption.key_dir(), {encryption.keys().begin(), encryption.keys().end()}, encryption.active_key()));
  StateStore store(std::move(options), ids);
  return OpenDatabase(config, clock, hub, &store.journal).status();
}

// What was acknowledged by now is in the tables. Whoever serves the store puts it there within moments.
absl::Status AwaitLog(const tutti::config::v1::StateManager& config, SqliteDb& db) {
  constexpr int kTries = 1000;
  const uint64_t logged = LoggedGeneration(config.data_dir());
  Mutex mutex;
  CondVar never;  // another process tells nobody
  MutexLock lock(mutex);
  for (int i = 0; i < kTries; ++i) {
    db.Reset();
    TUTTI_ASSIGN_OR_RETURN(uint64_t applied, AppliedGeneration(db));
    if (applied >= logged) return absl::OkStatus();
    absl::Status taken = TakeInLog(config);
    if (!taken.ok() && ReasonOf(taken) != "DATA_DIR_IN_USE") return taken;
    if (!taken.ok()) never.WaitFor(mutex, std::chrono::milliseconds(10));
  }
  return Error(absl::StatusCode::kUnavailable, "STORE_BEHIND",
               absl::StrCat("the store in ", config.data_dir(),
                            " does not get its last writes into its tables (is its "
                            "disk full?); nothing was saved"));
}

// Into a database of its own, to be thrown away.
absl::StatusOr<RowCounts> RestoreIntoScratch(const std::string& file) {
  const std::string scratch = file + ".check";
  std::filesystem::remove(scratch);
  auto restore = [&]() -> absl::StatusOr<RowCounts> {
    TUTTI_ASSIGN_OR_RETURN(auto db, SqliteDb::Open(scratch, SqliteDb::Mode::kMemory, [] { return int64_t{1}; }));
    TUTTI_RETURN_IF_ERROR(MigrateSqlite(*db, MigrationTarget()));
    TUTTI_RETURN_IF_ERROR(db->Begin());
    TUTTI_RETURN_IF_ERROR(ImportFile(*db, file, /*replace=*/true));
    return CountRows(*db);
  };
  auto counts = restore();
  for (const char* end : {"", "-journal"}) std::filesystem::remove(scratch + end);
  return counts;
}

// A state-manager that goes on would keep in mind what the restored database does not hold. Each has one connection by
// this name; one that was just stopped is still seen for a moment.
absl::Status AwaitNobodyServes(PostgresSession& session) {
  for (int tries = 0; tries < 20; ++tries) {
    TUTTI_RETURN_IF_ERROR(session.BeginRead(false));
    if (tries > 0) {
      Statement pause = session.Prepare("SELECT pg_sleep(0.1)");
      (void)pause.Step();
      TUTTI_RETURN_IF_ERROR(pause.status());
    }
    Statement serving = session.Prepare(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tutti-news' LIMIT "
        "1");
    const bool one = serving.Step();
    TUTTI_RETURN_IF_ERROR(serving.status());
    session.EndRead();
    if (!one) return absl::OkStatus();
  }
  return Error(absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
               "a state-manager works on this database; stop the suite first");
}

}  // namespace

absl::StatusOr<RowCounts> BackUp(const tutti::config::v1::StateManager& config, const std::string& destination) {
  // The last good one stays until the new one is known to be good.
  const std::string file = destination + ".new";
  RowCounts saved;
  auto fill = [&](Transaction& tx, const ChunkSink& sink) -> absl::Status {
    TUTTI_ASSIGN_OR_RETURN(saved, ExportAll(tx, sink));
    return absl::OkStatus();
  };
  if (UsesPostgres(config)) {
    PostgresOptions options = ToPostgresOptions(config);
    TUTTI_ASSIGN_OR_RETURN(auto session, PostgresSession::Connect(options.dsn, options));
    TUTTI_RETURN_IF_ERROR(session->BeginRead(/*snapshot=*/true));
    TUTTI_RETURN_IF_ERROR(WriteBackupFile(file, [&](const ChunkSink& sink) { return fill(*session, sink); }));
    session->EndRead();
  } else {
    if (!std::filesystem::exists(FileOf(config))) {
      return Error(
          absl::StatusCode::kNotFound, "NO_STORE",
          absl::StrCat("there is no store in ", config.data_dir(), "; name its folder with --state-manager.data-dir"));
    }
    TUTTI_ASSIGN_OR_RETURN(auto db, SqliteDb::Open(FileOf(config), SqliteDb::Mode::kRead, [] { return int64_t{1}; }));
    TUTTI_RETURN_IF_ERROR(AwaitLog(config, *db));
    TUTTI_RETURN_IF_ERROR(db->Execute("BEGIN"));
    TUTTI_RETURN_IF_ERROR(WriteBackupFile(file, [&](const ChunkSink& sink) { return fill(*db, sink); }));
    db->Rollback();
  }
  auto restored = RestoreIntoScratch(file);
  if (!restored.ok() || *restored != saved) std::filesystem::remove(file);
  TUTTI_RETURN_IF_ERROR(restored.status());
  std::error_code error;
  if (*restored == saved) std::filesystem::rename(file, destination, error);
  if (*restored == saved && !error) return saved;
  return Error(absl::StatusCode::kDataLoss, "BACKUP_DIFFERS",
               absl::StrCat(destination, error ? " cannot be written" : " would not restore to what was saved",
                            "; the last good one is as it was. Try again"));
}

absl::StatusOr<RowCounts> Restore(const tutti::config::v1::StateManager& config, const std::string& file,
                                  bool replace) {
  if (access(file.c_str(), R_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("cannot read ", file, ": ", strerror(errno)));
  }
  if (UsesPostgres(config)) {
    PostgresOptions options = ToPostgresOptions(config);
    options.statement_timeout = absl::Hours(24);  // whole tables are emptied and counted
    TUTTI_RETURN_IF_ERROR(MigratePostgres(options, MigrationTarget()));
    TUTTI_ASSIGN_OR_RETURN(auto session, PostgresSession::Connect(options.dsn, options));
    TUTTI_RETURN_IF_ERROR(AwaitNobodyServes(*session));
    TUTTI_ASSIGN_OR_RETURN(Transaction * tx, session->Begin());
    TUTTI_RETURN_IF_ERROR(ImportFile(*tx, file, replace));
    TUTTI_ASSIGN_OR_RETURN(RowCounts counts, CountRows(*tx));
    TUTTI_RETURN_IF_ERROR(session->Commit());
    return counts;
  }
  TUTTI_ASSIGN_OR_RETURN(int lock, LockDataDir(config.data_dir()));
  auto restore = [&]() -> absl::StatusOr<RowCounts> {
    TUTTI_ASSIGN_OR_RETURN(auto db, SqliteDb::Open(FileOf(config), SqliteDb::Mode::kWrite, [] { return int64_t{1}; }));
    TUTTI_RETURN_IF_ERROR(MigrateSqlite(*db, MigrationTarget()));
    TUTTI_ASSIGN_OR_RETURN(uint64_t applied, AppliedGeneration(*db));
    const uint64_t logged = LoggedGeneration(config.data_dir());
    if (logged > applied && !replace) {
      return Error(absl::StatusCode::kFailedPrecondition, "STORE_NOT_EMPTY",
                   absl::StrCat("the store in ", config.data_dir(),
                                " holds writes of a process that was killed; --force replaces them"));
    }
    TUTTI_RETURN_IF_ERROR(db->Begin());
    absl::Status status = ImportFile(*db, file, replace);
    // What the log still holds is not this store's.
    if (status.ok()) {
      auto imported = AppliedGeneration(*db);
      const uint64_t last = std::max({logged, applied, imported.ok() ? *imported : 0});
      if (last > 0) status = NoteApplied(*db, last);
    }
    if (!status.ok()) {
      db->Rollback();
      return status;
    }
    TUTTI_ASSIGN_OR_RETURN(RowCounts counts, CountRows(*db));
    TUTTI_RETURN_IF_ERROR(db->Commit());
    return counts;
  };
  auto counts = restore();
  close(lock);
  return counts;
}

}  // namespace tutti::state_manager
