// What makes the services: here, for gRPC's class templates are instantiated wherever a service is constructed or
// destroyed, which takes the compiler ten seconds.
#include "services/workflow-engine/rpc/services.h"

namespace tutti::engine {

WorkflowRpc::WorkflowRpc(ServerEnv& env, StateClient& state, SpecChecker& checker)
    : env_(env), state_(state), checker_(checker) {}
WorkflowRpc::~WorkflowRpc() = default;

RunRpc::RunRpc(ServerEnv& env, StateClient& state, SpecChecker& checker, RunHost& host, SpecLibrary& library,
               IdSource& ids, int64_t max_input_bytes)
    : env_(env),
      state_(state),
      checker_(checker),
      host_(host),
      library_(library),
      ids_(ids),
      max_input_bytes_(max_input_bytes) {}
RunRpc::~RunRpc() = default;

void RunRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.workflow.v1.RunService/StartRun", *this, &RunRpc::HandleStart);
  local.Add(env_, "tutti.workflow.v1.RunService/GetRun", *this, &RunRpc::HandleGet);
  local.Add(env_, "tutti.workflow.v1.RunService/ListRuns", *this, &RunRpc::HandleList);
  local.Add(env_, "tutti.workflow.v1.RunService/CancelRun", *this, &RunRpc::HandleCancel);
  local.Add(env_, "tutti.workflow.v1.RunService/SignalRun", *this, &RunRpc::HandleSignalRun);
  local.Add(env_, "tutti.workflow.v1.RunService/TerminateRun", *this, &RunRpc::HandleTerminateRun);
  local.Add(env_, "tutti.workflow.v1.RunService/PauseRun", *this, &RunRpc::HandlePauseRun);
  local.Add(env_, "tutti.workflow.v1.RunService/ResumeRun", *this, &RunRpc::HandleResumeRun);
  local.Add(env_, "tutti.workflow.v1.RunService/RetryRun", *this, &RunRpc::HandleRetryRun);
  local.Add(env_, "tutti.workflow.v1.RunService/ForkRun", *this, &RunRpc::HandleForkRun);
  local.AddStream(env_, "tutti.workflow.v1.RunService/WatchRun", *this, &RunRpc::HandleWatch);
}

void WorkflowRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.workflow.v1.WorkflowService/CreateWorkflow", *this, &WorkflowRpc::HandleCreate);
  local.Add(env_, "tutti.workflow.v1.WorkflowService/GetWorkflow", *this, &WorkflowRpc::HandleGet);
  local.Add(env_, "tutti.workflow.v1.WorkflowService/ListWorkflows", *this, &WorkflowRpc::HandleList);
  local.Add(env_, "tutti.workflow.v1.WorkflowService/PlanWorkflow", *this, &WorkflowRpc::HandlePlan);
  local.Add(env_, "tutti.workflow.v1.WorkflowService/DiffWorkflow", *this, &WorkflowRpc::HandleDiff);
}

}  // namespace tutti::engine
