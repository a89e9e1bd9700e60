#include "services/workflow-engine/domain/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::engine {
namespace {

int Of(const std::map<std::string, int>& counts, const std::string& key) {
  auto it = counts.find(key);
  return it == counts.end() ? 0 : it->second;
}

bool Full(int limit, int count) { return limit > 0 && count >= limit; }

void Add(std::map<std::string, int>& counts, const std::string& key, int by) {
  if ((counts[key] += by) == 0) counts.erase(key);
}

}  // namespace

bool Admission::HasRoom(const Caller& caller) const {
  return !Full(limits_.total, total_) &&
         !(limits_.per_tenant > 0 && Full(limits_.per_tenant, Of(tenants_, caller.tenant))) &&
         !(limits_.per_workflow > 0 && Full(limits_.per_workflow, Of(workflows_, caller.workflow))) &&
         !(limits_.per_target > 0 && Full(limits_.per_target, Of(targets_, caller.target))) &&
         !(limits_.per_run > 0 && Full(limits_.per_run, Of(runs_, caller.run_id))) &&
         !(caller.run_limit > 0 && Full(caller.run_limit, Of(runs_, caller.run_id)));
}

void Admission::Count(const Caller& caller, int by) {
  total_ += by;
  Add(tenants_, caller.tenant, by);
  Add(workflows_, caller.workflow, by);
  Add(targets_, caller.target, by);
  Add(runs_, caller.run_id, by);
}

Task<absl::StatusOr<Admission::Permit>> Admission::Enter(Caller caller, Patience patience) {
  // Who comes now does not overtake who waits for the same: with nobody waiting there is nobody to overtake.
  if (waiting_count_ == 0 && HasRoom(caller)) {
    Count(caller, 1);
    co_return Permit(*this, std::move(caller));
  }
  if (waiting_count_ >= limits_.max_waiting) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_STEPS",
                    absl::StrCat(waiting_count_, " calls wait for their turn already; try again later"))
        .RetryAfter(absl::Seconds(1));
  }
  auto waiter = std::make_shared<Waiter>();
  waiter->caller = std::move(caller);
  auto& queue = waiting_[waiter->caller.priority][waiter->caller.tenant];
  waiter->place = queue.insert(queue.end(), waiter);
  ++waiting_count_;
  AdmitWaiting();
  uint64_t timer = 0;
  if (patience.at_most < absl::InfiniteDuration()) {
    timer = timers_.After(std::max(patience.at_most, absl::ZeroDuration()), [&executor = executor_, waiter] {
      executor.Post([waiter] { waiter->turn.Set(Turn::kLate); });
    });
  }
  std::stop_callback on_stop(patience.stop, [&executor = executor_, waiter] {
    executor.Post([waiter] { waiter->turn.Set(Turn::kStopped); });
  });
  const Turn turn = co_await waiter->turn.Wait(executor_);
  if (timer != 0) timers_.Cancel(timer);
  if (turn == Turn::kCome) co_return Permit(*this, std::move(waiter->caller));
  if (!waiter->settled) {
    waiter->settled = true;
    --waiting_count_;
    auto lane = waiting_.find(waiter->caller.priority);
    auto queue = lane->second.find(waiter->caller.tenant);
    queue->second.erase(waiter->place);
    if (queue->second.empty()) lane->second.erase(queue);
    if (lane->second.empty()) waiting_.erase(lane);
  }
  if (turn == Turn::kLate) {
    co_return Error(absl::StatusCode::kDeadlineExceeded, "NO_TURN",
                    absl::StrCat("its time was over before its turn came: ", waiter->caller.target, " or its run, ",
                                 "workflow, tenant or engine is at its limit of concurrent steps"));
  }
  co_return absl::CancelledError("the run was asked to stop");
}

void Admission::Release(const Caller& caller) {
  Count(caller, -1);
  AdmitWaiting();
}

void Admission::AdmitWaiting() {
  for (auto lane = waiting_.begin(); lane != waiting_.end();) {
    bool progress = true;
    while (progress && !Full(limits_.total, total_)) {
      progress = false;
      // The tenant with the fewest under way first. Of each tenant's queue the first that has room.
      std::vector<std::pair<int, std::string>> order;
      for (const auto& [tenant, queue] : lane->second) order.emplace_back(Of(tenants_, tenant), tenant);
      std::sort(order.begin(), order.end());
      for (const auto& [count, tenant] : order) {
        auto& queue = lane->second[tenant];
        auto next = queue.begin();
        // What is blocked by a limit of its own (a run's, a target's) does not block who stands behind it.
        while (next != queue.end() && !HasRoom((*next)->caller)) ++next;
        if (next == queue.end()) continue;
        std::shared_ptr<Waiter> waiter = *next;
        queue.erase(next);
        if (queue.empty()) lane->second.erase(tenant);
        waiter->settled = true;
        --waiting_count_;
        Count(waiter->caller, 1);
        if (!waiter->turn.Set(Turn::kCome)) Count(waiter->caller, -1);  // it has just given up
        progress = true;
        break;
      }
    }
    lane = lane->second.empty() ? waiting_.erase(lane) : std::next(lane);
  }
}

}  // namespace tutti::engine
