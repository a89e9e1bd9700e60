// Whose call goes next when an engine is full: limits on calls at the same time, by run, workflow, target and tenant.
// The tenant with the fewest under way, then whose last turn is longest ago, goes first, whatever the priorities of
// others, then its calls by priority and first come first served; and no tenant takes all the room there is for
// waiting. So one tenant's flood does not starve another.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/async/executor.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"
#include "runtime/time/clock.h"

namespace tutti::engine {

class Admission {
 public:
  // 0 is no limit.
  struct Limits {
    int total = 0, per_tenant = 0, per_workflow = 0, per_target = 0, per_run = 0;
    // Of all tenants. One may take eight times what it leaves free, so eight ninths when it is alone (the dynamic
    // thresholds of Choudhury and Hahne, 1998).
    size_t max_waiting = 100000;
  };
  struct Caller {
    std::string run_id, workflow, tenant, target;
    int priority = 0;
    int run_limit = 0;  // the workflow's own bound for its runs; 0 is none
  };
  // Held while the call is under way.
  class Permit {
   public:
    Permit() = default;
    Permit(Admission& admission, Caller caller) : admission_(&admission), caller_(std::move(caller)) {}
    Permit(Permit&& other) noexcept
        : admission_(std::exchange(other.admission_, nullptr)), caller_(std::move(other.caller_)) {}
    Permit& operator=(Permit&& other) noexcept {
      std::swap(admission_, other.admission_);
      std::swap(caller_, other.caller_);
      return *this;
    }
    ~Permit() {
      if (admission_) admission_->Release(caller_);
    }

   private:
    Admission* admission_ = nullptr;
    Caller caller_;
  };

  Admission(Executor& executor, TimerService& timers, Limits limits)
      : executor_(executor), timers_(timers), limits_(limits) {}

  // How long a caller waits for its turn.
  struct Patience {
    std::stop_token stop;
    absl::Duration at_most = absl::InfiniteDuration();
  };
  // All calls on the executor. RESOURCE_EXHAUSTED with RetryInfo: too many of the tenant wait. CANCELLED: asked to stop
  // first. DEADLINE_EXCEEDED: its time was over first.
  Task<absl::StatusOr<Permit>> Enter(Caller caller, Patience patience);
  size_t waiting() const { return waiting_count_; }
  int under_way() const { return total_; }

 private:
  enum class Turn { kCome, kStopped, kLate };
  struct Waiter {
    Caller caller;
    std::list<std::shared_ptr<Waiter>>::iterator place;  // in its tenant's line, until it is settled
    OneShot<Turn> turn;
    bool settled = false;
  };
  struct Line {
    std::map<int, std::list<std::shared_ptr<Waiter>>, std::greater<>> by_priority;  // none of them empty
    size_t size = 0;
    uint64_t last_turn = 0;  // 0: none since it waits
  };

  bool HasRoom(const Caller& caller) const;
  void Count(const Caller& caller, int by);
  void Release(const Caller& caller);
  void AdmitWaiting();
  // The first of the line that has room; null: none has.
  std::shared_ptr<Waiter> NextOf(const Line& line) const;
  // Takes it out of its line.
  void Settle(Waiter& waiter);

  Executor& executor_;
  TimerService& timers_;
  const Limits limits_;
  int total_ = 0;
  std::map<std::string, int> tenants_, workflows_, targets_, runs_;
  std::map<std::string, Line> waiting_;  // by tenant; none of them empty
  size_t waiting_count_ = 0;
  uint64_t turns_ = 0;
};

}  // namespace tutti::engine
