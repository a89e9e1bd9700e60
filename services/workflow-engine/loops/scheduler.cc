#include "services/workflow-engine/loops/scheduler.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/adapters/run_tree.h"
#include "services/workflow-engine/domain/schedule.h"

namespace tutti::engine {
namespace {

namespace v1 = tutti::workflow::v1;

constexpr int kClaimed = 32;         // at once, side by side
constexpr size_t kTimesAtOnce = 50;  // of one schedule
// Engines in a row that die over one schedule, from the third on with nothing else due. A claim is long, and its engine
// may die for another's fault: more than a run's strikes.
constexpr int kMostStrikes = 10;
constexpr int kMostRunning = 100;  // remembered, where runs may overlap
constexpr absl::Duration kClaim = absl::Seconds(15);
constexpr absl::Duration kKeep = absl::Seconds(12);     // within the claim
constexpr absl::Duration kStarting = absl::Seconds(8);  // of which runs are started: the rest is for writing it down
constexpr absl::Duration kLongest = absl::Seconds(1);   // a schedule may be made at any moment

// The time is not over for it: another look, later. Where it is not known whether the run was stored, its request id
// tells.
bool WorthAnotherTry(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsAborted(status) ||
         absl::IsCancelled(status) || absl::IsUnknown(status) ||
         (absl::IsResourceExhausted(status) && ReasonOf(status) != "INPUT_TOO_LARGE");
}

void PauseItself(v1::Schedule& schedule, int64_t next_version, const std::string& why) {
  schedule.set_paused(true);
  schedule.set_note(absl::StrCat("paused itself: ", why));
  schedule.set_etag(absl::StrCat(next_version));
}

}  // namespace

Scheduler::Scheduler(Instance instance, ServiceServer& serving, StateClient& state, ScheduleClient& schedules,
                     StartRun start)
    : instance_(std::move(instance)),
      serving_(serving),
      state_(state),
      schedules_(schedules),
      start_(std::move(start)),
      actions_(prometheus::BuildCounter()
                   .Name("tutti_engine_schedule_times_total")
                   .Help("Times of schedules that this engine came to, by what became of them.")
                   .Register(*serving.runtime().metrics)) {
  actions_.Add({{"outcome", "set_aside"}});  // an alert sees the first one only as a rise from 0
}

void Scheduler::Start() { scope_.Spawn(serving_.loop(), Loop()); }

void Scheduler::Stop() {
  stop_.request_stop();
  scope_.CloseAndWait();
}

void Scheduler::Count(const char* outcome, int64_t by) {
  if (by > 0) actions_.Add({{"outcome", outcome}}).Increment(static_cast<double>(by));
}

Task<void> Scheduler::Loop() {
  absl::Duration pause = absl::ZeroDuration();
  bool away = false;
  while (co_await Sleep(serving_.runtime().timers, serving_.loop(), pause, stop_.get_token())) {
    pause = kLongest;
    CallContext call(serving_.loop(), serving_.tracer());
    call.stop = stop_.get_token();
    call.trace = TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};
    call.deadline = serving_.runtime().clock.Now() + absl::Seconds(5);
    auto claimed = co_await schedules_.ClaimDue(call, kClaimed, kClaim, instance_());
    if (!claimed.ok()) {
      if (!away && !stop_.stop_requested()) {
        serving_.log().Warning("schedules are not kept while the store is away",
                               {{"error", claimed.status().message()}});
      }
      away = true;
      continue;
    }
    away = false;
    std::vector<std::string> names;
    std::vector<Task<absl::Status>> work;
    for (auto& stored : claimed->schedules) {
      names.push_back(stored.schedule.name());
      work.push_back(Keep(std::move(stored)));
    }
    std::vector<absl::Status> done = co_await WhenAll(std::move(work));
    for (size_t i = 0; i < done.size(); ++i) {
      if (done[i].ok() || stop_.stop_requested()) continue;
      serving_.log().Warning("a schedule was not kept; trying again soon",
                             {{"schedule", names[i]}, {"error", done[i].message()}});
    }
    pause = names.empty() ? std::clamp(claimed->next_in, absl::Milliseconds(1), kLongest) : absl::Milliseconds(1);
  }
}

Task<absl::Status> Scheduler::Keep(StoredSchedule stored) {
  v1::Schedule& schedule = stored.schedule;
  CallContext call(serving_.loop(), serving_.tracer());
  call.stop = stop_.get_token();
  Span span = serving_.tracer().Start("schedule " + schedule.name(), SpanKind::kInternal, TraceContext());
  call.trace = span.context();
  call.actor = absl::StrCat("schedules/", schedule.name());
  call.origin = "scheduler";
  call.deadline = serving_.runtime().clock.Now() + kKeep;
  const std::string before = schedule.state().SerializeAsString();
  if (stored.strikes >= kMostStrikes) {
    PauseItself(schedule, stored.version + 1,
                absl::StrCat("set aside: ", stored.strikes,
                             " engines in a row died while they kept it; see their logs, then resume the schedule"));
    const std::string name = schedule.name(), strikes = absl::StrCat(stored.strikes);
    TUTTI_CO_RETURN_IF_ERROR(co_await Write(call, std::move(stored), before, /*paused_itself=*/true));
    Count("set_aside");
    serving_.log().Error("schedule set aside", {{"schedule", name}, {"strikes", strikes}});
    co_return absl::OkStatus();
  }
  auto times = TimesOf(schedule);
  if (times.ok()) {
    TUTTI_CO_RETURN_IF_ERROR(co_await LookAtRunning(call, schedule, stored.version));
  } else {  // it was right when it was stored: a time zone is gone
    PauseItself(schedule, stored.version + 1, std::string(times.status().message()));
  }
  const bool paused_itself = schedule.paused();
  absl::Status done;
  if (!paused_itself) done = co_await KeepTimes(call, schedule, *times, stored.now);
  // Also what was done before something failed.
  absl::Status written = co_await Write(call, std::move(stored), before, paused_itself);
  co_return done.ok() ? written : done;
}

Task<absl::Status> Scheduler::KeepTimes(CallContext& call, v1::Schedule& schedule, const CalendarTimes& times,
                                        absl::Time now) {
  v1::ScheduleState& state = *schedule.mutable_state();
  const absl::Time enough = call.deadline - (kKeep - kStarting);
  const bool together = schedule.overlap_policy() == v1::OVERLAP_POLICY_ALLOW_ALL;
  // What waits goes first, one after the other's end.
  while (!state.buffered().empty() && (together || state.running().empty())) {
    if (serving_.runtime().clock.Now() > enough) co_return absl::OkStatus();
    TUTTI_CO_RETURN_IF_ERROR(co_await StartOne(call, schedule, FromProto(state.buffered(0))));
    state.mutable_buffered()->DeleteSubrange(0, 1);
  }
  for (size_t i = 0; i < kTimesAtOnce && serving_.runtime().clock.Now() < enough; ++i) {
    const v1::ScheduleState before = state;
    std::vector<absl::Time> due = TakeDue(schedule, times, now, 1, &state);
    absl::Status done;
    if (!due.empty()) done = co_await ActOn(call, schedule, due[0]);
    if (!done.ok()) {
      state = before;  // the time is still to come
      co_return done;
    }
    Count("missed", state.missed() - before.missed());
    if (due.empty()) break;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Scheduler::LookAtRunning(CallContext& call, v1::Schedule& schedule, int64_t version) {
  v1::ScheduleState& state = *schedule.mutable_state();
  std::vector<std::string> still;
  for (const std::string& run_id : state.running()) {
    state::GetRunRequest get;
    get.set_run_id(run_id);
    auto run = co_await state_.GetRun(call, get);
    if (absl::IsNotFound(run.status())) continue;
    if (!run.ok()) co_return run.status();
    const auto outcome = run->run().outcome();
    if (outcome == state::OUTCOME_UNSPECIFIED) {
      still.push_back(run_id);
    } else if (outcome == state::OUTCOME_FAILED && schedule.pause_on_failure()) {
      PauseItself(schedule, version + 1, absl::StrCat("run ", run_id, " failed"));
    }
  }
  state.mutable_running()->Assign(still.begin(), still.end());
  co_return absl::OkStatus();
}

Task<absl::Status> Scheduler::ActOn(CallContext& call, v1::Schedule& schedule, absl::Time time) {
  v1::ScheduleState& state = *schedule.mutable_state();
  const AtTime what = Decide(schedule, state);
  if (what == AtTime::kSkip) {
    state.set_skipped(state.skipped() + 1);
    Count("skipped");
    co_return absl::OkStatus();
  }
  if (what == AtTime::kCancelAndBuffer || what == AtTime::kTerminateAndStart) {
    state.set_skipped(state.skipped() + state.buffered_size());
    Count("skipped", state.buffered_size());
    state.clear_buffered();
    const std::string reason = absl::StrCat("the next time of schedule ", schedule.name(), " has come");
    for (const std::string& run_id : state.running()) {
      absl::Status done;
      if (what == AtTime::kCancelAndBuffer) {
        state::RequestCancelRequest cancel;
        cancel.set_run_id(run_id);
        cancel.set_reason(reason);
        auto answer = co_await state_.RequestCancel(call, cancel);
        done = answer.status();
      } else {
        state::TerminateRunRequest terminate;
        terminate.set_run_id(run_id);
        terminate.set_reason(reason);
        std::function<Task<void>(const state::StoredRun&)> nobody = [](const state::StoredRun&) -> Task<void> {
          co_return;
        };
        done = co_await TerminateTree(call, state_, std::move(terminate), std::move(nobody));
      }
      if (!done.ok() && !absl::IsNotFound(done)) co_return done;
    }
    if (what == AtTime::kTerminateAndStart) state.clear_running();
  }
  if (what == AtTime::kBuffer || what == AtTime::kCancelAndBuffer) {
    ToProto(time, state.add_buffered());
    Count("buffered");
    co_return absl::OkStatus();
  }
  absl::Status started = co_await StartOne(call, schedule, time);
  co_return started;
}

Task<absl::Status> Scheduler::StartOne(CallContext& call, v1::Schedule& schedule, absl::Time time) {
  v1::ScheduleState& state = *schedule.mutable_state();
  v1::StartRunRequest request = StartOf(schedule, time);
  request.set_request_id(RequestIdOf(schedule, time));
  auto started = co_await start_(call, request);
  v1::ScheduleState::Action action;
  ToProto(time, action.mutable_scheduled_time());
  if (started.ok()) {
    action.set_run_id(started->run().run_id());
    state.set_started(state.started() + 1);
    if (state.running_size() < kMostRunning) state.add_running(action.run_id());
    Count("started");
  } else {
    if (WorthAnotherTry(started.status())) co_return started.status();
    *action.mutable_error() = ToRpcStatus(started.status());
    state.set_failed(state.failed() + 1);
    Count("failed");
    serving_.log().Error("a scheduled run could not be started",
                         {{"schedule", schedule.name()}, {"error", started.status().message()}});
  }
  AddAction(std::move(action), &state);
  co_return absl::OkStatus();
}

Task<absl::Status> Scheduler::Write(CallContext& call, StoredSchedule stored, std::string state_before,
                                    bool paused_itself) {
  const std::string name = stored.schedule.name();
  const v1::Schedule ours = stored.schedule;
  auto written = co_await schedules_.Put(call, std::move(stored), "");
  if (absl::IsNotFound(written.status())) co_return absl::OkStatus();  // removed meanwhile
  if (ReasonOf(written.status()) != "SCHEDULE_CHANGED") co_return written.status();
  auto merge = [&](v1::Schedule& schedule, absl::Time, int64_t next_version) -> absl::StatusOr<bool> {
    // Another engine has been here, after a claim that was over, or a caller has changed what waits: what was started
    // comes again under the same request ids.
    if (schedule.state().SerializeAsString() != state_before) return false;
    *schedule.mutable_state() = ours.state();
    if (paused_itself) {
      schedule.set_paused(true);
      schedule.set_note(ours.note());
      schedule.set_etag(absl::StrCat(next_version));
    }
    return true;
  };
  auto merged = co_await schedules_.Change(call, name, "", merge);
  co_return absl::IsNotFound(merged.status()) ? absl::OkStatus() : merged.status();
}

}  // namespace tutti::engine
