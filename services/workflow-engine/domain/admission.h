// Whose call goes next when an engine is full: limits on calls at the same time, by run, workflow, target and tenant.
// The tenant with the fewest under way, then whose last turn is longest ago, goes first, whatever the priorities of
// others, then its calls by priority and first come first served; and no tenant takes all the room there is for
// waiting. So one tenant's flood does not starve another.
#pragma once

#include <compare>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <stop_token>
#include <string>
#include <tuple>

#include "absl/status/statusor.h"
#include "runtime/async/executor.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"
#include "runtime/time/clock.h"
#include "services/workflow-engine/domain/waiting_room.h"

namespace tutti::engine {

class Admission {
 public:
  // 0 is no limit. Those for a tenant, a workflow and a target hold over all engines of a store, see Share.
  struct Limits {
    int total = 0, per_tenant = 0, per_workflow = 0, per_target = 0, per_run = 0;
    size_t max_waiting = 100000;  // of all tenants; see WaitingRoom
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
      : executor_(executor), timers_(timers), given_(limits), limits_(limits), waiting_room_(limits.max_waiting) {}

  // This is one of `engines`, and `rank` of them come before it: of what is limited over all it takes its part, at
  // least one. What is under way already stays.
  void Share(int engines, int rank);

  // How long a caller waits for its turn.
  struct Patience {
    std::stop_token stop;
    absl::Duration at_most = absl::InfiniteDuration();
  };
  // All calls on the executor. RESOURCE_EXHAUSTED with RetryInfo: too many of the tenant wait. CANCELLED: asked to stop
  // first. DEADLINE_EXCEEDED: its time was over first.
  Task<absl::StatusOr<Permit>> Enter(Caller caller, Patience patience);
  size_t waiting() const { return waiting_room_.all(); }
  int under_way() const { return total_; }

 private:
  enum class Turn { kCome, kStopped, kLate };
  // What limits apply to: calls of one tenant and kind all have room, or none has. So who looks for the next looks at
  // the first of each kind, however many stand behind it. What no limit is set for is empty.
  struct Kind {
    std::string workflow, target, run_id;
    friend auto operator<=>(const Kind&, const Kind&) = default;
  };
  struct Waiter {
    Caller caller;
    Kind kind;
    uint64_t arrival = 0;
    std::list<std::shared_ptr<Waiter>>::iterator place;  // in its queue, until it is settled
    OneShot<Turn> turn;
    bool settled = false;
  };
  using Queues = std::map<Kind, std::list<std::shared_ptr<Waiter>>>;  // none of them empty
  struct Line {
    std::map<int, Queues, std::greater<>> by_priority;  // none of them empty
    int under_way = 0;
    uint64_t last_turn = 0;  // 0: none since it waits
  };
  using Lines = std::map<std::string, Line>;  // by tenant; none of them empty

  bool HasRoom(const Caller& caller) const;
  Kind KindOf(const Caller& caller) const;
  void Count(const Caller& caller, int by);
  void Release(const Caller& caller);
  void AdmitWaiting();
  // The first of the line, by priority and arrival, that has room; null: none has.
  std::shared_ptr<Waiter> NextOf(const Line& line) const;
  // Changes what the line's place in the order goes by.
  void Place(Lines::iterator line, int under_way, uint64_t last_turn);
  // Takes it out of its line.
  void Settle(Waiter& waiter);

  Executor& executor_;
  TimerService& timers_;
  const Limits given_;
  Limits limits_;  // this engine's part
  int total_ = 0;
  std::map<std::string, int> tenants_, workflows_, targets_, runs_;
  Lines waiting_;
  std::set<std::tuple<int, uint64_t, std::string>> order_;  // of the lines: under_way, last_turn, tenant
  WaitingRoom waiting_room_;
  uint64_t arrivals_ = 0, turns_ = 0;
};

}  // namespace tutti::engine
