// The tools of the tool-service.
#pragma once

#include <memory>

#include "runtime/rpc/local_methods.h"
#include "services/agent-manager/ports/model_provider.h"
#include "tutti/tool/v1/tool_service.pb.h"

namespace tutti::agent_manager {

class GrpcAgentTools final : public AgentTools {
 public:
  GrpcAgentTools(RpcPeer tool_service, const LocalMethods& local, const Clock& clock)
      : local_(local), peer_(std::move(tool_service)), clock_(clock) {}
  Task<absl::StatusOr<std::vector<ToolSpec>>> Describe(CallContext& call, std::vector<std::string> names) override;
  Task<absl::StatusOr<Json>> Call(CallContext& call, std::string tool, Json arguments,
                                  std::string idempotency_key) override;

 private:
  const LocalMethods& local_;
  const RpcPeer peer_;
  const Clock& clock_;
  std::vector<ToolSpec> known_;
  absl::Time read_time_ = absl::InfinitePast();
};

}  // namespace tutti::agent_manager
