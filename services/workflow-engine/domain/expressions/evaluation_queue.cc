#include "services/workflow-engine/domain/expressions/evaluation_queue.h"

namespace tutti::engine::expressions {
namespace {

using Waiting = std::map<std::string, std::deque<std::coroutine_handle<>>>;

// Removes and returns what waits first of the tenant `it`.
std::coroutine_handle<> TakeFirst(Waiting& waiting, Waiting::iterator it) {
  std::coroutine_handle<> first = it->second.front();
  it->second.pop_front();
  if (it->second.empty()) waiting.erase(it);
  return first;
}

}  // namespace

bool EvaluationQueue::TakeSeat(const std::string& tenant, std::coroutine_handle<> handle) {
  MutexLock lock(mutex_);
  int& seats = seats_[tenant];
  if (seats_taken_ < kSeats && seats < kSeatsOfTenant) {
    ++seats;
    ++seats_taken_;
    return true;
  }
  entries_[tenant].push_back(handle);
  return false;
}

void EvaluationQueue::Leave(const std::string& tenant) {
  std::coroutine_handle<> next;
  {
    MutexLock lock(mutex_);
    --seats_taken_;
    if (--seats_[tenant] == 0) seats_.erase(tenant);
    // The next tenant by rotation that waits and may have one more.
    auto it = entries_.upper_bound(last_entry_);
    for (size_t looked_at = 0; looked_at < entries_.size() && !next; ++looked_at) {
      if (it == entries_.end()) it = entries_.begin();
      auto seats = seats_.find(it->first);
      if (seats != seats_.end() && seats->second >= kSeatsOfTenant) {
        ++it;
        continue;
      }
      last_entry_ = it->first;
      ++seats_[it->first];
      ++seats_taken_;
      next = TakeFirst(entries_, it);
    }
  }
  if (next) worker_.Post([next] { next.resume(); });
}

void EvaluationQueue::Add(const std::string& tenant, std::coroutine_handle<> handle) {
  {
    MutexLock lock(mutex_);
    turns_[tenant].push_back(handle);
  }
  worker_.Post([this] { RunNext(); });
}

void EvaluationQueue::RunNext() {
  std::coroutine_handle<> next;
  {
    MutexLock lock(mutex_);
    if (turns_.empty()) return;
    // The tenant that comes after the one who had the last turn.
    auto it = turns_.upper_bound(last_turn_);
    if (it == turns_.end()) it = turns_.begin();
    last_turn_ = it->first;
    next = TakeFirst(turns_, it);
  }
  next.resume();
}

}  // namespace tutti::engine::expressions
