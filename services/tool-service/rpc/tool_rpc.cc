#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/tool-service/rpc/services.h"

namespace tutti::tool_service {

Task<absl::StatusOr<Json>> ToolRunner::Run(CallContext& call, std::string tool, Json parameters,
                                           std::string idempotency_key) {
  ToolCallInfo info{std::move(idempotency_key), call.deadline, call.stop};
  if (auto known = catalogue_.tools().find(tool); known != catalogue_.tools().end() && known->second->async()) {
    TUTTI_CO_RETURN_IF_ERROR(catalogue_.Find(tool, parameters).status());
    auto answer = co_await known->second->CallAsync(call, std::move(parameters), std::move(info));
    co_return answer;
  }
  OneShot<absl::StatusOr<Json>> done;
  bool posted = pool_.TryPost([&] {
    if (info.given_up(clock_.Now())) {
      done.Set(absl::CancelledError("the call was given up while it waited"));
    } else {
      done.Set(catalogue_.Call(tool, parameters, info));
    }
  });
  if (!posted) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOOLS_BUSY", "too many tool calls wait; try again later")
        .RetryAfter(absl::Seconds(1));
  }
  auto result = co_await done.Wait(*call.executor);
  co_return std::move(result);
}

Task<absl::Status> ToolRpc::HandleList(CallContext&, const v1::ListToolsRequest& request,
                                       v1::ListToolsResponse& response) {
  TUTTI_CO_ASSIGN_OR_RETURN(int page_size, PageSize(request.page_size()));
  TUTTI_CO_ASSIGN_OR_RETURN(std::string after, DecodePageToken(request.page_token(), "tools"));
  for (auto it = catalogue_.tools().upper_bound(after); it != catalogue_.tools().end(); ++it) {
    if (response.tools_size() == page_size) {
      response.set_next_page_token(EncodePageToken(response.tools().rbegin()->name(), "tools"));
      break;
    }
    auto* tool = response.add_tools();
    tool->set_name(it->first);
    tool->set_description(it->second->description());
    ToProto(it->second->parameters_schema(), tool->mutable_parameters_schema());
    tool->set_idempotent(it->second->idempotent());
  }
  co_return absl::OkStatus();
}

Task<absl::Status> ToolRpc::HandleCall(CallContext& call, const v1::CallToolRequest& request,
                                       v1::CallToolResponse& response) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json result, co_await runner_.Run(call, request.tool(), ToJson(request.parameters()), ""));
  ToProto(result, response.mutable_result());
  co_return absl::OkStatus();
}

Task<absl::Status> ToolExecutionRpc::HandleExecute(CallContext& call, const v1::ExecuteRequest& request,
                                                   v1::ExecuteResponse& response) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json parameters, FromPayload(request.parameters()));
  if (parameters.is_null()) parameters = Json::object();
  TUTTI_CO_ASSIGN_OR_RETURN(
      Json result, co_await runner_.Run(call, request.tool(), std::move(parameters), request.idempotency_key()));
  ToPayload(result, response.mutable_result());
  co_return absl::OkStatus();
}

}  // namespace tutti::tool_service
