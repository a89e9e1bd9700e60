// Where coroutines run.
#pragma once

#include <chrono>
#include <coroutine>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "runtime/async/linger.h"
#include "runtime/sync/mutex.h"

namespace tutti {

class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `fn` later, never inside this call. Thread safe.
  virtual void Post(absl::AnyInvocable<void()> fn) = 0;
};

// What a loop may wait for besides what is posted: events that a library hands out by a queue of its own.
class EventSource {
 public:
  class Event {
   public:
    // On the loop's thread. `ok` is the source's to explain.
    virtual void Happened(bool ok) = 0;

   protected:
    ~Event() = default;
  };
  virtual ~EventSource() = default;
  // The next event, and its `ok`. With `wait` until there is one or Interrupt was called; null: there is none.
  virtual Event* Next(bool wait, bool& ok) = 0;
  // Ends the wait under way, or the next one. Thread safe.
  virtual void Interrupt() = 0;
};

// One named thread that runs what is posted, in order, and the events of its source between. What runs here must not
// block.
class EventLoop final : public Executor {
 public:
  // Looks for work for `linger` before it sleeps. One that looks is also in the foreground (runtime/async/thread.h).
  // `source` may be null; it outlives the loop.
  explicit EventLoop(const std::string& name, std::chrono::microseconds linger = {}, EventSource* source = nullptr);
  // Runs what is already posted, then ends.
  ~EventLoop() override;
  void Post(absl::AnyInvocable<void()> fn) override;

 private:
  void Run();
  // With the lock held, which it gives up meanwhile: until something may have been posted, or an event happened.
  void Sleep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether any has happened; the time it took is work.
  bool TakeEvents();
  void Wake();

  EventSource* const source_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool asleep_ ABSL_GUARDED_BY(mutex_) = false;
  Linger linger_;
  std::chrono::steady_clock::duration worked_{};  // of late; on the loop's thread
  std::thread thread_;
};

// Where work is done that may block.
class WorkQueue {
 public:
  virtual ~WorkQueue() = default;
  // False when too much waits; `fn` then never runs.
  virtual bool TryPost(absl::AnyInvocable<void()> fn) = 0;
};

// Threads for work that blocks (files, databases), with a bounded queue.
class WorkerPool final : public WorkQueue {
 public:
  WorkerPool(const std::string& name, int threads, size_t max_queue);
  ~WorkerPool() override;
  bool TryPost(absl::AnyInvocable<void()> fn) override;

 private:
  void Run();

  const size_t max_queue_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// `co_await ResumeOn(executor)`: goes on there.
class ResumeOn {
 public:
  explicit ResumeOn(Executor& executor) noexcept : executor_(executor) {}
  ResumeOn(const ResumeOn&) = delete;
  ResumeOn& operator=(const ResumeOn&) = delete;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    executor_.Post([handle] { handle.resume(); });
  }
  void await_resume() const noexcept {}

 private:
  Executor& executor_;
};

}  // namespace tutti
