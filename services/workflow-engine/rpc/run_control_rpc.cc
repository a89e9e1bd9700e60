// What callers do to runs that there are: signal, hold, end, retry, fork.
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/adapters/run_tree.h"
#include "services/workflow-engine/domain/run_view.h"
#include "services/workflow-engine/domain/spec_search.h"
#include "services/workflow-engine/rpc/services.h"

namespace tutti::engine {
namespace {

constexpr size_t kMaxReason = 1000;

absl::Status CheckReason(const std::string& reason) {
  return reason.size() > kMaxReason ? Invalid("reason", "must have at most 1000 characters") : absl::OkStatus();
}

// A signal that fits none of the waits of its name would never be taken, or would be taken for what it is not.
absl::Status CheckSignal(const v1::WorkflowSpec& spec, const v1::SignalRunRequest& request) {
  Json payload = ToJson(request.payload());
  bool waited_for = false;
  std::set<std::string> names;
  absl::Status refusal;
  VisitSteps(spec, [&](const v1::Step& step) {
    if (!step.has_wait_for_signal()) return;
    names.insert(step.wait_for_signal().signal());
    if (step.wait_for_signal().signal() != request.signal()) return;
    if (waited_for && refusal.ok()) return;
    waited_for = true;
    refusal = absl::OkStatus();
    const auto& wait = step.wait_for_signal();
    const auto& approvers = wait.approval().approvers();
    bool may = approvers.empty() || std::find(approvers.begin(), approvers.end(), request.sender()) != approvers.end();
    if (!may) {
      refusal = Error(
          absl::StatusCode::kPermissionDenied, "NOT_AN_APPROVER",
          absl::StrCat("\"", request.sender(), "\" may not answer this; who may: ", absl::StrJoin(approvers, ", ")));
    } else if (wait.has_schema()) {
      refusal = ValidateJson(ToJson(wait.schema()), payload, "payload");
    }
  });
  // Steps that an adaptive step proposes may wait for any signal.
  if (!waited_for && !HoldsField(spec, "adaptive")) {
    return Error(absl::StatusCode::kFailedPrecondition, "UNKNOWN_SIGNAL",
                 absl::StrCat("no step of workflow ", spec.name(), " waits for signal \"", request.signal(), "\"",
                              names.empty() ? "" : absl::StrCat("; steps wait for: ", absl::StrJoin(names, ", "))));
  }
  return refusal;
}

}  // namespace

#define TUTTI_RUN_METHOD(Name)                                                                 \
  Task<absl::Status> RunRpc::Handle##Name(CallContext& call, const v1::Name##Request& request, \
                                          v1::Name##Response& response)

TUTTI_RUN_METHOD(TerminateRun) {
  TUTTI_CO_RETURN_IF_ERROR(CheckReason(request.reason()));
  state::TerminateRunRequest terminate;
  terminate.set_run_id(request.run_id());
  terminate.set_reason(request.reason());
  std::function<Task<void>(const state::StoredRun&)> on_ended = [&](const state::StoredRun& run) -> Task<void> {
    if (run.run_id() == request.run_id()) *response.mutable_run() = ToRun(run, /*with_payloads=*/false);
    co_await host_.AnnounceEnd(run.run_id(), run.parent_run_id());
  };
  absl::Status done = co_await TerminateTree(call, state_, std::move(terminate), std::move(on_ended));
  co_return done;
}

TUTTI_RUN_METHOD(PauseRun) {
  TUTTI_CO_RETURN_IF_ERROR(CheckReason(request.reason()));
  state::SetRunPausedRequest pause;
  pause.set_run_id(request.run_id());
  pause.set_paused(true);
  pause.set_reason(request.reason());
  TUTTI_CO_ASSIGN_OR_RETURN(state::SetRunPausedResponse stored, co_await state_.SetRunPaused(call, pause));
  *response.mutable_run() = ToRun(stored.run(), /*with_payloads=*/false);
  co_return absl::OkStatus();
}

TUTTI_RUN_METHOD(ResumeRun) {
  state::SetRunPausedRequest resume;
  resume.set_run_id(request.run_id());
  TUTTI_CO_ASSIGN_OR_RETURN(state::SetRunPausedResponse stored, co_await state_.SetRunPaused(call, resume));
  *response.mutable_run() = ToRun(stored.run(), /*with_payloads=*/false);
  co_return absl::OkStatus();
}

TUTTI_RUN_METHOD(SignalRun) {
  if (!IsSignalName(request.signal())) co_return Invalid("signal", "must match ^[a-z][a-z0-9_.-]{0,62}$");
  if (request.request_id().size() > 36) co_return Invalid("request_id", "must have at most 36 characters");
  if (request.sender().size() > 200) co_return Invalid("sender", "must have at most 200 characters");
  TUTTI_CO_ASSIGN_OR_RETURN(state::StoredRun run, co_await Load(call, request.run_id()));
  v1::WorkflowSpec spec;
  if (!spec.ParseFromString(run.spec().data())) co_return absl::DataLossError("the stored spec cannot be read");
  TUTTI_CO_RETURN_IF_ERROR(CheckSignal(spec, request));
  state::SignalRunRequest signal;
  signal.set_run_id(request.run_id());
  signal.mutable_signal()->set_name(request.signal());
  // A name of its own at least for the way from here: a lost answer must not make it two.
  signal.mutable_signal()->set_request_id(!request.request_id().empty() ? request.request_id()
                                          : IsUlid(call.call_id)        ? call.call_id
                                                                        : ids_.NewUlid());
  signal.mutable_signal()->set_sender(request.sender());
  ToPayload(ToJson(request.payload()), signal.mutable_signal()->mutable_payload());
  if (JsonDepth(signal.signal().payload().data()) > kMaxJsonDepth) {
    co_return Invalid("payload", "is nested deeper than 30 levels");
  }
  if (static_cast<int64_t>(signal.signal().payload().data().size()) > max_input_bytes_) {
    co_return Error(absl::StatusCode::kResourceExhausted, "PAYLOAD_TOO_LARGE",
                    absl::StrCat("the payload has more than ", max_input_bytes_, " bytes"));
  }
  TUTTI_CO_ASSIGN_OR_RETURN(state::SignalRunResponse stored, co_await state_.SignalRun(call, signal));
  response.set_offset(stored.seq());
  co_return absl::OkStatus();
}

TUTTI_RUN_METHOD(RetryRun) {
  state::ReopenRunRequest reopen;
  reopen.set_run_id(request.run_id());
  TUTTI_CO_ASSIGN_OR_RETURN(state::ReopenRunResponse stored, co_await state_.ReopenRun(call, reopen));
  *response.mutable_run() = ToRun(stored.run(), /*with_payloads=*/false);
  co_return absl::OkStatus();
}

TUTTI_RUN_METHOD(ForkRun) {
  if (request.request_id().size() > 36) co_return Invalid("request_id", "must have at most 36 characters");
  TUTTI_CO_ASSIGN_OR_RETURN(state::StoredRun original, co_await Load(call, request.run_id()));
  state::ForkRunRequest fork;
  fork.set_run_id(request.run_id());
  fork.set_from_step(request.from_step());
  state::StoredRun& run = *fork.mutable_run();
  run.set_run_id(IsUlid(call.call_id) ? call.call_id : ids_.NewUlid());
  run.set_request_id(request.request_id());
  run.set_tenant(original.tenant());
  run.set_workflow(original.workflow());
  run.set_workflow_version(original.workflow_version());
  run.set_traceparent(call.trace.ToTraceparent());
  run.set_priority(original.priority());
  run.set_forked_from(original.run_id());
  *run.mutable_labels() = original.labels();
  *run.mutable_spec() = original.spec();
  v1::WorkflowSpec spec;
  if (!spec.ParseFromString(original.spec().data())) co_return absl::DataLossError("the stored spec cannot be read");
  if (request.has_spec()) {
    TUTTI_CO_RETURN_IF_ERROR(co_await checker_.Check(call, request.spec(), "spec"));
    spec = request.spec();
    run.set_workflow(spec.name());
    run.set_workflow_version(0);
    run.mutable_spec()->set_data(spec.SerializeAsString());
  }
  run.set_pattern(PatternOf(spec));
  Json input;
  if (request.has_input()) {
    input = ToJson(request.input());
  } else {
    TUTTI_CO_ASSIGN_OR_RETURN(input, FromPayload(original.input()));
  }
  TUTTI_CO_RETURN_IF_ERROR(CheckInput(spec, input, &run));
  TUTTI_CO_ASSIGN_OR_RETURN(state::ForkRunResponse stored, co_await state_.ForkRun(call, fork));
  *response.mutable_run() = ToRun(stored.run(), /*with_payloads=*/true);
  co_return absl::OkStatus();
}

}  // namespace tutti::engine
