// The tools of the tool-service.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "runtime/rpc/local_methods.h"
#include "services/agent-manager/ports/model_provider.h"
#include "tutti/tool/v1/tool_service.grpc.pb.h"

namespace tutti::agent_manager {

class GrpcAgentTools final : public AgentTools {
 public:
  GrpcAgentTools(const std::shared_ptr<grpc::Channel>& channel, const LocalMethods& local, const Clock& clock)
      : local_(local),
        service_(tutti::tool::v1::ToolService::NewStub(channel)),
        execution_(tutti::tool::v1::ToolExecutionService::NewStub(channel)),
        clock_(clock) {}
  Task<absl::StatusOr<std::vector<ToolSpec>>> Describe(CallContext& call, std::vector<std::string> names) override;
  Task<absl::StatusOr<Json>> Call(CallContext& call, std::string tool, Json arguments,
                                  std::string idempotency_key) override;

 private:
  const LocalMethods& local_;
  std::unique_ptr<tutti::tool::v1::ToolService::StubInterface> service_;
  std::unique_ptr<tutti::tool::v1::ToolExecutionService::StubInterface> execution_;
  const Clock& clock_;
  std::vector<ToolSpec> known_;
  absl::Time read_time_ = absl::InfinitePast();
};

}  // namespace tutti::agent_manager
