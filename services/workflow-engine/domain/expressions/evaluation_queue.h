// Runs evaluations that do not end within their first slice, by turns between tenants. Seats bound how many are under
// way, and so the memory that all of them hold.
#pragma once

#include <coroutine>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "runtime/async/executor.h"
#include "runtime/sync/mutex.h"

namespace tutti::engine::expressions {

// Thread-safe.
class EvaluationQueue {
 public:
  static constexpr int kSeats = 6;
  static constexpr int kSeatsOfTenant = 2;

  // `worker` runs one slice after the other, and outlives the queue.
  explicit EvaluationQueue(Executor& worker) : worker_(worker) {}

  // Holds a seat until it is destroyed.
  class Seat {
   public:
    Seat(EvaluationQueue& queue, std::string tenant) : queue_(&queue), tenant_(std::move(tenant)) {}
    Seat(Seat&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)), tenant_(std::move(other.tenant_)) {}
    Seat& operator=(Seat&&) = delete;
    ~Seat() {
      if (queue_) queue_->Leave(tenant_);
    }

   private:
    EvaluationQueue* queue_;
    std::string tenant_;
  };

  class Entry {
   public:
    Entry(EvaluationQueue& queue, const std::string& tenant) : queue_(queue), tenant_(tenant) {}
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) { return !queue_.TakeSeat(tenant_, handle); }
    Seat await_resume() { return Seat(queue_, tenant_); }

   private:
    EvaluationQueue& queue_;
    const std::string tenant_;
  };
  // `co_await queue.Enter(tenant)`: waits for a seat. Tenants get free seats by rotation.
  Entry Enter(const std::string& tenant) { return Entry(*this, tenant); }

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
  using Waiting = std::map<std::string, std::deque<std::coroutine_handle<>>>;

  // Returns true when the tenant got a seat at once; otherwise `handle` waits.
  bool TakeSeat(const std::string& tenant, std::coroutine_handle<> handle);
  void Leave(const std::string& tenant);
  void Add(const std::string& tenant, std::coroutine_handle<> handle);
  void RunNext();

  Executor& worker_;
  Mutex mutex_;
  Waiting turns_ ABSL_GUARDED_BY(mutex_);
  std::string last_turn_ ABSL_GUARDED_BY(mutex_);  // the tenant who had the last turn
  Waiting entries_ ABSL_GUARDED_BY(mutex_);
  std::string last_entry_ ABSL_GUARDED_BY(mutex_);  // the tenant who got the last seat that others waited for
  std::map<std::string, int> seats_ ABSL_GUARDED_BY(mutex_);
  int seats_taken_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tutti::engine::expressions
