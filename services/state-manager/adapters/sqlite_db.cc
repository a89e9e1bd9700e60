#include "services/state-manager/adapters/sqlite_db.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::state_manager {
namespace {

absl::Status ErrorOf(sqlite3* db, absl::string_view what) {
  int code = sqlite3_errcode(db) & 0xff;
  std::string file = sqlite3_db_filename(db, "main") ? sqlite3_db_filename(db, "main") : "";
  std::string text = absl::StrCat(what, " ", file, ": ", sqlite3_errmsg(db));
  switch (code) {
    case SQLITE_FULL:
      return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                   absl::StrCat("the disk under ", file, " is full; nothing was written. Free space and try again"))
          .RetryAfter(absl::Seconds(5));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Error(
          absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
          absl::StrCat(file, " is damaged or no Tutti database (", sqlite3_errmsg(db),
                       "). It is left as it is. Restore it from a backup, or try `sqlite3 ", file,
                       " .recover | sqlite3 recovered.db`, or choose another folder with --state-manager.data-dir"));
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return Error(
          absl::StatusCode::kFailedPrecondition, "DATABASE_NOT_WRITABLE",
          absl::StrCat(text, ". Check the folder's permissions, or choose another with --state-manager.data-dir"));
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Error(absl::StatusCode::kUnavailable, "DATABASE_AWAY", text).RetryAfter(absl::Seconds(1));
    default:
      return Error(absl::StatusCode::kInternal, "DATABASE_ERROR", text);
  }
}

}  // namespace

Statement::~Statement() {
  if (!statement_) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Statement& Statement::Bind(absl::string_view text) {
  if (statement_)
    sqlite3_bind_text64(statement_, next_++, text.data() ? text.data() : "", text.size(), SQLITE_TRANSIENT,
                        SQLITE_UTF8);
  return *this;
}

Statement& Statement::Bind(int64_t value) {
  if (statement_) sqlite3_bind_int64(statement_, next_++, value);
  return *this;
}

Statement& Statement::BindBlob(absl::string_view bytes) {
  if (statement_)
    sqlite3_bind_blob64(statement_, next_++, bytes.data() ? bytes.data() : "", bytes.size(), SQLITE_TRANSIENT);
  return *this;
}

bool Statement::Step() {
  if (!statement_) {
    status_ = ErrorOf(db_, "cannot prepare a statement on");
    return false;
  }
  int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) status_ = ErrorOf(db_, "cannot access");
  return false;
}

absl::Status Statement::Run() {
  Step();
  return status_;
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Statement::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  return bytes ? std::string(static_cast<const char*>(bytes), sqlite3_column_bytes(statement_, column)) : "";
}

absl::StatusOr<std::unique_ptr<SqliteDb>> SqliteDb::Open(const std::string& file, bool read_only) {
  std::unique_ptr<SqliteDb> out(new SqliteDb());
  int flags = (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) | SQLITE_OPEN_NOMUTEX;
  if (sqlite3_open_v2(file.c_str(), &out->db_, flags, nullptr) != SQLITE_OK) return ErrorOf(out->db_, "cannot open");
  sqlite3_busy_timeout(out->db_, 5000);
  // Cache of 8 MiB; the WAL is folded back every 4096 pages (16 MiB).
  absl::Status status = out->Execute(
      read_only
          ? "PRAGMA query_only=1; PRAGMA cache_size=-4096"
          : "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-8192; PRAGMA wal_autocheckpoint=4096;"
            "PRAGMA foreign_keys=OFF");
  if (!status.ok()) return status;
  return out;
}

SqliteDb::~SqliteDb() {
  for (auto& [sql, statement] : prepared_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

Statement SqliteDb::Prepare(const char* sql) {
  auto& statement = prepared_[sql];
  if (!statement) sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  return Statement(db_, statement);
}

absl::Status SqliteDb::Execute(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return ErrorOf(db_, "cannot access");
  return absl::OkStatus();
}

int64_t SqliteDb::changes() const { return sqlite3_changes(db_); }

}  // namespace tutti::state_manager
