#include "services/agent-manager/adapters/grpc_tools.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::agent_manager {

Task<absl::StatusOr<std::vector<ToolSpec>>> GrpcAgentTools::Describe(CallContext& call,
                                                                     std::vector<std::string> names) {
  if (clock_.Now() - read_time_ > absl::Seconds(10)) {
    tutti::tool::v1::ListToolsRequest request;
    tutti::tool::v1::ListToolsResponse response;
    request.set_page_size(1000);
    TUTTI_CO_RETURN_IF_ERROR(co_await CallUnary(local_, call, peer_, "tutti.tool.v1.ToolService/ListTools", request,
                                                response, absl::Seconds(5)));
    known_.clear();
    for (const auto& tool : response.tools()) {
      known_.push_back({tool.name(), tool.description(), ToJson(tool.parameters_schema())});
    }
    read_time_ = clock_.Now();
  }
  std::vector<ToolSpec> out;
  for (const auto& name : names) {
    auto it = std::find_if(known_.begin(), known_.end(), [&](const ToolSpec& tool) { return tool.name == name; });
    if (it == known_.end()) {
      co_return Error(absl::StatusCode::kFailedPrecondition, "TOOL_NOT_FOUND",
                      absl::StrCat("the agent's tool \"", name, "\" does not exist"));
    }
    out.push_back(*it);
  }
  co_return out;
}

Task<absl::StatusOr<Json>> GrpcAgentTools::Call(CallContext& call, std::string tool, Json arguments,
                                                std::string idempotency_key) {
  tutti::tool::v1::ExecuteRequest request;
  request.set_tool(tool);
  request.set_idempotency_key(idempotency_key);
  ToPayload(arguments, request.mutable_parameters());
  Span span = call.tracer->Start(absl::StrCat("execute_tool ", tool), SpanKind::kInternal, call.trace);
  span.Set("gen_ai.operation.name", "execute_tool");
  span.Set("gen_ai.tool.name", tool);
  CallContext child = call;
  child.trace = span.context();
  tutti::tool::v1::ExecuteResponse response;
  absl::Status status = co_await CallUnary(local_, child, peer_, "tutti.tool.v1.ToolExecutionService/Execute",
                                           std::move(request), response, absl::InfiniteDuration());
  span.SetStatus(status);
  TUTTI_CO_RETURN_IF_ERROR(status);
  auto result = FromPayload(response.result());
  co_return result;
}

}  // namespace tutti::agent_manager
