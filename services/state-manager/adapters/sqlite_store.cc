#include "services/state-manager/adapters/sqlite_store.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/adapters/sqlite_schema.h"
#include "services/state-manager/adapters/sqlite_store_access.h"

namespace tutti::state_manager {
namespace {
constexpr int kReaders = 2;
constexpr size_t kMaxReadQueue = 4096;
}  // namespace

SqliteStore::SqliteStore(Options options, const Clock& clock, StoreObserver& observer)
    : options_(std::move(options)), clock_(clock), observer_(observer) {}

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(Options options, const Clock& clock,
                                                               StoreObserver& observer) {
  const std::string dir = options.data_dir;
  std::unique_ptr<SqliteStore> store(new SqliteStore(std::move(options), clock, observer));
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATA_DIR",
                 absl::StrCat("cannot create the data folder ", dir, ": ", error.message(),
                              "; choose another with --state-manager.data-dir"));
  }
  std::string lock_path = absl::StrCat(dir, "/lock");
  store->lock_file_ = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (store->lock_file_ < 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATA_DIR",
                 absl::StrCat("cannot write to the data folder ", dir, ": ", strerror(errno),
                              "; choose another with --state-manager.data-dir"));
  }
  if (flock(store->lock_file_, LOCK_EX | LOCK_NB) != 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATA_DIR_IN_USE",
                 absl::StrCat("another state-manager works on ", dir,
                              "; stop it, or choose another folder with --state-manager.data-dir"));
  }
  std::string file = absl::StrCat(dir, "/tutti.db");
  TUTTI_ASSIGN_OR_RETURN(store->writer_, SqliteDb::Open(file, /*read_only=*/false));
  TUTTI_RETURN_IF_ERROR(MigrateSqlite(*store->writer_));
  {
    MutexLock lock(store->readers_mutex_);
    for (int i = 0; i < kReaders; ++i) {
      TUTTI_ASSIGN_OR_RETURN(auto reader, SqliteDb::Open(file, /*read_only=*/true));
      store->readers_.push_back(std::move(reader));
    }
  }
  store->reader_pool_ = std::make_unique<WorkerPool>("db-read", kReaders, kMaxReadQueue);
  store->thread_ = std::thread([raw = store.get()] { raw->WriterLoop(); });
  pthread_setname_np(store->thread_.native_handle(), "db-write");
  return store;
}

SqliteStore::~SqliteStore() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  if (thread_.joinable()) thread_.join();
  reader_pool_.reset();
  if (lock_file_ >= 0) close(lock_file_);
}

void SqliteStore::Enqueue(WriteOp op) {
  {
    MutexLock lock(mutex_);
    if (!stopping_ && queue_.size() < options_.max_queue) {
      queue_.push_back(std::move(op));
      wake_.NotifyOne();
      return;
    }
  }
  op.finish(Busy("writes"));
}

void SqliteStore::WriterLoop() {
  std::vector<WriteOp> batch;
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) wake_.Wait(mutex_);
      if (queue_.empty()) return;
      if (queue_.size() <= options_.max_batch) {
        batch.swap(queue_);
      } else {
        auto end = queue_.begin() + static_cast<int64_t>(options_.max_batch);
        std::move(queue_.begin(), end, std::back_inserter(batch));
        queue_.erase(queue_.begin(), end);
      }
    }
    CommitBatch(batch);
    batch.clear();
  }
}

absl::Status SqliteStore::ApplyBatch(std::vector<WriteOp>& batch, News& news) {
  TUTTI_RETURN_IF_ERROR(writer_->Execute("BEGIN IMMEDIATE"));
  for (auto& op : batch) TUTTI_RETURN_IF_ERROR(op.apply(*writer_, news));
  return writer_->Execute("COMMIT");
}

void SqliteStore::CommitBatch(std::vector<WriteOp>& batch) {
  News news;
  absl::Status status = ApplyBatch(batch, news);
  if (!status.ok()) {
    (void)writer_->Execute("ROLLBACK");  // fails when SQLite has rolled back by itself
    news = News();
  }
  for (auto& op : batch) op.finish(status);
  for (const auto& run_id : news.appended) observer_.OnAppended(run_id);
  for (const auto& [instance, run_id] : news.cancels) observer_.OnCancelRequested(instance, run_id);
  if (news.claimable) observer_.OnClaimable();
}

void SqliteStore::Append(v1::AppendRequest request, absl::AnyInvocable<void(v1::AppendResponse)> done) {
  // One allocation for what both halves share.
  struct Pending {
    v1::AppendRequest request;
    v1::AppendResponse response;
    absl::AnyInvocable<void(v1::AppendResponse)> done;
  };
  auto pending = std::make_shared<Pending>();
  pending->request = std::move(request);
  pending->done = std::move(done);
  WriteOp op;
  op.apply = [this, pending](SqliteDb& db, News& news) {
    return ApplyAppend(db, news, pending->request, pending->response);
  };
  op.finish = [pending](const absl::Status& status) {
    pending->response.set_request_number(pending->request.request_number());
    if (!status.ok()) {
      // Whatever the database said, nothing was written and the same request may be sent again.
      pending->response.mutable_status()->set_code(static_cast<int>(absl::StatusCode::kUnavailable));
      pending->response.mutable_status()->set_message(std::string(status.message()));
    }
    pending->done(std::move(pending->response));
  };
  Enqueue(std::move(op));
}

}  // namespace tutti::state_manager
