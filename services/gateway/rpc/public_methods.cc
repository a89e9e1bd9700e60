#include "services/gateway/rpc/public_methods.h"

#include <google/protobuf/descriptor.h>

#include "absl/strings/str_cat.h"

namespace tutti::gateway {

PublicMethods::PublicMethods(const PeerChannels& peers) {
  const std::vector<std::pair<std::string, std::shared_ptr<grpc::Channel>>> table = {
      {"tutti.workflow.v1.WorkflowService", peers.workflow_engine},
      {"tutti.workflow.v1.RunService", peers.workflow_engine},
      {"tutti.agent.v1.AgentService", peers.agent_manager},
      {"tutti.tool.v1.ToolService", peers.tool_service},
      {"tutti.monitoring.v1.MonitoringService", peers.monitoring},
  };
  for (const auto& [name, channel] : table) {
    services_.push_back(name);
    const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; service && i < service->method_count(); ++i) {
      stubs_[absl::StrCat("/", name, "/", service->method(i)->name())] = std::make_unique<grpc::GenericStub>(channel);
    }
  }
}

grpc::GenericStub* PublicMethods::StubFor(absl::string_view method) const {
  auto it = stubs_.find(std::string(method));
  return it == stubs_.end() ? nullptr : it->second.get();
}

}  // namespace tutti::gateway
