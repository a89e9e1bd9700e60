#include "services/workflow-engine/domain/admission.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::engine {
namespace {

int Of(const std::map<std::string, int>& counts, const std::string& key) {
  auto it = counts.find(key);
  return it == counts.end() ? 0 : it->second;
}

bool Full(int limit, int count) { return limit > 0 && count >= limit; }

// How many times what it leaves free one tenant may take of the room for waiting.
constexpr size_t kShare = 8;

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
  auto own = waiting_.find(caller.tenant);
  const size_t of_tenant = own == waiting_.end() ? 0 : own->second.size;
  if (waiting_count_ >= limits_.max_waiting || of_tenant >= kShare * (limits_.max_waiting - waiting_count_)) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_STEPS",
                    absl::StrCat(of_tenant, " calls of the tenant wait for their turn already, ", waiting_count_,
                                 " in all; try again later"))
        .RetryAfter(absl::Seconds(1));
  }
  auto waiter = std::make_shared<Waiter>();
  waiter->caller = std::move(caller);
  Line& line = waiting_[waiter->caller.tenant];
  auto& queue = line.by_priority[waiter->caller.priority];
  waiter->place = queue.insert(queue.end(), waiter);
  ++line.size;
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
  if (!waiter->settled) Settle(*waiter);
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

void Admission::Settle(Waiter& waiter) {
  auto line = waiting_.find(waiter.caller.tenant);
  auto queue = line->second.by_priority.find(waiter.caller.priority);
  queue->second.erase(waiter.place);
  if (queue->second.empty()) line->second.by_priority.erase(queue);
  if (--line->second.size == 0) waiting_.erase(line);
  --waiting_count_;
  waiter.settled = true;
}

std::shared_ptr<Admission::Waiter> Admission::NextOf(const Line& line) const {
  for (const auto& [priority, queue] : line.by_priority) {
    for (const auto& waiter : queue) {
      // What is blocked by a limit of its own (a run's, a target's) does not block who stands behind it.
      if (HasRoom(waiter->caller)) return waiter;
    }
  }
  return nullptr;
}

void Admission::AdmitWaiting() {
  while (!Full(limits_.total, total_)) {
    std::vector<std::tuple<int, uint64_t, std::string>> order;
    for (const auto& [tenant, line] : waiting_) order.emplace_back(Of(tenants_, tenant), line.last_turn, tenant);
    std::sort(order.begin(), order.end());
    std::shared_ptr<Waiter> next;
    for (auto it = order.begin(); it != order.end() && !next; ++it)
      next = NextOf(waiting_.find(std::get<2>(*it))->second);
    if (!next) return;
    waiting_.find(next->caller.tenant)->second.last_turn = ++turns_;
    Settle(*next);
    Count(next->caller, 1);
    if (!next->turn.Set(Turn::kCome)) Count(next->caller, -1);  // it has just given up
  }
}

}  // namespace tutti::engine
