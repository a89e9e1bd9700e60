#include "services/state-manager/adapters/group_commit.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "absl/strings/str_cat.h"
#include "runtime/async/thread.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

// A commit of fewer waits for nobody.
constexpr size_t kCompany = 8;
constexpr std::chrono::microseconds kLongestWait{500};

constexpr int kMaxTries = 5;

// What one attempt at a transaction came to.
struct Attempt {
  // OK: committed. Otherwise nothing was written.
  absl::Status status;
  // The op that refused after it had written; the others are repeated without it. -1: none.
  int refused_late = -1;
  std::vector<absl::Status> refusals;
};

Attempt Try(WriteSession& session, std::vector<WriteOp*>& batch, std::vector<News>& news) {
  Attempt out;
  out.refusals.resize(batch.size());
  auto transaction = session.Begin();
  if (!transaction.ok()) {
    out.status = transaction.status();
    return out;
  }
  Transaction& tx = **transaction;
  std::map<BatchWriter*, std::vector<void*>> sets;
  size_t in_sets = 0;
  for (WriteOp* op : batch) {
    if (!op->batch) continue;
    sets[op->batch].push_back(op->item);
    ++in_sets;
  }
  tx.set_alone(sets.size() == 1 && in_sets == batch.size());
  for (auto& [writer, items] : sets) {
    out.status = RunGuarded([&] { return writer->ApplyAll(tx, items); });
    if (out.status.ok()) out.status = tx.failure();
    if (!out.status.ok()) break;
  }
  for (size_t i = 0; i < batch.size() && out.status.ok(); ++i) {
    if (batch[i]->batch || !batch[i]->apply) continue;
    int64_t before = tx.rows_written();
    absl::Status answer = RunGuarded([&] { return batch[i]->apply(tx); });
    if (!tx.failure().ok()) {
      out.status = tx.failure();
    } else if (!answer.ok()) {
      out.refusals[i] = answer;
      if (tx.rows_written() != before) {
        out.refused_late = static_cast<int>(i);
        out.status = answer;
      }
    }
  }
  if (out.status.ok()) {
    news = tx.TakeNews();
    out.status = session.Commit();
  }
  if (!out.status.ok()) {
    session.Rollback();
    news.clear();
  }
  return out;
}

// Errors that say nothing about the ops: the whole database is away, full, or damaged.
bool ConcernsAll(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsUnknown(status) || absl::IsResourceExhausted(status) ||
         absl::IsDataLoss(status) || absl::IsFailedPrecondition(status);
}

}  // namespace

absl::Status RunGuarded(const std::function<absl::Status()>& body) {
  try {
    return body();
  } catch (const std::exception& e) {
    return Error(absl::StatusCode::kInternal, "STORE_BUG", absl::StrCat("the store failed: ", e.what()));
  }
}

absl::Status Busy(absl::string_view what) {
  return Error(absl::StatusCode::kResourceExhausted, "STORE_BUSY",
               absl::StrCat("too many ", what, " wait for the database"))
      .RetryAfter(absl::Milliseconds(200));
}

absl::Status Away(absl::string_view why) {
  return Error(absl::StatusCode::kUnavailable, "DATABASE_AWAY",
               absl::StrCat("the database cannot be reached (", why,
                            "); nothing is lost, the same request may be sent again"))
      .RetryAfter(absl::Seconds(1));
}

void CommitBatch(WriteSession& session, std::vector<WriteOp>& batch, DatabaseMetrics& metrics,
                 const std::function<void(std::vector<News>)>& announce) {
  metrics.ObserveBatch(batch.size());
  std::vector<WriteOp*> all;
  all.reserve(batch.size());
  for (auto& op : batch) all.push_back(&op);
  auto commit = [&](std::vector<WriteOp*>& ops) {
    std::vector<News> news;
    Attempt attempt = Try(session, ops, news);
    for (int tries = 1; absl::IsAborted(attempt.status) && tries < kMaxTries; ++tries) {
      attempt = Try(session, ops, news);
    }
    if (attempt.status.ok()) {
      for (size_t i = 0; i < ops.size(); ++i) ops[i]->finish(attempt.refusals[i]);
      if (!news.empty()) announce(std::move(news));
    }
    return attempt;
  };
  while (!all.empty()) {
    Attempt attempt = commit(all);
    if (attempt.status.ok()) return;
    if (attempt.refused_late >= 0) {
      all[static_cast<size_t>(attempt.refused_late)]->finish(attempt.status);
      all.erase(all.begin() + attempt.refused_late);
      continue;
    }
    if (all.size() > 1 && !ConcernsAll(attempt.status)) break;
    for (auto* op : all) op->finish(attempt.status);
    return;
  }
  // One of them is at fault: each for itself.
  for (auto* op : all) {
    std::vector<WriteOp*> alone = {op};
    Attempt single = commit(alone);
    if (!single.status.ok()) op->finish(single.status);
  }
}

GroupCommit::GroupCommit(Options options, Commit commit, std::function<void()> on_idle)
    : options_(std::move(options)), commit_(std::move(commit)), on_idle_(std::move(on_idle)) {
  for (int i = 0; i < options_.lanes; ++i) {
    lanes_.push_back(std::make_unique<Lane>(options_.linger));
    Lane& lane = *lanes_.back();
    lane.thread = std::thread([this, &lane] { Run(lane); });
    NameThread(lane.thread, absl::StrCat(options_.name, i));
  }
}

GroupCommit::~GroupCommit() {
  for (auto& lane : lanes_) {
    {
      MutexLock lock(lane->mutex);
      lane->stopping = true;
      lane->linger.Came();
    }
    lane->wake.NotifyAll();
  }
  for (auto& lane : lanes_) lane->thread.join();
}

void GroupCommit::Enqueue(WriteOp op) {
  Lane& lane = *lanes_[op.lane % lanes_.size()];
  {
    MutexLock lock(lane.mutex);
    const bool room = lane.queue.size() < options_.max_queue / lanes_.size() &&
                      (lane.queue.empty() || lane.bytes + op.bytes <= options_.max_queue_bytes / lanes_.size());
    if (!lane.stopping && room) {
      lane.bytes += op.bytes;
      lane.queue.push_back(std::move(op));
      lane.linger.Came();
      if (lane.asleep) lane.wake.NotifyOne();
      return;
    }
  }
  op.finish(Busy("writes"));
}

bool GroupCommit::AwaitWork(Lane& lane, bool& worked) {
  lane.asleep = true;
  bool on_time = true;
  while (lane.queue.empty() && !lane.stopping) {
    if (!worked) {
      lane.wake.Wait(lane.mutex);
      continue;
    }
    on_time = lane.wake.WaitFor(lane.mutex, options_.idle_after);
    if (on_time || !lane.queue.empty() || lane.stopping) continue;
    // Nobody has come meanwhile.
    worked = false;
    lane.asleep = false;
    lane.mutex.Unlock();
    on_idle_();
    lane.mutex.Lock();
    lane.asleep = true;
  }
  lane.asleep = false;
  return !lane.queue.empty();
}

void GroupCommit::Run(Lane& lane) {
  if (options_.linger > options_.linger.zero()) RunInForeground();
  std::vector<WriteOp> batch;
  // Those whom a commit answers come again together, a moment later. Who commits at once what has come meanwhile splits
  // them into groups that never meet again, each with a disk's wait of its own: after a commit of many, a part of its
  // time is spent waiting for as many.
  size_t expected = 0;
  std::chrono::steady_clock::duration took{};
  bool worked = false;  // since it was idle
  for (;;) {
    if (expected < kCompany) lane.linger.Await();  // with many on their way the next one is not far, nor alone
    {
      MutexLock lock(lane.mutex);
      if (options_.gather && expected >= kCompany && lane.queue.size() < expected && !lane.stopping) {
        lane.wake.WaitFor(lane.mutex, std::min<std::chrono::nanoseconds>(took / 4, kLongestWait));
      }
      if (!AwaitWork(lane, worked)) break;
      if (lane.queue.size() <= options_.max_batch) {
        lane.linger.Took();
        batch.swap(lane.queue);
        lane.bytes = 0;
      } else {
        auto end = lane.queue.begin() + static_cast<int64_t>(options_.max_batch);
        std::move(lane.queue.begin(), end, std::back_inserter(batch));
        lane.queue.erase(lane.queue.begin(), end);
        for (const WriteOp& op : batch) lane.bytes -= op.bytes;
      }
    }
    expected = batch.size();
    worked = on_idle_ != nullptr;
    auto begin = std::chrono::steady_clock::now();
    commit_(batch);
    took = std::chrono::steady_clock::now() - begin;
    batch.clear();
  }
  if (worked) on_idle_();
}

}  // namespace tutti::state_manager
