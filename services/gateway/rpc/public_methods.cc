#include "services/gateway/rpc/public_methods.h"

#include <google/protobuf/descriptor.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "google/api/annotations.pb.h"
#include "tutti/agent/v1/agent_service.pb.h"
#include "tutti/monitoring/v1/monitoring_service.pb.h"
#include "tutti/state/v1/audit_service.pb.h"
#include "tutti/state/v1/budget_service.pb.h"
#include "tutti/state/v1/context_service.pb.h"
#include "tutti/state/v1/conversation_service.pb.h"
#include "tutti/state/v1/memory_service.pb.h"
#include "tutti/state/v1/message_service.pb.h"
#include "tutti/tool/v1/tool_service.pb.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/schedule_service.pb.h"
#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::gateway {
PublicMethods::PublicMethods(const Peers& peers) {
  // By a message of each contract's file, not by name: the linker leaves out what nobody mentions.
  const std::vector<std::pair<const google::protobuf::FileDescriptor*, RpcPeer>> table = {
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
      {tutti::state::v1::ListSetAsideMessagesRequest::descriptor()->file(), peers.state_manager},
  };
  for (const auto& [file, peer] : table) {
    const auto* service = file->service(0);  // the public one stands first in its file
    const std::string& name = service->full_name();
    services_.push_back(name);
    for (int i = 0; i < service->method_count(); ++i) {
      // What has no REST binding is for the other services only.
      if (!service->method(i)->options().HasExtension(google::api::http)) continue;
      const auto* method = service->method(i);
      std::string full_name = absl::StrCat("/", name, "/", method->name());
      methods_.try_emplace(full_name, full_name, peer, !method->client_streaming() && !method->server_streaming());
    }
  }
}

const PublicMethod* PublicMethods::Find(absl::string_view method) const {
  auto it = methods_.find(std::string(method));
  return it == methods_.end() ? nullptr : &it->second;
}

std::unique_ptr<ReadStream<grpc::ByteBuffer>> PublicMethod::Open(CallContext& call, grpc::ByteBuffer request) const {
  return OpenStream<grpc::ByteBuffer>(call, peer_, name_.substr(1), std::move(request), absl::InfiniteDuration());
}

}  // namespace tutti::gateway
