// The engine's public gRPC services.
#pragma once

#include "absl/strings/str_cat.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "runtime/status/error.h"
#include "services/workflow-engine/domain/validator.h"
#include "services/workflow-engine/loops/run_host.h"
#include "services/workflow-engine/rpc/spec_library.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::engine {

namespace v1 = tutti::workflow::v1;

// INVALID_ARGUMENT that names the field.
inline absl::Status Invalid(absl::string_view field, absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", absl::StrCat(field, ": ", what))
      .Violation(field, what);
}

// What a spec may refer to, as the other services say; a moment old at most.
class NameDirectory {
 public:
  NameDirectory(GrpcAgents& agents, GrpcTools& tools, const Clock& clock)
      : agents_(agents), tools_(tools), clock_(clock) {}
  Task<absl::StatusOr<KnownNames>> Get(CallContext& call);
  // As they were when they were last asked for.
  const KnownNames& known() const { return known_; }

 private:
  GrpcAgents& agents_;
  GrpcTools& tools_;
  const Clock& clock_;
  KnownNames known_;
  absl::Time read_time_ = absl::InfinitePast();
};

// What both services do with a spec.
class SpecChecker {
 public:
  // Checks large specs on `worker`, so that compiling their expressions keeps nobody waiting. Null: where it is called.
  SpecChecker(NameDirectory& names, Evaluator& evaluator, Executor* worker)
      : names_(names), evaluator_(evaluator), worker_(worker) {}
  // INVALID_ARGUMENT: fields are named below `field`.
  Task<absl::Status> Check(CallContext& call, const v1::WorkflowSpec& spec, std::string field);

 private:
  NameDirectory& names_;
  Evaluator& evaluator_;
  Executor* const worker_;
  Evaluator large_;  // the worker's own
};

class WorkflowRpc final {
 public:
  WorkflowRpc(ServerEnv& env, StateClient& state, SpecChecker& checker);
  ~WorkflowRpc();

  void Offer(LocalMethods& local);

 private:
  Task<absl::Status> HandleCreate(CallContext& call, const v1::CreateWorkflowRequest& request,
                                  v1::CreateWorkflowResponse& response);
  Task<absl::Status> HandleGet(CallContext& call, const v1::GetWorkflowRequest& request,
                               v1::GetWorkflowResponse& response);
  Task<absl::Status> HandleList(CallContext& call, const v1::ListWorkflowsRequest& request,
                                v1::ListWorkflowsResponse& response);
  Task<absl::Status> HandlePlan(CallContext& call, const v1::PlanWorkflowRequest& request,
                                v1::PlanWorkflowResponse& response);
  Task<absl::Status> HandleDiff(CallContext& call, const v1::DiffWorkflowRequest& request,
                                v1::DiffWorkflowResponse& response);
  ServerEnv& env_;
  StateClient& state_;
  SpecChecker& checker_;
};

class RunRpc final {
 public:
  RunRpc(ServerEnv& env, StateClient& state, SpecChecker& checker, RunHost& host, SpecLibrary& library, IdSource& ids,
         int64_t max_input_bytes);
  ~RunRpc();

  void Offer(LocalMethods& local);

  // As StartRun, without waiting. On the service's loop.
  Task<absl::StatusOr<state::CreateRunResponse>> Create(CallContext& call, const v1::StartRunRequest& request);
  // Whether Create would take a request of a stored workflow.
  Task<absl::Status> CheckStart(CallContext& call, const v1::StartRunRequest& request);

 private:
  Task<absl::Status> HandleStart(CallContext& call, const v1::StartRunRequest& request, v1::StartRunResponse& response);
  Task<absl::Status> HandleGet(CallContext& call, const v1::GetRunRequest& request, v1::GetRunResponse& response);
  Task<absl::Status> HandleList(CallContext& call, const v1::ListRunsRequest& request, v1::ListRunsResponse& response);
  Task<absl::Status> HandleCancel(CallContext& call, const v1::CancelRunRequest& request,
                                  v1::CancelRunResponse& response);
  Task<absl::Status> HandleTerminateRun(CallContext& call, const v1::TerminateRunRequest& request,
                                        v1::TerminateRunResponse& response);
  Task<absl::Status> HandlePauseRun(CallContext& call, const v1::PauseRunRequest& request,
                                    v1::PauseRunResponse& response);
  Task<absl::Status> HandleResumeRun(CallContext& call, const v1::ResumeRunRequest& request,
                                     v1::ResumeRunResponse& response);
  Task<absl::Status> HandleSignalRun(CallContext& call, const v1::SignalRunRequest& request,
                                     v1::SignalRunResponse& response);
  Task<absl::Status> HandleRetryRun(CallContext& call, const v1::RetryRunRequest& request,
                                    v1::RetryRunResponse& response);
  Task<absl::Status> HandleForkRun(CallContext& call, const v1::ForkRunRequest& request, v1::ForkRunResponse& response);
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchRunRequest& request,
                                 StreamWriter<v1::WatchRunResponse>& writer);
  absl::Status CheckInput(const v1::WorkflowSpec& spec, const Json& input, state::StoredRun* run) const;
  // The run's row, with what it was started with.
  Task<absl::StatusOr<state::StoredRun>> Load(CallContext& call, std::string run_id);
  // Until the run has ended, or the deadline; the run then.
  Task<absl::Status> AwaitEnd(CallContext& call, absl::Time deadline, v1::Run* run);
  ServerEnv& env_;
  StateClient& state_;
  SpecChecker& checker_;
  RunHost& host_;
  SpecLibrary& library_;
  IdSource& ids_;
  const int64_t max_input_bytes_;
};

}  // namespace tutti::engine
