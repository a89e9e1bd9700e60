// An executor that runs only when a test says so: async tests on one thread.
#pragma once

#include <deque>

#include "runtime/async/executor.h"

namespace tutti::testing {

class ManualExecutor final : public Executor {
 public:
  void Post(absl::AnyInvocable<void()> fn) override {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(fn));
  }
  // Runs what is posted, and what that posts, until nothing is left.
  void RunUntilIdle() {
    for (;;) {
      absl::AnyInvocable<void()> fn;
      {
        MutexLock lock(mutex_);
        if (queue_.empty()) return;
        fn = std::move(queue_.front());
        queue_.pop_front();
      }
      fn();
    }
  }

 private:
  Mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::testing
