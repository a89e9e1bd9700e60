// Channel<T>: values from any thread to one coroutine, with a bound.
#pragma once

#include <coroutine>
#include <deque>
#include <optional>
#include <utility>

#include "runtime/async/executor.h"
#include "runtime/sync/mutex.h"

namespace tutti {

template <class T>
class Channel {
 public:
  // The consumer goes on upon `executor`.
  Channel(Executor& executor, size_t capacity) : executor_(executor), capacity_(capacity) {}

  // False when the channel is full or closed; the value is then dropped.
  bool TryPush(T value) {
    std::coroutine_handle<> waiter;
    {
      MutexLock lock(mutex_);
      if (closed_ || values_.size() >= capacity_) return false;
      values_.push_back(std::move(value));
      waiter = std::exchange(waiter_, nullptr);
    }
    if (waiter) executor_.Post([waiter] { waiter.resume(); });
    return true;
  }

  // The consumer gets what is there, then nullopt.
  void Close() {
    std::coroutine_handle<> waiter;
    {
      MutexLock lock(mutex_);
      closed_ = true;
      waiter = std::exchange(waiter_, nullptr);
    }
    if (waiter) executor_.Post([waiter] { waiter.resume(); });
  }

  // What is there now, without waiting. By the consumer.
  std::optional<T> TryPop() {
    MutexLock lock(mutex_);
    if (values_.empty()) return std::nullopt;
    std::optional<T> out(std::move(values_.front()));
    values_.pop_front();
    return out;
  }

  class Awaiter {
   public:
    explicit Awaiter(Channel& channel) noexcept : channel_(channel) {}
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) {
      MutexLock lock(channel_.mutex_);
      if (channel_.closed_ || !channel_.values_.empty()) return false;
      channel_.waiter_ = handle;
      return true;
    }
    std::optional<T> await_resume() {
      MutexLock lock(channel_.mutex_);
      if (channel_.values_.empty()) return std::nullopt;
      std::optional<T> out(std::move(channel_.values_.front()));
      channel_.values_.pop_front();
      return out;
    }

   private:
    Channel& channel_;
  };
  // One consumer at a time. nullopt: closed and empty.
  Awaiter Pop() noexcept { return Awaiter(*this); }

 private:
  Executor& executor_;
  const size_t capacity_;
  Mutex mutex_;
  std::deque<T> values_ ABSL_GUARDED_BY(mutex_);
  std::coroutine_handle<> waiter_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tutti
