// The agent-manager's gRPC services.
#pragma once

#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "services/agent-manager/adapters/text_publisher.h"
#include "services/agent-manager/domain/agent_directory.h"
#include "services/agent-manager/domain/agent_runner.h"
#include "tutti/agent/v1/agent_service.pb.h"

namespace tutti::agent_manager {

namespace v1 = tutti::agent::v1;

class AgentRpc final {
 public:
  AgentRpc(ServerEnv& env, const AgentDirectory& directory, AgentRunner& runner, IdSource& ids)
      : env_(env), directory_(directory), runner_(runner), ids_(ids) {}
  void Offer(LocalMethods& local) {
    local.Add(env_, "tutti.agent.v1.AgentService/ListAgents", *this, &AgentRpc::HandleList);
    local.Add(env_, "tutti.agent.v1.AgentService/InvokeAgent", *this, &AgentRpc::HandleInvoke);
  }

 private:
  Task<absl::Status> HandleList(CallContext& call, const v1::ListAgentsRequest& request,
                                v1::ListAgentsResponse& response);
  Task<absl::Status> HandleInvoke(CallContext& call, const v1::InvokeAgentRequest& request,
                                  v1::InvokeAgentResponse& response);
  ServerEnv& env_;
  const AgentDirectory& directory_;
  AgentRunner& runner_;
  IdSource& ids_;
};

class AgentExecutionRpc final {
 public:
  AgentExecutionRpc(ServerEnv& env, const AgentDirectory& directory, AgentRunner& runner, TextPublisher& publisher)
      : env_(env), directory_(directory), runner_(runner), publisher_(publisher) {}
  void Offer(LocalMethods& local) {
    local.Add(env_, "tutti.agent.v1.AgentExecutionService/Execute", *this, &AgentExecutionRpc::HandleExecute);
  }

 private:
  Task<absl::Status> HandleExecute(CallContext& call, const v1::ExecuteRequest& request, v1::ExecuteResponse& response);
  ServerEnv& env_;
  const AgentDirectory& directory_;
  AgentRunner& runner_;
  TextPublisher& publisher_;
};

}  // namespace tutti::agent_manager
