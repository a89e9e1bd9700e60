// Walks suspect runs one at a time until each comes to a wait. Suspects are runs whose engines have died again and
// again: one more death then tells which run is to blame (docs/adr/0023).
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "runtime/async/executor.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"

namespace tutti::engine {

// Hands one turn from run to run, in the order in which they asked. All calls happen on `executor`.
class Trials {
 public:
  // Holds the right to be walked, and hands it on when it is destroyed. The trials outlive it.
  class Turn {
   public:
    explicit Turn(Trials& trials) : trials_(&trials) {}
    Turn(Turn&& other) noexcept : trials_(std::exchange(other.trials_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (trials_) trials_->Leave();
    }

   private:
    Trials* trials_;
  };

  explicit Trials(Executor& executor) : executor_(executor) {}

  // Waits for the turn. Returns null when the trials are closed.
  Task<std::unique_ptr<Turn>> Enter() {
    if (closed_) co_return nullptr;
    if (std::exchange(taken_, true)) {
      auto given = std::make_shared<OneShot<bool>>();
      waiting_.push_back(given);
      bool entered = co_await given->Wait(executor_);
      if (!entered) co_return nullptr;
    }
    co_return std::make_unique<Turn>(*this);
  }

  // Turns away all that wait, and all that come later.
  void Close() {
    closed_ = true;
    for (const auto& given : std::exchange(waiting_, {})) given->Set(false);
  }

 private:
  void Leave() {
    taken_ = !waiting_.empty();
    if (!taken_) return;
    waiting_.front()->Set(true);
    waiting_.pop_front();
  }

  Executor& executor_;
  bool taken_ = false;
  bool closed_ = false;
  std::deque<std::shared_ptr<OneShot<bool>>> waiting_;
};

}  // namespace tutti::engine
