#include "services/workflow-engine/loops/run_host.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"

namespace tutti::engine {
namespace {

constexpr int kClaimBatch = 64;
constexpr absl::Duration kRetryPause = absl::Milliseconds(500);

prometheus::Gauge& NewGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

}  // namespace

RunHost::RunHost(Options options, ServiceServer& serving, StateClient& state, AgentPort& agents, ToolPort& tools,
                 Evaluator& evaluator, const std::shared_ptr<grpc::Channel>& state_channel)
    : options_(std::move(options)), serving_(serving), state_(state), agents_(agents), tools_(tools), evaluator_(evaluator),
      journal_(state_channel, serving.loop(), serving.runtime().timers, serving.tracer(), serving.runtime().rng,
               serving.log()),
      claim_wanted_(serving.loop(), 1),
      active_gauge_(NewGauge(*serving.runtime().metrics, "tutti_engine_active_runs", "Runs this engine works on.")),
      waiting_gauge_(NewGauge(*serving.runtime().metrics, "tutti_engine_claimable_runs", "Runs waiting for an engine.")),
      ended_(prometheus::BuildCounter()
                 .Name("tutti_engine_runs_total")
                 .Help("Runs that ended here, by outcome.")
                 .Register(*serving.runtime().metrics)) {
  instance_.set_name(options_.instance);
  instance_.set_incarnation(serving.runtime().ids.NewUlid());
}

RunHost::~RunHost() { Drain(); }

void RunHost::Start() {
  journal_.Start();
  scope_.Spawn(serving_.loop(), LeaseLoop());
  scope_.Spawn(serving_.loop(), NewsLoop());
  scope_.Spawn(serving_.loop(), ClaimLoop());
}

CallContext RunHost::NewCall() {
  CallContext call(serving_.loop(), serving_.tracer());
  call.stop = stop_.get_token();
  call.trace = TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};  // housekeeping is not traced
  return call;
}

void RunHost::Drain() {
  if (stop_.stop_requested()) return;
  stop_.request_stop();
  serving_.loop().Post([this] {
    claim_wanted_.Close();
    DropAll();
  });
  scope_.CloseAndWait();
  journal_.Stop();
}

void RunHost::DropAll() {
  for (auto& [id, active] : active_) active->stop.request_stop();
}

Task<void> RunHost::LeaseLoop() {
  while (!stop_.stop_requested()) {
    CallContext call = NewCall();
    if (!registered_) {
      state::RegisterInstanceRequest request;
      *request.mutable_instance() = instance_;
      request.mutable_lease_duration()->set_seconds(absl::ToInt64Seconds(options_.lease_duration));
      request.mutable_lease_duration()->set_nanos(
          static_cast<int32_t>(absl::ToInt64Nanoseconds(options_.lease_duration % absl::Seconds(1))));
      auto answer = co_await state_.RegisterInstance(call, request);
      registered_ = answer.ok();
      if (registered_) {
        serving_.log().Info("engine registered", {{"instance", instance_.name()}});
        claim_wanted_.TryPush(true);
      }
    } else {
      state::HeartbeatRequest request;
      *request.mutable_instance() = instance_;
      auto answer = co_await state_.Heartbeat(call, request);
      if (answer.ok()) {
        claimable_ = answer->claimable_runs();
        waiting_gauge_.Set(static_cast<double>(claimable_));
        if (claimable_ > 0) claim_wanted_.TryPush(true);
      } else if (answer.status().code() == absl::StatusCode::kFailedPrecondition) {
        // The leases may belong to others by now. Begin again under a new name.
        serving_.log().Warning("lease expired; dropping all runs", {{"instance", instance_.name()}});
        registered_ = false;
        DropAll();
        instance_.set_incarnation(serving_.runtime().ids.NewUlid());
        continue;
      }
    }
    absl::Duration pause = registered_ ? options_.lease_duration / 3 : kRetryPause;
    co_await Sleep(serving_.runtime().timers, serving_.loop(), pause, stop_.get_token());
  }
  if (registered_) {
    CallContext call = NewCall();
    call.stop = std::stop_token();
    state::ReleaseInstanceRequest request;
    *request.mutable_instance() = instance_;
    auto ignored = co_await state_.ReleaseInstance(call, request);
    (void)ignored;
  }
}

Task<void> RunHost::NewsLoop() {
  while (!stop_.stop_requested()) {
    CallContext call = NewCall();
    ClientReadStream<state::WatchInstanceResponse> stream(call, absl::InfiniteDuration());
    state::WatchInstanceRequest request;
    *request.mutable_instance() = instance_;
    state_.leases().async()->WatchInstance(stream.context(), &request, &stream);
    stream.Start();
    state::WatchInstanceResponse news;
    while (co_await stream.Read(news)) {
      if (news.runs_claimable()) claim_wanted_.TryPush(true);
      if (auto it = active_.find(news.cancel_run_id()); it != active_.end()) {
        it->second->cancelled = true;
        it->second->stop.request_stop();
      }
    }
    co_await stream.Finish();
    co_await Sleep(serving_.runtime().timers, serving_.loop(), kRetryPause, stop_.get_token());
  }
}

Task<void> RunHost::ClaimLoop() {
  for (;;) {
    auto wanted = co_await claim_wanted_.Pop();
    if (!wanted.has_value() || stop_.stop_requested()) co_return;
    CallContext call = NewCall();
    absl::Status status = co_await Claim(call);
    if (!status.ok()) serving_.log().Warning("cannot claim runs", {{"error", status.message()}});
  }
}

Task<absl::Status> RunHost::Claim(CallContext& call) {
  while (registered_ && !stop_.stop_requested()) {
    int room = options_.max_active_runs - static_cast<int>(active_.size());
    if (room <= 0) co_return absl::OkStatus();
    state::ClaimRunsRequest request;
    *request.mutable_instance() = instance_;
    request.set_max_runs(std::min(room, kClaimBatch));
    TUTTI_CO_ASSIGN_OR_RETURN(state::ClaimRunsResponse answer, co_await state_.ClaimRuns(call, request));
    for (auto& run : *answer.mutable_runs()) Begin(std::move(run), /*fresh=*/false);
    if (answer.runs().empty()) co_return absl::OkStatus();
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<state::CreateRunResponse>> RunHost::CreateRun(CallContext& call, state::StoredRun run) {
  bool here = registered_ && !stop_.stop_requested() && static_cast<int>(active_.size()) < options_.max_active_runs;
  if (!here && claimable_ >= options_.max_waiting_runs) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_RUNS",
                    absl::StrCat(claimable_, " runs wait already; try again later"))
        .RetryAfter(absl::Seconds(5));
  }
  state::CreateRunRequest request;
  *request.mutable_run() = std::move(run);
  if (here) *request.mutable_owner() = instance_;
  auto answer = co_await state_.CreateRun(call, request);
  if (!answer.ok() && ReasonOf(answer.status()) == "INSTANCE_UNKNOWN") {
    // Between two leases: stored without an owner, claimed as soon as there is one.
    here = false;
    request.clear_owner();
    answer = co_await state_.CreateRun(call, request);
  }
  TUTTI_CO_RETURN_IF_ERROR(answer.status());
  if (answer->created() && here) Begin(answer->run(), /*fresh=*/true);
  co_return answer;
}

void RunHost::Begin(state::StoredRun run, bool fresh) {
  std::string run_id = run.run_id();
  auto active = std::make_shared<Active>();
  active->cancelled = run.cancel_requested();
  active_[run_id] = active;
  active_gauge_.Set(static_cast<double>(active_.size()));
  if (!scope_.Spawn(serving_.loop(), Work(std::move(run), fresh, active))) active_.erase(run_id);
}

Task<void> RunHost::Work(state::StoredRun run, bool fresh, std::shared_ptr<Active> active) {
  absl::Status status = co_await WorkOn(run, fresh, *active);
  if (auto it = active_.find(run.run_id()); it != active_.end() && it->second == active) active_.erase(it);
  active_gauge_.Set(static_cast<double>(active_.size()));
  if (!status.ok() && !stop_.stop_requested()) {
    serving_.log().Warning("run given up here", {{"run_id", run.run_id()}, {"error", status.message()}});
  }
  if (claimable_ > 0 && static_cast<int>(active_.size()) < options_.max_active_runs) claim_wanted_.TryPush(true);
}

Task<absl::StatusOr<History>> RunHost::LoadHistory(CallContext& call, const std::string& run_id) {
  History history;
  ClientReadStream<state::ReadJournalResponse> stream(call, absl::Seconds(60));
  state::ReadJournalRequest request;
  request.set_run_id(run_id);
  state_.journal().async()->ReadJournal(stream.context(), &request, &stream);
  stream.Start();
  absl::Status status;
  state::ReadJournalResponse page;
  while (co_await stream.Read(page)) {
    for (const auto& entry : page.entries()) {
      if (status.ok()) status = history.Add(entry);
    }
  }
  absl::Status ended = co_await stream.Finish();
  TUTTI_CO_RETURN_IF_ERROR(ended);
  TUTTI_CO_RETURN_IF_ERROR(status);
  co_return std::move(history);
}

// OK when the run has ended or was rightly left; an error when it could not be worked on.
Task<absl::Status> RunHost::WorkOn(const state::StoredRun& run, bool fresh, Active& active) {
  tutti::workflow::v1::WorkflowSpec spec;
  if (!spec.ParseFromString(run.spec().data())) co_return absl::DataLossError("the stored spec cannot be read");
  TUTTI_CO_ASSIGN_OR_RETURN(Json input, FromPayload(run.input()));
  History history;
  if (!fresh) {
    CallContext call = NewCall();
    TUTTI_CO_ASSIGN_OR_RETURN(history, co_await LoadHistory(call, run.run_id()));
    serving_.log().Info("run taken over", {{"run_id", run.run_id()}, {"epoch", absl::StrCat(run.lease_epoch())}});
  }
  if (history.cancel_requested()) active.cancelled = true;
  if (active.cancelled) active.stop.request_stop();

  Span span = serving_.tracer().Start(absl::StrCat("invoke_workflow ", run.workflow()), SpanKind::kInternal,
                                      TraceContext::FromTraceparent(run.traceparent()));
  span.Set("gen_ai.operation.name", "invoke_workflow");
  span.Set("gen_ai.workflow.name", run.workflow());
  span.Set("tutti.run.id", run.run_id());
  RunJournal journal(journal_, serving_.runtime().timers, serving_.loop(), run.run_id(), run.lease_epoch());
  InterpreterDeps deps{serving_.loop(), serving_.runtime().clock, serving_.runtime().timers, serving_.runtime().rng,
                       serving_.tracer(), evaluator_, agents_, tools_, journal};
  Interpreter interpreter(deps, run.run_id(), spec, std::move(input), std::move(history), span.context(),
                          active.stop.get_token());
  auto now = [&] {
    state::JournalEntry entry;
    int64_t micros = absl::ToUnixMicros(serving_.runtime().clock.Now());
    entry.mutable_time()->set_seconds(micros / 1000000);
    entry.mutable_time()->set_nanos(static_cast<int32_t>(micros % 1000000) * 1000);
    entry.set_progress_percent(interpreter.progress_percent());
    return entry;
  };
  state::JournalEntry started = now();
  started.mutable_run_started()->set_instance(instance_.name());
  started.mutable_run_started()->set_lease_epoch(run.lease_epoch());
  journal.Post(std::move(started));
  auto output = co_await interpreter.Run();
  span.SetStatus(output.status());
  if (ReasonOf(output.status()) == "LEASE_LOST") co_return output.status();
  if (active.stop.stop_requested() && !active.cancelled) co_return absl::OkStatus();  // a drain: another goes on

  state::JournalEntry finished = now();
  finished.set_progress_percent(output.ok() ? 100 : interpreter.progress_percent());
  auto* end = finished.mutable_run_finished();
  const char* outcome = "succeeded";
  if (active.cancelled && !output.ok()) {
    outcome = "cancelled";
    end->set_outcome(state::OUTCOME_CANCELLED);
    *end->mutable_error() = ToRpcStatus(Error(absl::StatusCode::kCancelled, "RUN_CANCELLED", "the run was cancelled"));
  } else if (output.ok()) {
    end->set_outcome(state::OUTCOME_SUCCEEDED);
    ToPayload(*output, end->mutable_output());
  } else {
    outcome = "failed";
    end->set_outcome(state::OUTCOME_FAILED);
    *end->mutable_error() = ToRpcStatus(output.status());
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await journal.Commit(std::move(finished)));
  ended_.Add({{"outcome", outcome}}).Increment();
  serving_.log().Info("run ended", {{"run_id", run.run_id()}, {"outcome", outcome}, {"trace_id", span.context().TraceIdHex()},
                                    {"error", output.status().message()}});
  co_return absl::OkStatus();
}

}  // namespace tutti::engine
