// WhenAll: runs tasks side by side and goes on when all have ended.
#pragma once

#include <atomic>
#include <coroutine>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/async/task.h"

namespace tutti {
namespace async_internal {

// Counts the tasks plus the waiter; whoever takes it to zero resumes the waiter.
struct JoinCounter {
  explicit JoinCounter(size_t tasks) : left(tasks + 1) {}
  std::atomic<size_t> left;
  std::coroutine_handle<> waiter;
  void Arrive() {
    if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) waiter.resume();
  }
};

template <class T>
Detached RunChild(Task<T> task, std::optional<T>& out, JoinCounter& counter) {
  {
    Task<T> running = std::move(task);
    out.emplace(co_await std::move(running));
  }
  counter.Arrive();
}

class JoinAwaiter {
 public:
  explicit JoinAwaiter(JoinCounter& counter) noexcept : counter_(counter) {}
  JoinAwaiter(const JoinAwaiter&) = delete;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) noexcept {
    counter_.waiter = handle;
    return counter_.left.fetch_sub(1, std::memory_order_acq_rel) != 1;  // false: all have ended, go on
  }
  void await_resume() const noexcept {}

 private:
  JoinCounter& counter_;
};

}  // namespace async_internal

// The tasks start here, one after the other, and go on wherever they are resumed; results are in the order of the
// tasks.
template <class T>
Task<std::vector<T>> WhenAll(std::vector<Task<T>> tasks) {
  std::vector<std::optional<T>> slots(tasks.size());
  async_internal::JoinCounter counter(tasks.size());
  for (size_t i = 0; i < tasks.size(); ++i) {
    async_internal::RunChild<T>(std::move(tasks[i]), slots[i], counter);
  }
  async_internal::JoinAwaiter all_done(counter);
  co_await all_done;
  std::vector<T> out;
  out.reserve(slots.size());
  for (auto& slot : slots) out.push_back(std::move(*slot));
  co_return out;
}

}  // namespace tutti
