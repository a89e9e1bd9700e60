// Where evaluations go on that do not end within their first slice: on a thread of their own, by turns between tenants.
#pragma once

#include <coroutine>
#include <deque>
#include <map>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/sync/mutex.h"

namespace tutti::engine::expressions {

class EvaluationQueue {
 public:
  // `worker` runs one slice after the other, and outlives the queue.
  explicit EvaluationQueue(Executor& worker) : worker_(worker) {}

  class Turn {
   public:
    Turn(EvaluationQueue& queue, const std::string& tenant) noexcept : queue_(queue), tenant_(tenant) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) { queue_.Add(tenant_, handle); }
    void await_resume() const noexcept {}

   private:
    EvaluationQueue& queue_;
    const std::string& tenant_;
  };
  // `co_await queue.NextTurn(tenant)`: goes on upon the worker when it is the tenant's turn.
  Turn NextTurn(const std::string& tenant) { return Turn(*this, tenant); }

 private:
  void Add(const std::string& tenant, std::coroutine_handle<> handle);
  void RunNext();

  Executor& worker_;
  Mutex mutex_;
  std::map<std::string, std::deque<std::coroutine_handle<>>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::string last_ ABSL_GUARDED_BY(mutex_);  // the tenant who had the last turn
};

}  // namespace tutti::engine::expressions
