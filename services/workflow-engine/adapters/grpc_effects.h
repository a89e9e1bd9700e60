// Agents and tools behind their services.
#pragma once

#include <grpcpp/channel.h>

#include <map>
#include <memory>
#include <string>

#include "runtime/rpc/local_methods.h"
#include "services/workflow-engine/ports/effects.h"
#include "tutti/agent/v1/agent_service.grpc.pb.h"
#include "tutti/tool/v1/tool_service.grpc.pb.h"

namespace tutti::engine {

class GrpcAgents final : public AgentPort {
 public:
  GrpcAgents(const std::shared_ptr<grpc::Channel>& channel, const LocalMethods& local)
      : local_(local),
        execution_(tutti::agent::v1::AgentExecutionService::NewStub(channel)),
        service_(tutti::agent::v1::AgentService::NewStub(channel)) {}
  Task<absl::StatusOr<AgentAnswer>> Execute(CallContext& call, Attempt attempt, std::string agent,
                                            const tutti::agent::v1::Agent* definition, Json input) override;
  // The configured agents by name, with their roles.
  Task<absl::StatusOr<std::map<std::string, std::string>>> Names(CallContext& call);

 private:
  const LocalMethods& local_;
  std::unique_ptr<tutti::agent::v1::AgentExecutionService::StubInterface> execution_;
  std::unique_ptr<tutti::agent::v1::AgentService::StubInterface> service_;
};

class GrpcTools final : public ToolPort {
 public:
  GrpcTools(const std::shared_ptr<grpc::Channel>& channel, const LocalMethods& local)
      : local_(local),
        execution_(tutti::tool::v1::ToolExecutionService::NewStub(channel)),
        service_(tutti::tool::v1::ToolService::NewStub(channel)) {}
  Task<absl::StatusOr<Json>> Execute(CallContext& call, Attempt attempt, std::string tool, Json parameters) override;
  // The tools by name, with what they do.
  Task<absl::StatusOr<std::map<std::string, std::string>>> Names(CallContext& call);

 private:
  const LocalMethods& local_;
  std::unique_ptr<tutti::tool::v1::ToolExecutionService::StubInterface> execution_;
  std::unique_ptr<tutti::tool::v1::ToolService::StubInterface> service_;
};

}  // namespace tutti::engine
