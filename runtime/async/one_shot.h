// OneShot<T>: a value that arrives once, from any thread, for one coroutine.
#pragma once

#include <atomic>
#include <coroutine>
#include <optional>
#include <utility>

#include "runtime/async/executor.h"

namespace tutti {

template <class T>
class OneShot {
 public:
  OneShot() = default;
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

  // At most one call of Set may win; later ones return false and change nothing.
  bool Set(T value) {
    int expected = kEmpty;
    if (!claimed_.compare_exchange_strong(expected, 1)) return false;
    value_.emplace(std::move(value));
    if (state_.exchange(kSet, std::memory_order_acq_rel) == kWaiting) {
      // The waiter may destroy *this as soon as it runs: only locals from here.
      Executor* executor = executor_;
      std::coroutine_handle<> waiter = waiter_;
      executor->Post([waiter] { waiter.resume(); });
    }
    return true;
  }

  class Awaiter {
   public:
    Awaiter(OneShot& shot, Executor& executor) noexcept : shot_(shot), executor_(executor) {}
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;
    bool await_ready() const noexcept { return shot_.state_.load(std::memory_order_acquire) == kSet; }
    bool await_suspend(std::coroutine_handle<> handle) noexcept {
      shot_.waiter_ = handle;
      shot_.executor_ = &executor_;
      int expected = kEmpty;
      return shot_.state_.compare_exchange_strong(expected, kWaiting, std::memory_order_acq_rel);
    }
    T await_resume() { return std::move(*shot_.value_); }

   private:
    OneShot& shot_;
    Executor& executor_;
  };
  // Goes on upon `executor`, or at once when the value is there.
  Awaiter Wait(Executor& executor) noexcept { return Awaiter(*this, executor); }

 private:
  static constexpr int kEmpty = 0, kWaiting = 1, kSet = 2;
  std::atomic<int> claimed_{kEmpty};
  std::atomic<int> state_{kEmpty};
  std::optional<T> value_;
  std::coroutine_handle<> waiter_;
  Executor* executor_ = nullptr;
};

}  // namespace tutti
