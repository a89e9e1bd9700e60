// Scope: the only way to let a task run on its own. It counts what runs, refuses new work once closing, and waits for
// the old.
#pragma once

#include "runtime/async/executor.h"
#include "runtime/async/task.h"
#include "runtime/sync/mutex.h"

namespace tutti {

class Scope {
 public:
  Scope() = default;
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { CloseAndWait(); }

  // Starts `task` on `executor`. False once closing: the task is then destroyed without having begun.
  bool Spawn(Executor& executor, Task<void> task) {
    {
      MutexLock lock(mutex_);
      if (closing_) return false;
      ++running_;
    }
    Run(executor, std::move(task), *this);
    return true;
  }

  // From now on Spawn refuses.
  void Close() {
    MutexLock lock(mutex_);
    closing_ = true;
  }
  // Blocks until everything spawned has ended. Never call it on an executor that the tasks need.
  void CloseAndWait() {
    MutexLock lock(mutex_);
    closing_ = true;
    while (running_ > 0) idle_.Wait(mutex_);
  }
  // As CloseAndWait; false when `timeout` passed first.
  bool CloseAndWaitFor(std::chrono::nanoseconds timeout) {
    auto end = std::chrono::steady_clock::now() + timeout;
    MutexLock lock(mutex_);
    closing_ = true;
    while (running_ > 0) {
      auto left = end - std::chrono::steady_clock::now();
      if (left.count() <= 0) return false;
      idle_.WaitFor(mutex_, left);
    }
    return true;
  }

 private:
  static async_internal::Detached Run(Executor& executor, Task<void> task, Scope& scope) {
    co_await ResumeOn(executor);
    {
      Task<void> running = std::move(task);  // its frame is gone before the scope hears of the end
      co_await std::move(running);
    }
    scope.Done();
  }
  void Done() {
    MutexLock lock(mutex_);  // notified under the lock: the waiter may destroy the scope right after
    if (--running_ == 0) idle_.NotifyAll();
  }

  Mutex mutex_;
  CondVar idle_;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tutti
