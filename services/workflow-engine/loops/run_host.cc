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

prometheus::Counter& NewEndCounter(prometheus::Registry& registry, const char* outcome) {
  return prometheus::BuildCounter()
      .Name("tutti_engine_runs_total")
      .Help("Runs that ended here, by outcome.")
      .Register(registry)
      .Add({{"outcome", outcome}});
}

}  // namespace

RunHost::RunHost(Options options, ServiceServer& serving, StateClient& state, AgentPort& agents, ToolPort& tools,
                 Evaluator& evaluator, Validate validate, Known known, Refresh refresh, RpcPeer state_manager)
    : options_(std::move(options)),
      serving_(serving),
      state_(state),
      agents_(agents),
      tools_(tools),
      evaluator_(evaluator),
      validate_(std::move(validate)),
      known_(std::move(known)),
      refresh_(std::move(refresh)),
      journal_(std::move(state_manager), serving.runtime().local_methods, serving.loop(), serving.runtime().clock,
               serving.runtime().timers, serving.tracer(), serving.runtime().rng, serving.log()),
      admission_(serving.loop(), serving.runtime().timers, options_.admission),
      trials_(serving.loop()),
      patterns_(*serving.runtime().metrics),
      claimable_(static_cast<size_t>(options_.max_waiting_runs)),
      claim_wanted_(serving.loop(), 1),
      active_gauge_(NewGauge(*serving.runtime().metrics, "tutti_engine_active_runs", "Runs this engine works on.")),
      waiting_gauge_(
          NewGauge(*serving.runtime().metrics, "tutti_engine_claimable_runs", "Runs waiting for an engine.")),
      queued_gauge_(NewGauge(*serving.runtime().metrics, "tutti_engine_queued_steps",
                             "Calls of agents and tools that wait for their turn.")),
      succeeded_(NewEndCounter(*serving.runtime().metrics, "succeeded")),
      failed_(NewEndCounter(*serving.runtime().metrics, "failed")),
      cancelled_(NewEndCounter(*serving.runtime().metrics, "cancelled")),
      poisoned_(NewEndCounter(*serving.runtime().metrics, "poisoned")),
      process_(serving.runtime().ids.NewUlid()) {
  instance_.set_name(options_.instance);
  instance_.set_incarnation(NewIncarnation());
}

// The store tells by its first 26 characters whether the process still lives that has lost a lease.
std::string RunHost::NewIncarnation() { return absl::StrCat(process_, ".", ++incarnations_); }

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
  call.trace =
      TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};  // housekeeping is not traced
  return call;
}

void RunHost::Drain() {
  if (stop_.stop_requested()) return;
  stop_.request_stop();
  scope_.Spawn(serving_.loop(), EndAll());
  // Work in flight ends with a last commit. When the state-manager is away that never comes: its runs are taken up
  // later.
  if (!scope_.CloseAndWaitFor(std::chrono::seconds(5)))
    serving_.log().Warning("the journal does not answer; runs are left as they are");
  journal_.Stop();
  scope_.CloseAndWait();
}

Task<void> RunHost::EndAll() {
  claim_wanted_.Close();
  trials_.Close();
  DropAll();
  co_return;
}

void RunHost::Cancel(const std::string& run_id) {
  if (auto it = active_.find(run_id); it != active_.end()) {
    it->second->cancel.request_stop();
  } else if (creating_.count(run_id) > 0) {
    cancelled_early_.insert(run_id);
  }
}

void RunHost::DropAll() {
  for (auto& [id, active] : active_) active->halt.request_stop();
}

Task<void> RunHost::LeaseLoop() {
  while (!stop_.stop_requested()) {
    CallContext call = NewCall();
    CallContext quick = call;
    quick.deadline = serving_.runtime().clock.Now() + options_.lease_duration / 4;
    (void)co_await refresh_(quick);
    if (!registered_) {
      state::RegisterInstanceRequest request;
      *request.mutable_instance() = instance_;
      request.mutable_lease_duration()->set_seconds(absl::ToInt64Seconds(options_.lease_duration));
      request.mutable_lease_duration()->set_nanos(
          static_cast<int32_t>(absl::ToInt64Nanoseconds(options_.lease_duration % absl::Seconds(1))));
      const absl::Time asked = serving_.runtime().clock.Now();
      auto answer = co_await state_.RegisterInstance(call, request);
      registered_ = answer.ok();
      if (registered_) {
        lease_end_ = asked + options_.lease_duration;
        admission_.Share(answer->rank().engines(), answer->rank().rank());
        serving_.log().Info("engine registered", {{"instance", instance_.name()}});
        claim_wanted_.TryPush(true);
      }
    } else {
      state::HeartbeatRequest request;
      *request.mutable_instance() = instance_;
      call.deadline =
          serving_.runtime().clock.Now() + options_.lease_duration / 2;  // a hung one must not outlive the lease
      const absl::Time asked = serving_.runtime().clock.Now();
      auto answer = co_await state_.Heartbeat(call, request);
      if (answer.ok()) {
        lease_end_ = asked + options_.lease_duration;
        admission_.Share(answer->rank().engines(), answer->rank().rank());
        claimable_.Assign(
            static_cast<size_t>(answer->claimable_runs()),
            std::map<std::string, size_t>(answer->claimable_by_tenant().begin(), answer->claimable_by_tenant().end()));
        waiting_gauge_.Set(static_cast<double>(claimable_.all()));
        queued_gauge_.Set(static_cast<double>(admission_.waiting()));
        for (const auto& run_id : answer->cancel_run_ids()) Cancel(run_id);
        // News may be lost, this is not. In an order that is always the same, which a message's map has not.
        const std::map<std::string, int64_t> inboxes(answer->inboxes().begin(), answer->inboxes().end());
        for (const auto& [run_id, seq] : inboxes) {
          auto it = active_.find(run_id);
          bool behind = it != active_.end() && it->second->interpreter && it->second->interpreter->inbox() < seq;
          if (behind) LookIntoInbox(run_id);
        }
        claim_wanted_.TryPush(true);  // also for runs of our own that an answer was lost for
      } else if (answer.status().code() == absl::StatusCode::kFailedPrecondition) {
        // The leases may belong to others by now. Begin again under a new name.
        serving_.log().Warning("lease expired; dropping all runs", {{"instance", instance_.name()}});
        registered_ = false;
        DropAll();
        instance_.set_incarnation(NewIncarnation());
        continue;
      }
    }
    absl::Duration pause = registered_ ? options_.lease_duration / 3 : kRetryPause;
    co_await Sleep(serving_.runtime().timers, serving_.loop(), pause, stop_.get_token());
  }
  // Not before the last commit: with the lease gone, a step that is just done would be done again elsewhere.
  for (int i = 0; i < 400 && !active_.empty(); ++i) {
    co_await Sleep(serving_.runtime().timers, serving_.loop(), absl::Milliseconds(10), std::stop_token());
  }
  if (registered_) {
    CallContext call = NewCall();
    call.stop = std::stop_token();
    call.deadline = serving_.runtime().clock.Now() + absl::Seconds(2);
    state::ReleaseInstanceRequest request;
    *request.mutable_instance() = instance_;
    auto ignored = co_await state_.ReleaseInstance(call, request);
    (void)ignored;
  }
}

Task<void> RunHost::NewsLoop() {
  while (!stop_.stop_requested()) {
    CallContext call = NewCall();
    state::WatchInstanceRequest request;
    *request.mutable_instance() = instance_;
    auto stream = state_.WatchInstance(call, request, absl::InfiniteDuration());
    state::WatchInstanceResponse news;
    while (co_await stream->Read(news)) {
      if (news.runs_claimable()) claim_wanted_.TryPush(true);
      if (!news.cancel_run_id().empty()) Cancel(news.cancel_run_id());
      if (!news.inbox_run_id().empty()) LookIntoInbox(news.inbox_run_id());
      if (auto it = active_.find(news.ended_run_id()); it != active_.end()) it->second->halt.request_stop();
    }
    co_await stream->Finish();
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
    for (const auto& [run_id, active] : active_) request.add_held_run_ids(run_id);
    for (const auto& run_id : creating_) request.add_held_run_ids(run_id);
    TUTTI_CO_ASSIGN_OR_RETURN(state::ClaimRunsResponse answer, co_await state_.ClaimRuns(call, request));
    if (answer.runs().empty()) co_return absl::OkStatus();
    for (int i = 0; i < answer.runs_size(); ++i) {
      claimable_.Leave(answer.runs(i).tenant());
      auto journal = std::make_shared<state::ReadJournalResponse>();
      if (i < answer.journals_size()) journal->Swap(answer.mutable_journals(i));
      Begin(std::move(*answer.mutable_runs(i)), std::move(journal));
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<state::CreateRunResponse>> RunHost::CreateRun(CallContext& call, state::CreateRunRequest request) {
  const int active = static_cast<int>(active_.size());
  // Beyond half of the room those that wait already have their turn first: claims share it out among tenants.
  const bool room =
      active < options_.max_active_runs && (claimable_.all() == 0 || active < options_.max_active_runs / 2);
  bool here = registered_ && !stop_.stop_requested() && room;
  const std::string tenant = request.run().tenant();
  if (!here && !claimable_.HasRoomFor(tenant)) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_RUNS",
                    absl::StrCat(claimable_.Of(tenant), " runs of the tenant wait already, ", claimable_.all(),
                                 " in all; try again later"))
        .RetryAfter(absl::Seconds(5));
  }
  // The store's answer is awaited even when the caller has gone: what it leased to us must begin.
  CallContext own = NewCall();
  own.stop = std::stop_token();
  own.trace = call.trace;
  std::string run_id = request.run().run_id();
  if (here) *request.mutable_owner() = instance_;
  creating_.insert(run_id);
  auto answer = co_await state_.CreateRun(own, request);
  if (!answer.ok() && ReasonOf(answer.status()) == "INSTANCE_UNKNOWN") {
    // Between two leases: stored without an owner, claimed as soon as there is one.
    here = false;
    request.clear_owner();
    answer = co_await state_.CreateRun(own, request);
  }
  creating_.erase(creating_.find(run_id));
  bool cancelled = cancelled_early_.contains(run_id);
  if (!creating_.contains(run_id)) cancelled_early_.erase(run_id);
  // Without an answer the run may be ours all the same: the next claim brings it.
  if (!answer.ok() || !answer->created()) claim_wanted_.TryPush(true);
  // Counted at once: the next heartbeat brings the number, and a flood must not come in between.
  if (answer.ok() && answer->created() && !here) claimable_.Enter(tenant);
  TUTTI_CO_RETURN_IF_ERROR(answer.status());
  if (answer->created() && here && !active_.contains(answer->run().run_id())) {
    if (cancelled) answer->mutable_run()->set_cancel_requested(true);
    Begin(answer->run(), nullptr);
  }
  co_return answer;
}

}  // namespace tutti::engine
