// Agents and tools behind their services.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "runtime/rpc/local_methods.h"
#include "services/workflow-engine/ports/effects.h"
#include "tutti/agent/v1/agent_service.pb.h"
#include "tutti/tool/v1/tool_service.pb.h"

namespace tutti::engine {

class GrpcAgents final : public AgentPort {
 public:
  GrpcAgents(RpcPeer agent_manager, const LocalMethods& local) : local_(local), peer_(std::move(agent_manager)) {}
  Task<absl::StatusOr<AgentAnswer>> Execute(CallContext& call, Attempt attempt, std::string agent,
                                            const tutti::agent::v1::Agent* definition, Json input) override;
  // The configured agents by name, with their roles.
  Task<absl::StatusOr<std::map<std::string, std::string>>> Names(CallContext& call);

 private:
  const LocalMethods& local_;
  const RpcPeer peer_;
};

class GrpcTools final : public ToolPort {
 public:
  GrpcTools(RpcPeer tool_service, const LocalMethods& local) : local_(local), peer_(std::move(tool_service)) {}
  Task<absl::StatusOr<Json>> Execute(CallContext& call, Attempt attempt, std::string tool, Json parameters) override;
  // The tools by name, with what they do.
  Task<absl::StatusOr<std::map<std::string, std::string>>> Names(CallContext& call);

 private:
  const LocalMethods& local_;
  const RpcPeer peer_;
};

}  // namespace tutti::engine
