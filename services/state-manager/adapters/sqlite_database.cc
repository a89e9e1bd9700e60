#include "services/state-manager/adapters/sqlite_database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/adapters/migrator.h"

namespace tutti::state_manager {
namespace {

constexpr int kReaders = 2;
constexpr size_t kMaxReadQueue = 4096;

}  // namespace

absl::StatusOr<int> LockDataDir(const std::string& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATA_DIR",
                 absl::StrCat("cannot create the data folder ", dir, ": ", error.message(),
                              "; choose another with --state-manager.data-dir"));
  }
  std::string path = absl::StrCat(dir, "/lock");
  int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATA_DIR",
                 absl::StrCat("cannot write to the data folder ", dir, ": ", strerror(errno),
                              "; choose another with --state-manager.data-dir"));
  }
  if (flock(file, LOCK_EX | LOCK_NB) != 0) {
    close(file);
    return Error(absl::StatusCode::kFailedPrecondition, "DATA_DIR_IN_USE",
                 absl::StrCat("another state-manager works on ", dir,
                              "; stop it, or choose another folder with --state-manager.data-dir"));
  }
  return file;
}

uint64_t LoggedGeneration(const std::string& dir) {
  uint64_t last = 0;
  for (const char* file : kLogFiles) last = std::max(last, WriteLog::GenerationOf(absl::StrCat(dir, "/", file)));
  return last;
}

SqliteDatabase::SqliteDatabase(Options options, const Clock& clock, NewsListener& listener)
    : options_(std::move(options)), clock_(clock), listener_(listener) {}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(Options options, const Clock& clock,
                                                                     NewsListener& listener) {
  std::unique_ptr<SqliteDatabase> out(new SqliteDatabase(std::move(options), clock, listener));
  const Options& o = out->options_;
  auto now = [&clock] { return absl::ToUnixMicros(clock.Now()); };
  if (o.data_dir.empty()) {
    TUTTI_ASSIGN_OR_RETURN(out->write_db_, SqliteDb::Open(":memory:", SqliteDb::Mode::kMemory, now));
    TUTTI_RETURN_IF_ERROR(MigrateSqlite(*out->write_db_, MigrationTarget()));
  } else {
    TUTTI_ASSIGN_OR_RETURN(out->lock_file_, LockDataDir(o.data_dir));
    std::string file = absl::StrCat(o.data_dir, "/tutti.db");
    TUTTI_ASSIGN_OR_RETURN(out->write_db_, SqliteDb::Open(file, SqliteDb::Mode::kWrite, now));
    TUTTI_RETURN_IF_ERROR(MigrateSqlite(*out->write_db_, MigrationTarget()));
    MutexLock lock(out->readers_mutex_);
    for (int i = 0; i < kReaders; ++i) {
      TUTTI_ASSIGN_OR_RETURN(auto reader, SqliteDb::Open(file, SqliteDb::Mode::kRead, now));
      out->readers_.push_back(std::move(reader));
    }
    out->reader_pool_ = std::make_unique<WorkerPool>("db-read", kReaders, kMaxReadQueue);
  }
  SqliteDatabase* raw = out.get();
  out->writer_ = std::make_unique<SqliteWriter>(*out->write_db_, out->metrics_,
                                                [raw](std::vector<News> news) { raw->listener_.OnNews(news); });
  if (!o.data_dir.empty() && o.spare_bytes > 0) {
    out->spare_ = std::make_unique<SpareSpace>(absl::StrCat(o.data_dir, "/tutti.spare"), o.spare_bytes);
    out->writer_->UseSpare(*out->spare_, absl::StrCat(o.data_dir, "/tutti.db"), o.room_pause);
  }
  if (!o.data_dir.empty() && o.deferrer != nullptr) {
    TUTTI_ASSIGN_OR_RETURN(auto peek,
                           SqliteDb::Open(absl::StrCat(o.data_dir, "/tutti.db"), SqliteDb::Mode::kRead, now));
    TUTTI_RETURN_IF_ERROR(
        out->writer_->UseLog({absl::StrCat(o.data_dir, "/", kLogFiles[0]), absl::StrCat(o.data_dir, "/", kLogFiles[1])},
                             *o.deferrer, std::move(peek), o.longest_behind));
  }
  out->group_commit_ = std::make_unique<GroupCommit>(
      GroupCommit::Options{.name = "db-write",
                           .lanes = 1,
                           .max_batch = o.max_batch,
                           .max_queue = o.max_queue,
                           .gather = o.deferrer == nullptr,
                           .linger = o.deferrer ? kLinger : std::chrono::microseconds::zero(),
                           .idle_after = o.idle_after},
      [raw](std::vector<WriteOp>& batch) { raw->writer_->Commit(batch); }, [raw] { raw->writer_->Idle(); });
  return out;
}

SqliteDatabase::~SqliteDatabase() {
  group_commit_.reset();
  reader_pool_.reset();
  if (lock_file_ >= 0) close(lock_file_);
}

void SqliteDatabase::Write(WriteOp op) { group_commit_->Enqueue(std::move(op)); }

absl::Status SqliteDatabase::Writable() const {
  if (!spare_ || spare_->held()) return absl::OkStatus();
  return DiskFull(absl::StrCat(options_.data_dir, "/tutti.db"));
}

void SqliteDatabase::Announce(std::vector<News> news) { listener_.OnNews(news); }

void SqliteDatabase::Read(ReadOp op) {
  if (!reader_pool_) {  // in memory there is one connection
    WriteOp write;
    write.apply = std::move(op.query);
    write.finish = std::move(op.finish);
    return Write(std::move(write));
  }
  auto shared = std::make_shared<ReadOp>(std::move(op));
  if (!writer_->behind()) return ReadNow(std::move(shared));
  WriteOp settle;
  settle.finish = [this, shared](const absl::Status& status) {
    if (!status.ok()) return shared->finish(status);
    ReadNow(shared);
  };
  Write(std::move(settle));
}

void SqliteDatabase::ReadNow(std::shared_ptr<ReadOp> op) {
  bool posted = reader_pool_->TryPost([this, op] {
    std::unique_ptr<SqliteDb> db;
    {
      MutexLock lock(readers_mutex_);
      db = std::move(readers_.back());
      readers_.pop_back();
    }
    db->Reset();
    if (op->snapshot) (void)db->Execute("BEGIN");
    absl::Status answer = RunGuarded([&] { return op->query(*db); });
    if (answer.ok()) answer = db->failure();
    if (op->snapshot) db->Rollback();
    {
      MutexLock lock(readers_mutex_);
      readers_.push_back(std::move(db));
    }
    op->finish(answer);
  });
  if (!posted) op->finish(Busy("reads"));
}

}  // namespace tutti::state_manager
