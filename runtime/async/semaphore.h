// Permits for coroutines of one executor: at most so many at the same time, first come first served, with a bounded
// queue.
#pragma once

#include <deque>

#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"

namespace tutti {

// Not thread safe: all calls on `executor`.
class Semaphore {
 public:
  Semaphore(Executor& executor, int permits, size_t max_waiting)
      : executor_(executor), free_(permits), max_waiting_(max_waiting) {}

  // False at once when too many wait already; true with a permit, which Release gives back.
  Task<bool> Acquire() {
    if (free_ > 0) {
      --free_;
      co_return true;
    }
    if (waiting_.size() >= max_waiting_) co_return false;
    OneShot<bool> turn;
    waiting_.push_back(&turn);
    co_await turn.Wait(executor_);  // whoever releases hands its permit over
    co_return true;
  }
  void Release() {
    if (waiting_.empty()) {
      ++free_;
      return;
    }
    OneShot<bool>* next = waiting_.front();
    waiting_.pop_front();
    next->Set(true);
  }
  size_t waiting() const { return waiting_.size(); }

 private:
  Executor& executor_;
  int free_;
  const size_t max_waiting_;
  std::deque<OneShot<bool>*> waiting_;
};

}  // namespace tutti
