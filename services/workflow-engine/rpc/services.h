// The engine's public gRPC services.
#pragma once

#include "runtime/rpc/server_calls.h"
#include "services/workflow-engine/domain/validator.h"
#include "services/workflow-engine/loops/run_host.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::engine {

namespace v1 = tutti::workflow::v1;

// What a spec may refer to, as the other services say; a moment old at most.
class NameDirectory {
 public:
  NameDirectory(GrpcAgents& agents, GrpcTools& tools, const Clock& clock)
      : agents_(agents), tools_(tools), clock_(clock) {}
  Task<absl::StatusOr<KnownNames>> Get(CallContext& call);

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
  SpecChecker(NameDirectory& names, Evaluator& evaluator) : names_(names), evaluator_(evaluator) {}
  // INVALID_ARGUMENT: fields are named below `field`.
  Task<absl::Status> Check(CallContext& call, const v1::WorkflowSpec& spec, std::string field);

 private:
  NameDirectory& names_;
  Evaluator& evaluator_;
};

class WorkflowRpc final : public v1::WorkflowService::CallbackService {
 public:
  WorkflowRpc(ServerEnv& env, StateClient& state, SpecChecker& checker) : env_(env), state_(state), checker_(checker) {}
  grpc::ServerUnaryReactor* CreateWorkflow(grpc::CallbackServerContext* context,
                                           const v1::CreateWorkflowRequest* request,
                                           v1::CreateWorkflowResponse* response) override;
  grpc::ServerUnaryReactor* GetWorkflow(grpc::CallbackServerContext* context, const v1::GetWorkflowRequest* request,
                                        v1::GetWorkflowResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkflows(grpc::CallbackServerContext* context, const v1::ListWorkflowsRequest* request,
                                          v1::ListWorkflowsResponse* response) override;

 private:
  Task<absl::Status> HandleCreate(CallContext& call, const v1::CreateWorkflowRequest& request,
                                  v1::CreateWorkflowResponse& response);
  Task<absl::Status> HandleGet(CallContext& call, const v1::GetWorkflowRequest& request,
                               v1::GetWorkflowResponse& response);
  Task<absl::Status> HandleList(CallContext& call, const v1::ListWorkflowsRequest& request,
                                v1::ListWorkflowsResponse& response);
  ServerEnv& env_;
  StateClient& state_;
  SpecChecker& checker_;
};

class RunRpc final : public v1::RunService::CallbackService {
 public:
  RunRpc(ServerEnv& env, StateClient& state, SpecChecker& checker, RunHost& host, IdSource& ids,
         int64_t max_input_bytes)
      : env_(env), state_(state), checker_(checker), host_(host), ids_(ids), max_input_bytes_(max_input_bytes) {}
  grpc::ServerUnaryReactor* StartRun(grpc::CallbackServerContext* context, const v1::StartRunRequest* request,
                                     v1::StartRunResponse* response) override;
  grpc::ServerUnaryReactor* GetRun(grpc::CallbackServerContext* context, const v1::GetRunRequest* request,
                                   v1::GetRunResponse* response) override;
  grpc::ServerUnaryReactor* ListRuns(grpc::CallbackServerContext* context, const v1::ListRunsRequest* request,
                                     v1::ListRunsResponse* response) override;
  grpc::ServerUnaryReactor* CancelRun(grpc::CallbackServerContext* context, const v1::CancelRunRequest* request,
                                      v1::CancelRunResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchRunResponse>* WatchRun(grpc::CallbackServerContext* context,
                                                           const v1::WatchRunRequest* request) override;

 private:
  Task<absl::Status> HandleStart(CallContext& call, const v1::StartRunRequest& request, v1::StartRunResponse& response);
  Task<absl::Status> HandleGet(CallContext& call, const v1::GetRunRequest& request, v1::GetRunResponse& response);
  Task<absl::Status> HandleList(CallContext& call, const v1::ListRunsRequest& request, v1::ListRunsResponse& response);
  Task<absl::Status> HandleCancel(CallContext& call, const v1::CancelRunRequest& request,
                                  v1::CancelRunResponse& response);
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchRunRequest& request,
                                 StreamWriter<v1::WatchRunResponse>& writer);
  // The definition a request names, checked when it is the request's own.
  Task<absl::Status> Resolve(CallContext& call, const v1::StartRunRequest& request, state::StoredRun* run,
                             v1::WorkflowSpec* spec);
  ServerEnv& env_;
  StateClient& state_;
  SpecChecker& checker_;
  RunHost& host_;
  IdSource& ids_;
  const int64_t max_input_bytes_;
};

}  // namespace tutti::engine
