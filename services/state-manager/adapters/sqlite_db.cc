#include "services/state-manager/adapters/sqlite_db.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "services/state-manager/adapters/sqlite_wal_vfs.h"

namespace tutti::state_manager {

namespace {
constexpr int kBusyTimeoutMs = 5000;
constexpr size_t kMaxPrepared = 500;
}  // namespace

class SqliteDb::StatementOfSqlite final : public StatementImpl {
 public:
  StatementOfSqlite(SqliteDb& db, sqlite3_stmt* statement) : db_(db), statement_(statement) {
    // Parameters are numbered by their names: SQLite itself numbers them by first appearance.
    int count = statement ? sqlite3_bind_parameter_count(statement) : 0;
    for (int i = 1; i <= count; ++i) {
      int name = 0;
      if (const char* text = sqlite3_bind_parameter_name(statement, i)) (void)absl::SimpleAtoi(text + 1, &name);
      if (name <= 0) continue;
      if (static_cast<int>(index_of_.size()) <= name) index_of_.resize(static_cast<size_t>(name) + 1, 0);
      index_of_[static_cast<size_t>(name)] = i;
    }
  }
  ~StatementOfSqlite() override { sqlite3_finalize(statement_); }

  void Begin() { status_ = absl::OkStatus(); }
  void Bind(int position, const SqlArg& arg) override {
    int index = IndexOf(position);
    if (index == 0) return;
    const char* data = arg.text.data() ? arg.text.data() : "";
    const auto keep = arg.outlives_run ? SQLITE_STATIC : SQLITE_TRANSIENT;
    switch (arg.kind) {
      case SqlArg::Kind::kNull:
        sqlite3_bind_null(statement_, index);
        break;
      case SqlArg::Kind::kInt:
        sqlite3_bind_int64(statement_, index, arg.integer);
        break;
      case SqlArg::Kind::kDouble:
        sqlite3_bind_double(statement_, index, arg.real);
        break;
      case SqlArg::Kind::kText:
        sqlite3_bind_text64(statement_, index, data, arg.text.size(), keep, SQLITE_UTF8);
        break;
      case SqlArg::Kind::kBytes:
        sqlite3_bind_blob64(statement_, index, data, arg.text.size(), keep);
        break;
    }
  }
  void BindList(int position, const std::vector<std::string>& values) override {
    Json list = Json::array();
    for (const auto& value : values) list.push_back(value);
    Bind(position, DumpJson(list));
  }
  void BindColumn(int, const SqlColumn&) override {
    status_ = absl::UnimplementedError("SQLite takes its rows one by one");
    if (db_.failure_.ok()) db_.failure_ = status_;
  }
  bool Step() override {
    if (!statement_) return Fail("cannot prepare a statement on");
    if (!db_.failure_.ok()) {
      status_ = db_.failure_;
      return false;
    }
    int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) return Fail("cannot access");
    return false;
  }
  int64_t Changes() const override { return sqlite3_changes64(db_.db_); }
  bool IsNull(int column) const override { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  int64_t Int(int column) const override { return sqlite3_column_int64(statement_, column); }
  double Double(int column) const override { return sqlite3_column_double(statement_, column); }
  std::string Text(int column) const override { return Bytes(column); }
  std::string Bytes(int column) const override {
    const void* bytes = sqlite3_column_blob(statement_, column);
    return bytes ? std::string(static_cast<const char*>(bytes),
                               static_cast<size_t>(sqlite3_column_bytes(statement_, column)))
                 : "";
  }
  const absl::Status& status() const override { return status_; }
  void Release() override {
    if (!statement_) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }

 private:
  int IndexOf(int position) const {
    return position < static_cast<int>(index_of_.size()) ? index_of_[static_cast<size_t>(position)] : 0;
  }
  bool Fail(absl::string_view what) {
    status_ = db_.ErrorOf(what);
    if (db_.failure_.ok()) db_.failure_ = status_;
    return false;
  }

  SqliteDb& db_;
  sqlite3_stmt* statement_;
  std::vector<int> index_of_;
  absl::Status status_;
};

absl::Status DiskFull(absl::string_view file) {
  return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
               absl::StrCat("the disk under ", file, " is full; nothing was written. Free space and try again"))
      .RetryAfter(absl::Seconds(5));
}

SqliteDb::SqliteDb(Now now) : now_(std::move(now)) {}

absl::Status SqliteDb::ErrorOf(absl::string_view what) const {
  int code = sqlite3_errcode(db_) & 0xff;
  std::string file = sqlite3_db_filename(db_, "main") ? sqlite3_db_filename(db_, "main") : "";
  std::string text = absl::StrCat(what, " ", file, ": ", sqlite3_errmsg(db_));
  switch (code) {
    case SQLITE_FULL:
      if (make_room_ && make_room_()) return Error(absl::StatusCode::kAborted, "DISK_FULL", "room was made; once more");
      return DiskFull(file);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Error(
          absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
          absl::StrCat(file, " is damaged or no Tutti database (", sqlite3_errmsg(db_),
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

absl::StatusOr<std::unique_ptr<SqliteDb>> SqliteDb::Open(const std::string& file, Mode mode, Now now) {
  // SQLite's count of its memory, which nobody reads here, is a lock that all connections share. Before anything else
  // of SQLite; who has used it in this process before keeps the count.
  [[maybe_unused]] static const int uncounted = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  std::unique_ptr<SqliteDb> out(new SqliteDb(std::move(now)));
  int flags =
      (mode == Mode::kRead ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) | SQLITE_OPEN_NOMUTEX;
  const char* vfs = mode == Mode::kWrite ? WalVfs() : nullptr;
  if (mode != Mode::kRead && file != ":memory:") {  // SQLite would let others read it
    const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor >= 0) close(descriptor);
  }
  if (sqlite3_open_v2(file.c_str(), &out->db_, flags, vfs) != SQLITE_OK) return out->ErrorOf("cannot open");
  sqlite3_busy_timeout(out->db_, kBusyTimeoutMs);
  std::string pragmas;
  switch (mode) {
    case Mode::kRead:
      pragmas = "PRAGMA query_only=1; PRAGMA cache_size=-4096";
      break;
    case Mode::kWrite:
      // FULL is what WalVfs relies on. Cache of 8 MiB; the WAL is folded back every 4096 pages (16 MiB). What is
      // deleted is overwritten.
      pragmas =
          "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-8192; PRAGMA wal_autocheckpoint=4096;"
          "PRAGMA foreign_keys=OFF; PRAGMA secure_delete=ON";
      break;
    case Mode::kMemory:
      pragmas = "PRAGMA foreign_keys=OFF";
      break;
  }
  if (absl::Status status = out->Execute(pragmas); !status.ok()) return status;
  return out;
}

void SqliteDb::WipeIfWanted() {
  if (!wipe_) return;
  sqlite3_busy_timeout(db_, 0);
  // The pages that were deleted are zeroed in the WAL's newest copies; its older ones go with the file's content.
  wipe_ = sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) != SQLITE_OK;
  sqlite3_busy_timeout(db_, kBusyTimeoutMs);
}

SqliteDb::~SqliteDb() {
  prepared_.clear();
  sqlite3_close(db_);
}

Statement SqliteDb::Prepare(absl::string_view sql) {
  auto it = prepared_.find(sql);
  if (it == prepared_.end()) {
    sqlite3_stmt* raw = nullptr;
    std::string text = ToSqlite(sql);
    sqlite3_prepare_v3(db_, text.c_str(), static_cast<int>(text.size()), SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
    it = prepared_.emplace(std::string(sql), std::make_unique<StatementOfSqlite>(*this, raw)).first;
  }
  StatementOfSqlite* statement = it->second.get();
  statement->Begin();
  return Statement(statement);
}

int64_t SqliteDb::NowMicros() {
  if (transaction_time_ == 0) transaction_time_ = now_();
  return transaction_time_;
}

absl::Status SqliteDb::Execute(const std::string& script) {
  if (sqlite3_exec(db_, script.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    absl::Status status = ErrorOf("cannot access");
    if (failure_.ok()) failure_ = status;
    return status;
  }
  return absl::OkStatus();
}

int64_t SqliteDb::rows_written() const { return sqlite3_total_changes64(db_); }

void SqliteDb::Reset() {
  if (prepared_.size() > kMaxPrepared) prepared_.clear();  // filters have many shapes
  failure_ = absl::OkStatus();
  transaction_time_ = 0;
  TakeNews();
}

absl::Status SqliteDb::Begin() {
  Reset();
  return Execute("BEGIN IMMEDIATE");
}

absl::Status SqliteDb::BeginReads() {
  Reset();
  return Execute("BEGIN");
}

absl::Status SqliteDb::Commit() { return Execute("COMMIT"); }

void SqliteDb::Rollback() {
  sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);  // fails when SQLite has rolled back by itself
  Reset();
}

}  // namespace tutti::state_manager
