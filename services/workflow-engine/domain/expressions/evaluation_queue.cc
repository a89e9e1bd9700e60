#include "services/workflow-engine/domain/expressions/evaluation_queue.h"

namespace tutti::engine::expressions {

void EvaluationQueue::Add(const std::string& tenant, std::coroutine_handle<> handle) {
  {
    MutexLock lock(mutex_);
    waiting_[tenant].push_back(handle);
  }
  worker_.Post([this] { RunNext(); });
}

// The first of the tenant that comes after the one who had the last turn.
void EvaluationQueue::RunNext() {
  std::coroutine_handle<> next;
  {
    MutexLock lock(mutex_);
    if (waiting_.empty()) return;
    auto it = waiting_.upper_bound(last_);
    if (it == waiting_.end()) it = waiting_.begin();
    last_ = it->first;
    next = it->second.front();
    it->second.pop_front();
    if (it->second.empty()) waiting_.erase(it);
  }
  next.resume();
}

}  // namespace tutti::engine::expressions
