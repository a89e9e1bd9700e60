#include "services/gateway/rpc/public_methods.h"

#include <google/protobuf/descriptor.h>

#include "absl/strings/str_cat.h"
#include "google/api/annotations.pb.h"
#include "tutti/agent/v1/agent_service.pb.h"
#include "tutti/monitoring/v1/monitoring_service.pb.h"
#include "tutti/state/v1/audit_service.pb.h"
#include "tutti/state/v1/budget_service.pb.h"
#include "tutti/state/v1/context_service.pb.h"
#include "tutti/state/v1/conversation_service.pb.h"
#include "tutti/state/v1/memory_service.pb.h"
#include "tutti/tool/v1/tool_service.pb.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/schedule_service.pb.h"
#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::gateway {

PublicMethods::PublicMethods(const PeerChannels& peers) {
  // By a message of each contract's file, not by name: the linker leaves out what nobody mentions.
  const std::vector<std::pair<const google::protobuf::FileDescriptor*, std::shared_ptr<grpc::Channel>>> table = {
      {tutti::workflow::v1::CreateWorkflowRequest::descriptor()->file(), peers.workflow_engine},
      {tutti::workflow::v1::StartRunRequest::descriptor()->file(), peers.workflow_engine},
      {tutti::workflow::v1::CreateScheduleRequest::descriptor()->file(), peers.workflow_engine},
      {tutti::agent::v1::InvokeAgentRequest::descriptor()->file(), peers.agent_manager},
      {tutti::tool::v1::CallToolRequest::descriptor()->file(), peers.tool_service},
      {tutti::monitoring::v1::GetHealthRequest::descriptor()->file(), peers.monitoring},
      {tutti::state::v1::CreateContextRequest::descriptor()->file(), peers.state_manager},
      {tutti::state::v1::StoreMemoryRequest::descriptor()->file(), peers.state_manager},
      {tutti::state::v1::CreateConversationRequest::descriptor()->file(), peers.state_manager},
      {tutti::state::v1::SetBudgetRequest::descriptor()->file(), peers.state_manager},
      {tutti::state::v1::ListAuditRecordsRequest::descriptor()->file(), peers.state_manager},
  };
  for (const auto& [file, channel] : table) {
    const auto* service = file->service(0);  // the public one stands first in its file
    const std::string& name = service->full_name();
    services_.push_back(name);
    for (int i = 0; i < service->method_count(); ++i) {
      // What has no REST binding is for the other services only.
      if (!service->method(i)->options().HasExtension(google::api::http)) continue;
      stubs_[absl::StrCat("/", name, "/", service->method(i)->name())] = std::make_unique<grpc::GenericStub>(channel);
    }
  }
}

grpc::GenericStub* PublicMethods::StubFor(absl::string_view method) const {
  auto it = stubs_.find(std::string(method));
  return it == stubs_.end() ? nullptr : it->second.get();
}

}  // namespace tutti::gateway
