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

void Admission::Share(int engines, int rank) {
  if (engines < 1 || rank < 0 || rank >= engines) return;
  auto part = [&](int all) { return all <= 0 ? all : std::max(1, all / engines + (rank < all % engines ? 1 : 0)); };
  limits_.per_tenant = part(given_.per_tenant);
  limits_.per_workflow = part(given_.per_workflow);
  limits_.per_target = part(given_.per_target);
  AdmitWaiting();
}

bool Admission::HasRoom(const Caller& caller) const {
  return !Full(limits_.total, total_) &&
         !(limits_.per_tenant > 0 && Full(limits_.per_tenant, Of(tenants_, caller.tenant))) &&
         !(limits_.per_workflow > 0 && Full(limits_.per_workflow, Of(workflows_, caller.workflow))) &&
         !(limits_.per_target > 0 && Full(limits_.per_target, Of(targets_, caller.target))) &&
         !(limits_.per_run > 0 && Full(limits_.per_run, Of(runs_, caller.run_id))) &&
         !(caller.run_limit > 0 && Full(caller.run_limit, Of(runs_, caller.run_id)));
}

Admission::Kind Admission::KindOf(const Caller& caller) const {
  Kind kind;
  if (limits_.per_workflow > 0) kind.workflow = caller.workflow;
  if (limits_.per_target > 0) kind.target = caller.target;
  if (limits_.per_run > 0 || caller.run_limit > 0) kind.run_id = caller.run_id;
  return kind;
}

void Admission::Count(const Caller& caller, int by) {
  total_ += by;
  Add(tenants_, caller.tenant, by);
  Add(workflows_, caller.workflow, by);
  Add(targets_, caller.target, by);
  Add(runs_, caller.run_id, by);
  if (auto line = waiting_.find(caller.tenant); line != waiting_.end()) {
    Place(line, Of(tenants_, caller.tenant), line->second.last_turn);
  }
}

void Admission::Place(Lines::iterator line, int under_way, uint64_t last_turn) {
  auto& [tenant, of] = *line;
  order_.erase({of.under_way, of.last_turn, tenant});
  of.under_way = under_way;
  of.last_turn = last_turn;
  order_.emplace(under_way, last_turn, tenant);
}

Task<absl::StatusOr<Admission::Permit>> Admission::Enter(Caller caller, Patience patience) {
  // Who comes now does not overtake who waits for the same: with nobody waiting there is nobody to overtake.
  if (waiting_.empty() && HasRoom(caller)) {
    Count(caller, 1);
    co_return Permit(*this, std::move(caller));
  }
  if (!waiting_room_.HasRoomFor(caller.tenant)) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_STEPS",
                    absl::StrCat(waiting_room_.Of(caller.tenant), " calls of the tenant wait for their turn already, ",
                                 waiting_room_.all(), " in all; try again later"))
        .RetryAfter(absl::Seconds(1));
  }
  auto waiter = std::make_shared<Waiter>();
  waiter->caller = std::move(caller);
  waiter->kind = KindOf(waiter->caller);
  waiter->arrival = ++arrivals_;
  auto line = waiting_.try_emplace(waiter->caller.tenant).first;
  Place(line, Of(tenants_, waiter->caller.tenant), line->second.last_turn);
  auto& queue = line->second.by_priority[waiter->caller.priority][waiter->kind];
  waiter->place = queue.insert(queue.end(), waiter);
  waiting_room_.Enter(waiter->caller.tenant);
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
  auto queues = line->second.by_priority.find(waiter.caller.priority);
  auto queue = queues->second.find(waiter.kind);
  queue->second.erase(waiter.place);
  if (queue->second.empty()) queues->second.erase(queue);
  if (queues->second.empty()) line->second.by_priority.erase(queues);
  if (line->second.by_priority.empty()) {
    order_.erase({line->second.under_way, line->second.last_turn, line->first});
    waiting_.erase(line);
  }
  waiting_room_.Leave(waiter.caller.tenant);
  waiter.settled = true;
}

std::shared_ptr<Admission::Waiter> Admission::NextOf(const Line& line) const {
  for (const auto& [priority, queues] : line.by_priority) {
    std::shared_ptr<Waiter> first;
    for (const auto& [kind, queue] : queues) {
      const auto& waiter = queue.front();
      // What is blocked by a limit of its own (a run's, a target's) does not block who stands behind it.
      if ((!first || waiter->arrival < first->arrival) && HasRoom(waiter->caller)) first = waiter;
    }
    if (first) return first;
  }
  return nullptr;
}

void Admission::AdmitWaiting() {
  while (!Full(limits_.total, total_)) {
    std::shared_ptr<Waiter> next;
    for (auto it = order_.begin(); it != order_.end() && !next; ++it)
      next = NextOf(waiting_.find(std::get<2>(*it))->second);
    if (!next) return;
    auto line = waiting_.find(next->caller.tenant);
    Place(line, line->second.under_way, ++turns_);
    Settle(*next);
    Count(next->caller, 1);
    if (!next->turn.Set(Turn::kCome)) Count(next->caller, -1);  // it has just given up
  }
}

}  // namespace tutti::engine
