#include "services/state-manager/adapters/sqlite_writer.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

// Many enough that most of what a short run writes meets in one transaction.
constexpr size_t kRowsWorthwhile = 2048;
// Then those who write wait for the applying thread: memory and a start after a crash stay bounded.
constexpr size_t kMostRows = 4 * kRowsWorthwhile;
constexpr size_t kBytesWorthwhile = WriteLog::kCapacity / 4;

constexpr char kApplied[] = "write_log_applied";

}  // namespace

absl::StatusOr<uint64_t> AppliedGeneration(Transaction& tx) {
  uint64_t applied = 0;
  Statement row = tx.Prepare("SELECT value FROM meta WHERE key = $1");
  row.Bind(kApplied);
  if (row.Step() && !absl::SimpleAtoi(row.Bytes(0), &applied)) {
    return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED", absl::StrCat("meta.", kApplied, " is no number"));
  }
  TUTTI_RETURN_IF_ERROR(row.status());
  return applied;
}

absl::Status NoteApplied(Transaction& tx, uint64_t generation) {
  Statement applied = tx.Prepare(
      "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value");
  return applied.Bind(kApplied).BindBytes(absl::StrCat(generation)).Run();
}

absl::Status SqliteWriter::UseLog(const std::array<std::string, 2>& files, DeferringWriter& deferrer,
                                  std::unique_ptr<SqliteDb> peek, std::chrono::milliseconds longest_behind) {
  TUTTI_ASSIGN_OR_RETURN(uint64_t applied, AppliedGeneration(db_));
  for (size_t i = 0; i < logs_.size(); ++i) {
    TUTTI_ASSIGN_OR_RETURN(logs_[i], WriteLog::Open(files[i], applied));
  }
  deferrer_ = &deferrer;
  peek_ = std::move(peek);
  longest_behind_ = longest_behind;
  if (logs_[0]->generation() < logs_[1]->generation()) current_ = 1;
  generation_ = std::max(applied + 1, log().generation());
  // Each generation has a record, and two at most are not in the tables.
  if (generation_ > applied + 2 || (generation_ == applied + 2 && other_log().generation() != applied + 1)) {
    return Error(absl::StatusCode::kDataLoss, "WRITE_LOG_UNFITTING",
                 absl::StrCat(files[current_], " goes on from writes that are neither in ", files[1 - current_],
                              " nor in the database: one of the files was exchanged or is missing. Restore the data "
                              "folder from a backup, or move the log's files away to go on without the last writes"));
  }
  bool found = false;
  for (size_t i : {1 - current_, current_}) {
    for (const std::string& record : logs_[i]->found()) {
      db_.Reset();
      TUTTI_RETURN_IF_ERROR(Prefix(deferrer.Replay(db_, record), absl::StrCat(files[i], ": ")));
      found = true;
    }
  }
  behind_ = found;
  if (found) {
    absl::Status settled = Settle();
    if (absl::IsAborted(settled)) settled = Settle();  // room was made
    TUTTI_RETURN_IF_ERROR(Prefix(settled, absl::StrCat(files[current_], ": ")));
  } else {
    log().BeginGeneration(generation_);
  }
  for (auto& log : logs_) log->Wipe();
  applier_ = std::make_unique<WorkerPool>("db-apply", /*threads=*/1, /*max_queue=*/1);
  return absl::OkStatus();
}

void SqliteWriter::UseSpare(SpareSpace& spare, std::string file, std::chrono::milliseconds pause) {
  room_pause_ = pause;
  spare_ = &spare;
  file_ = std::move(file);
  (void)spare.Reserve();
  db_.set_make_room([&spare] { return spare.Release(); });
}

bool SqliteWriter::IsDiskFull() {
  if (!spare_ || spare_->held()) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_reservation_) return true;
  next_reservation_ = now + room_pause_;
  return !spare_->Reserve();
}

void SqliteWriter::RefuseWrites(std::vector<WriteOp>& batch) const {
  std::vector<WriteOp> rest;
  for (auto& op : batch) {
    if (op.batch || op.apply) {
      op.finish(DiskFull(file_));
    } else {
      rest.push_back(std::move(op));
    }
  }
  batch = std::move(rest);
}

absl::StatusOr<Transaction*> SqliteWriter::Begin() {
  AwaitApplied();
  TUTTI_RETURN_IF_ERROR(db_.Begin());
  settles_ = behind() || (log_in_use() && doubtful_);
  if (!settles_) return &db_;
  absl::Status status = RunGuarded([&] {
    TUTTI_RETURN_IF_ERROR(deferrer_->ApplyDeferred(db_));
    return NoteApplied(db_, generation_);
  });
  db_.TakeNews();  // they were announced when it was deferred
  if (!status.ok()) {
    Rollback();
    return status;
  }
  return &db_;
}

absl::Status SqliteWriter::Commit() {
  absl::Status status = db_.Commit();
  if (!status.ok()) {
    doubtful_ = true;
    return status;
  }
  doubtful_ = false;
  if (settles_) {
    deferrer_->OnApplied();
    log().BeginGeneration(++generation_);
    other_log().Empty();
    tail_since_ = {};
    behind_.store(false, std::memory_order_release);
  }
  if (others_write_ && deferrer_) deferrer_->OnTablesChanged();
  return status;
}

void SqliteWriter::Rollback() { db_.Rollback(); }

absl::Status SqliteWriter::Settle() {
  auto begun = Begin();
  if (!begun.ok()) return begun.status();
  absl::Status status = Commit();
  if (!status.ok()) Rollback();
  return status;
}

bool SqliteWriter::TryDefer(std::vector<WriteOp>& batch) {
  if (!log_in_use() || doubtful_) return false;
  std::vector<void*> items;
  items.reserve(batch.size());
  for (const auto& op : batch) {
    if (op.batch != deferrer_) return false;
    items.push_back(op.item);
  }
  if (!peek_->BeginReads().ok()) {
    peek_->Rollback();
    return false;
  }
  auto record = deferrer_->Defer(*peek_, items);
  const bool read = peek_->Commit().ok();
  if (!read) peek_->Rollback();
  if (!record.ok() || record->empty()) return false;
  bool durable = read && log().Fits(record->size());
  if (durable && !log().Append(*record).ok()) {
    durable = false;
    doubtful_ = true;
  }
  deferrer_->OnDeferred(durable);
  if (!durable) return false;
  metrics_.ObserveBatch(batch.size());
  behind_.store(true, std::memory_order_release);
  std::vector<News> news = peek_->TakeNews();
  for (auto& op : batch) op.finish(absl::OkStatus());
  if (!news.empty()) announce_(std::move(news));
  return true;
}

void SqliteWriter::HandOver() {
  const auto now = std::chrono::steady_clock::now();
  const size_t rows = deferrer_->deferred_rows();
  if (rows == 0) return;
  if (tail_since_ == std::chrono::steady_clock::time_point()) tail_since_ = now;
  if (rows < kRowsWorthwhile && log().bytes() < kBytesWorthwhile && now - tail_since_ < longest_behind_) return;
  if (handed_over_) {
    bool busy;
    {
      MutexLock lock(mutex_);
      busy = !applied_.has_value();
    }
    if (busy && rows < kMostRows) return;
    AwaitApplied();
    if (doubtful_) return;
  }
  deferrer_->Seal();
  tail_since_ = {};
  handed_over_ = applier_->TryPost([this, generation = generation_] {
    absl::Status status = ApplySealed(generation);
    MutexLock lock(mutex_);
    applied_ = std::move(status);
    wake_.NotifyAll();
  });
  doubtful_ = !handed_over_;  // which does not happen: it was idle
  current_ = 1 - current_;
  log().BeginGeneration(++generation_);
}

void SqliteWriter::AwaitApplied() {
  if (!handed_over_) return;
  MutexLock lock(mutex_);
  while (!applied_.has_value()) wake_.Wait(mutex_);
  handed_over_ = false;
  if (applied_->ok()) {
    deferrer_->OnSealedApplied();
    other_log().Empty();
  } else {
    doubtful_ = true;  // the next transaction tries again, and tells what is wrong
  }
  applied_.reset();
}

absl::Status SqliteWriter::ApplySealed(uint64_t generation) {
  TUTTI_RETURN_IF_ERROR(db_.Begin());
  absl::Status status = RunGuarded([&] {
    TUTTI_RETURN_IF_ERROR(deferrer_->ApplySealed(db_));
    return NoteApplied(db_, generation);
  });
  db_.TakeNews();
  if (status.ok()) status = db_.Commit();
  if (!status.ok()) db_.Rollback();
  return status;
}

void SqliteWriter::Commit(std::vector<WriteOp>& batch) {
  if (IsDiskFull()) RefuseWrites(batch);
  if (batch.empty()) return;
  if (TryDefer(batch)) return HandOver();
  others_write_ = false;
  for (const auto& op : batch) others_write_ |= static_cast<bool>(op.apply);
  CommitBatch(*this, batch, metrics_, announce_);
  db_.WipeIfWanted();
}

void SqliteWriter::Idle() {
  others_write_ = false;
  if (behind() && !Settle().ok()) return;
  db_.WipeIfWanted();
  if (!log_in_use()) return;
  for (auto& log : logs_) log->Wipe();
}

}  // namespace tutti::state_manager
