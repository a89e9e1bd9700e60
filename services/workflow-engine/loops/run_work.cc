// The work on one run: its history, its walk, its end.
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/adapters/grpc_children.h"
#include "services/workflow-engine/loops/run_host.h"

namespace tutti::engine {
namespace {

constexpr absl::Duration kRetryPause = absl::Milliseconds(500);
constexpr int kAnnounceTries = 5;
constexpr size_t kMaxTenantResults = size_t{512} << 20;
constexpr absl::Duration kSettling = absl::Milliseconds(2);
constexpr absl::Duration kLongestTrial = absl::Seconds(10);

bool ForGood(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsDataLoss(status) || absl::IsNotFound(status);
}

}  // namespace

void RunHost::Begin(state::StoredRun run, std::shared_ptr<const state::ReadJournalResponse> journal) {
  std::string run_id = run.run_id();
  auto active = std::make_shared<Active>();
  active->tenant = run.tenant();
  if (run.cancel_requested()) active->cancel.request_stop();
  active_[run_id] = active;
  active_gauge_.Set(static_cast<double>(active_.size()));
  if (!scope_.Spawn(serving_.loop(), Work(std::move(run), std::move(journal), active))) active_.erase(run_id);
}

Task<void> RunHost::Work(state::StoredRun run, std::shared_ptr<const state::ReadJournalResponse> journal,
                         std::shared_ptr<Active> active) {
  absl::Status status = co_await WorkOn(run, std::move(journal), *active);
  if (auto it = active_.find(run.run_id()); it != active_.end() && it->second == active) active_.erase(it);
  active->trial.reset();
  for (auto& watcher : active->watchers) watcher->Set(nullptr);  // it goes on elsewhere, if it has not ended
  active_gauge_.Set(static_cast<double>(active_.size()));
  if (!status.ok() && !stop_.stop_requested()) {
    claim_wanted_.TryPush(true);
    serving_.log().Warning("run given up here",
                           {{"run_id", run.run_id()},
                            {"trace_id", TraceContext::FromTraceparent(run.traceparent()).TraceIdHex()},
                            {"error", status.message()}});
  }
  if (claimable_.all() > 0 && static_cast<int>(active_.size()) < options_.max_active_runs) claim_wanted_.TryPush(true);
}

Task<std::shared_ptr<const state::JournalEntry>> RunHost::AwaitEnd(CallContext& call, std::string run_id,
                                                                   absl::Time deadline) {
  auto it = active_.find(run_id);
  if (it == active_.end()) co_return nullptr;
  auto shot = std::make_shared<OneShot<End>>();
  it->second->watchers.push_back(shot);
  absl::Duration left = deadline - serving_.runtime().clock.Now();
  uint64_t timer = serving_.runtime().timers.After(left, [shot] { shot->Set(nullptr); });
  std::stop_callback on_stop(call.stop, [shot] { shot->Set(nullptr); });
  End end = co_await shot->Wait(serving_.loop());
  serving_.runtime().timers.Cancel(timer);
  co_return end;
}

void RunHost::LookIntoInbox(const std::string& run_id) {
  auto it = active_.find(run_id);
  if (it == active_.end()) return;
  if (it->second->reading_inbox) {
    it->second->read_again = true;
    return;
  }
  it->second->reading_inbox = true;
  if (!scope_.Spawn(serving_.loop(), ReadInbox(run_id, it->second))) it->second->reading_inbox = false;
}

Task<void> RunHost::ReadInbox(std::string run_id, std::shared_ptr<Active> active) {
  do {
    active->read_again = false;
    if (!active->interpreter) break;  // it reads its history itself
    CallContext call = NewCall();
    call.stop = active->halt.get_token();
    state::ReadJournalRequest request;
    request.set_run_id(run_id);
    request.set_after_seq(active->interpreter->delivered_seq());
    request.set_inbox_only(true);
    auto stream = state_.ReadJournal(call, request, absl::Seconds(10));
    state::ReadJournalResponse page;
    while (co_await stream->Read(page)) {
      for (const auto& entry : page.entries()) {
        if (active->interpreter) active->interpreter->Deliver(entry);
      }
    }
    (void)co_await stream->Finish();  // what was missed is told again with the next heartbeat
  } while (active->read_again);
  active->reading_inbox = false;
}

Task<absl::StatusOr<History>> RunHost::LoadHistory(CallContext& call, const std::string& run_id) {
  History history;
  state::ReadJournalRequest request;
  request.set_run_id(run_id);
  request.set_condensed(true);
  auto stream = state_.ReadJournal(call, request, absl::Seconds(60));
  absl::Status status;
  state::ReadJournalResponse page;
  while (co_await stream->Read(page)) {
    for (const auto& entry : page.entries()) {
      if (status.ok()) status = history.Add(entry);
    }
  }
  absl::Status ended = co_await stream->Finish();
  TUTTI_CO_RETURN_IF_ERROR(ended);
  TUTTI_CO_RETURN_IF_ERROR(status);
  co_return std::move(history);
}

// The history that came with the claim, or the one that is read until the store answers. CANCELLED: halted meanwhile.
Task<absl::StatusOr<History>> RunHost::ReadHistory(const state::StoredRun& run, const Active& active,
                                                   const state::ReadJournalResponse* known) {
  if (!known->entries().empty()) {
    History history;
    for (const auto& entry : known->entries()) TUTTI_CO_RETURN_IF_ERROR(history.Add(entry));
    co_return std::move(history);
  }
  for (absl::Duration pause = kRetryPause;; pause = std::min(pause * 2, absl::Seconds(5))) {
    CallContext call = NewCall();
    auto loaded = co_await LoadHistory(call, run.run_id());
    if (loaded.ok() || ForGood(loaded.status())) co_return loaded;
    if (!co_await Sleep(serving_.runtime().timers, serving_.loop(), pause, active.halt.get_token())) co_return loaded;
  }
}

Task<void> RunHost::AnnounceEnd(std::string run_id, std::string parent_run_id) {
  if (parent_run_id.empty()) co_return;
  state::SignalRunRequest request;
  request.set_run_id(parent_run_id);
  request.mutable_signal()->set_name(ChildEndedSignal(run_id));
  request.mutable_signal()->set_request_id(ChildEndedSignal(run_id));
  for (int i = 1; i <= kAnnounceTries; ++i) {
    CallContext call = NewCall();
    auto answer = co_await state_.SignalRun(call, request);
    if (answer.ok() || !absl::IsUnavailable(answer.status())) co_return;
    if (!co_await Sleep(serving_.runtime().timers, serving_.loop(), absl::Seconds(i), stop_.get_token())) co_return;
  }
}

std::shared_ptr<ResultMeter> RunHost::ResultsOf(const std::string& tenant) {
  std::shared_ptr<ResultMeter> meter = results_[tenant].lock();
  if (meter) return meter;
  std::erase_if(results_, [](const auto& entry) { return entry.second.expired(); });
  meter = std::make_shared<ResultMeter>(nullptr, kMaxTenantResults, "the tenant's runs on this engine");
  results_[tenant] = meter;
  return meter;
}

Task<absl::Status> RunHost::FailPoisoned(const state::StoredRun& run, absl::Status why) {
  RunJournal journal(journal_, serving_.runtime().timers, serving_.loop(), run.run_id(), run.lease_epoch());
  state::JournalEntry entry;
  ToProto(serving_.runtime().clock.Now(), entry.mutable_time());
  entry.set_progress_percent(run.progress_percent());
  entry.mutable_run_finished()->set_outcome(state::OUTCOME_FAILED);
  *entry.mutable_run_finished()->mutable_error() = ToRpcStatus(why);
  TUTTI_CO_RETURN_IF_ERROR(co_await journal.Commit(std::move(entry)));
  failed_.Increment();
  co_await AnnounceEnd(run.run_id(), run.parent_run_id());
  co_return absl::OkStatus();
}

Task<absl::Status> RunHost::PausePoisoned(const state::StoredRun& run, const absl::Status& why) {
  CallContext call = NewCall();
  state::SetRunPausedRequest request;
  request.set_run_id(run.run_id());
  request.set_paused(true);
  request.set_reason(std::string(why.message()));
  absl::StatusOr<state::SetRunPausedResponse> paused = co_await state_.SetRunPaused(call, request);
  while (absl::IsUnavailable(paused.status())) {
    bool slept = co_await Sleep(serving_.runtime().timers, serving_.loop(), kRetryPause, stop_.get_token());
    if (!slept) co_return paused.status();
    CallContext again = NewCall();
    paused = co_await state_.SetRunPaused(again, request);
  }
  TUTTI_CO_RETURN_IF_ERROR(paused.status());
  RunJournal journal(journal_, serving_.runtime().timers, serving_.loop(), run.run_id(), run.lease_epoch());
  state::JournalEntry entry;
  ToProto(serving_.runtime().clock.Now(), entry.mutable_time());
  entry.set_progress_percent(run.progress_percent());
  entry.mutable_run_parked()->set_inbox_seen(paused->run().inbox());
  absl::Status parked = co_await journal.Commit(std::move(entry));
  co_return parked;
}

Task<absl::Status> RunHost::SetAside(const state::StoredRun& run) {
  const bool pause = options_.pause_poisoned && !run.cancel_requested();  // what is to be cancelled ends
  const char* again = pause ? "resume the run" : "retry the run";
  absl::Status why = Error(absl::StatusCode::kFailedPrecondition, "POISONED",
                           absl::StrCat("set aside: ", run.strikes(),
                                        " engines in a row died while they worked on this run, without progress; see "
                                        "their logs, then ",
                                        again))
                         .Metadata("strikes", absl::StrCat(run.strikes()));
  absl::Status done;
  if (pause) {
    done = co_await PausePoisoned(run, why);
  } else {
    done = co_await FailPoisoned(run, why);
  }
  TUTTI_CO_RETURN_IF_ERROR(done);
  poisoned_.Increment();
  serving_.log().Error("run set aside", {{"run_id", run.run_id()},
                                         {"workflow", run.workflow()},
                                         {"tenant", run.tenant()},
                                         {"strikes", absl::StrCat(run.strikes())}});
  co_return absl::OkStatus();
}

Task<bool> RunHost::Settle(const Interpreter& interpreter, RunJournal& journal, Active& active, const bool& ended) {
  // Two quiet looks in a row, since what a turn of the loop begins may compute in the next one. A run that computes on
  // and on has been looked at for long enough: others wait for their trials.
  const absl::Time enough = serving_.runtime().clock.Now() + kLongestTrial;
  for (int quiet = 0; quiet < 2 && !ended && serving_.runtime().clock.Now() < enough;
       quiet = interpreter.computes() ? 0 : quiet + 1) {
    bool slept = co_await Sleep(serving_.runtime().timers, serving_.loop(), kSettling, active.halt.get_token());
    if (!slept) co_return false;
  }
  if (ended) co_return true;
  state::JournalEntry entry;
  ToProto(serving_.runtime().clock.Now(), entry.mutable_time());
  entry.set_progress_percent(interpreter.progress_percent());
  entry.mutable_run_settled();
  absl::Status told = co_await journal.Commit(std::move(entry));
  active.trial.reset();
  co_return told.ok();
}

Task<absl::StatusOr<Json>> RunHost::Walk(Interpreter& interpreter, RunJournal& journal, Active& active) {
  if (!active.trial) {
    auto output = co_await interpreter.Run();
    co_return output;
  }
  absl::StatusOr<Json> output = absl::UnknownError("not walked");
  bool ended = false;
  auto walk = [&]() -> Task<bool> {
    output = co_await interpreter.Run();
    ended = true;
    co_return output.ok();
  };
  std::vector<Task<bool>> both;
  both.push_back(walk());
  both.push_back(Settle(interpreter, journal, active, ended));
  co_await WhenAll(std::move(both));
  co_return output;
}

// OK when the run has ended or was rightly left; an error when it could not be worked on.
Task<absl::Status> RunHost::WorkOn(const state::StoredRun& run, std::shared_ptr<const state::ReadJournalResponse> known,
                                   Active& active) {
  if (known && options_.max_strikes > 0 && run.strikes() >= options_.max_strikes) {
    absl::Status aside = co_await SetAside(run);
    co_return aside;
  }
  if (known && run.strikes() > 0 && run.strikes() == options_.max_strikes - 1) {
    active.trial = co_await trials_.Enter();
    if (!active.trial || active.halt.stop_requested()) co_return absl::OkStatus();
  }
  RunJournal journal(journal_, serving_.runtime().timers, serving_.loop(), run.run_id(), run.lease_epoch());
  tutti::workflow::v1::WorkflowSpec spec;
  auto input = FromPayload(run.input());
  History history;
  absl::Status readable =
      spec.ParseFromString(run.spec().data()) ? input.status() : absl::DataLossError("the stored spec cannot be read");
  if (readable.ok() && known) {
    auto read = co_await ReadHistory(run, active, known.get());
    if (active.halt.stop_requested()) co_return absl::OkStatus();
    readable = read.status();
    if (read.ok()) history = *std::move(read);
    serving_.log().Debug("run taken up", {{"run_id", run.run_id()},
                                          {"trace_id", TraceContext::FromTraceparent(run.traceparent()).TraceIdHex()},
                                          {"epoch", absl::StrCat(run.lease_epoch())}});
  }
  if (!readable.ok()) {
    state::JournalEntry unreadable;
    unreadable.mutable_run_finished()->set_outcome(state::OUTCOME_FAILED);
    *unreadable.mutable_run_finished()->mutable_error() =
        ToRpcStatus(Prefix(readable, "the run's stored state cannot be read: "));
    absl::Status written = co_await journal.Commit(std::move(unreadable));
    co_return written;
  }
  const bool taken_up = known != nullptr;
  known.reset();
  if (history.cancel_requested()) active.cancel.request_stop();

  Span span = serving_.tracer().Start(absl::StrCat("invoke_workflow ", run.workflow()), SpanKind::kInternal,
                                      TraceContext::FromTraceparent(run.traceparent()));
  span.Set("gen_ai.operation.name", "invoke_workflow");
  span.Set("gen_ai.workflow.name", run.workflow());
  span.Set("tutti.run.id", run.run_id());
  GrpcChildren children(state_, serving_.runtime().ids, descendants_, run.tenant(), GrpcChildren::RootOf(run),
                        GrpcChildren::DepthOf(run));
  GrpcLessons lessons(state_, run.tenant());
  GrpcCache cache(state_, run.tenant());
  InterpreterDeps deps{serving_.loop(),
                       serving_.runtime().clock,
                       serving_.runtime().timers,
                       serving_.runtime().rng,
                       serving_.tracer(),
                       evaluator_,
                       admission_,
                       {agents_, tools_, children, lessons, cache, journal},
                       validate_,
                       known_,
                       specialists_,
                       &patterns_,
                       options_.park_after,
                       [this] { return lease_end_; },
                       ResultsOf(run.tenant())};
  RunSubject subject;
  subject.run_id = run.run_id();
  subject.tenant = run.tenant();
  subject.input = *std::move(input);
  if (run.has_start_time()) subject.start_time = FromProto(run.start_time());
  subject.inbox = run.inbox();
  subject.priority = run.priority();
  subject.trace = span.context();
  Interpreter interpreter(std::move(deps), std::move(subject), spec, std::move(history), active.halt.get_token(),
                          active.cancel.get_token());
  active.interpreter = &interpreter;
  // The inbox may still be read when the walk never begins.
  absl::Cleanup forget_interpreter = [&active] { active.interpreter = nullptr; };
  auto now = [&] {
    state::JournalEntry entry;
    ToProto(serving_.runtime().clock.Now(), entry.mutable_time());
    entry.set_progress_percent(interpreter.progress_percent());
    return entry;
  };
  state::JournalEntry started = now();
  started.mutable_run_started()->set_instance(instance_.name());
  started.mutable_run_started()->set_lease_epoch(run.lease_epoch());
  started.mutable_run_started()->set_expression_version(interpreter.expression_version());
  // A take-up is durable before anything happens that may end this engine as well.
  if (taken_up) {
    TUTTI_CO_RETURN_IF_ERROR(co_await journal.Commit(std::move(started)));
  } else {
    journal.Post(std::move(started));
  }
  auto output = co_await Walk(interpreter, journal, active);
  std::move(forget_interpreter).Invoke();
  span.SetStatus(output.status());
  if (EndsWalk(output.status())) {
    // Parked runs come back when they are woken; halted ones are left to others. Only what another has taken is news.
    bool left = ReasonOf(output.status()) != "LEASE_LOST" || active.halt.stop_requested();
    co_return left ? absl::OkStatus() : output.status();
  }

  state::JournalEntry finished = now();
  finished.set_progress_percent(output.ok() ? 100 : interpreter.progress_percent());
  auto* end = finished.mutable_run_finished();
  const char* outcome = "succeeded";
  prometheus::Counter* counter = &succeeded_;
  absl::Status fits = output.ok() ? CheckResult(*output, end->mutable_output()) : output.status();
  if (active.cancel.stop_requested() && !output.ok()) {
    outcome = "cancelled";
    counter = &cancelled_;
    end->set_outcome(state::OUTCOME_CANCELLED);
    *end->mutable_error() = ToRpcStatus(Error(absl::StatusCode::kCancelled, "RUN_CANCELLED", "the run was cancelled"));
  } else if (fits.ok()) {
    end->set_outcome(state::OUTCOME_SUCCEEDED);
  } else {
    end->clear_output();
    outcome = "failed";
    counter = &failed_;
    end->set_outcome(state::OUTCOME_FAILED);
    *end->mutable_error() = ToRpcStatus(fits);
  }
  const Spent& spent = interpreter.spent();
  end->mutable_spent()->set_input_tokens(spent.tokens);
  end->mutable_spent()->set_cost_nano_units(spent.cost_nano_units);
  end->mutable_spent()->set_calls(spent.calls);
  auto ended = std::make_shared<const state::JournalEntry>(finished);
  TUTTI_CO_RETURN_IF_ERROR(co_await journal.Commit(std::move(finished)));
  active.trial.reset();
  for (auto& watcher : active.watchers) watcher->Set(ended);
  counter->Increment();
  // Each end of a run is in the store, in metrics and in its trace; the log has what somebody may have to look into.
  auto log = fits.ok() ? &Logger::Debug : &Logger::Info;
  (serving_.log().*log)("run ended", {{"run_id", run.run_id()},
                                      {"outcome", outcome},
                                      {"trace_id", span.context().TraceIdHex()},
                                      {"error", fits.message()}});
  co_await AnnounceEnd(run.run_id(), run.parent_run_id());
  co_return absl::OkStatus();
}

}  // namespace tutti::engine
