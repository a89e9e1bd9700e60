#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/agent-manager/rpc/services.h"

namespace tutti::agent_manager {

Task<absl::Status> AgentRpc::HandleList(CallContext&, const v1::ListAgentsRequest& request,
                                        v1::ListAgentsResponse& response) {
  TUTTI_CO_ASSIGN_OR_RETURN(int page_size, PageSize(request.page_size()));
  TUTTI_CO_ASSIGN_OR_RETURN(std::string after, DecodePageToken(request.page_token(), "agents"));
  for (auto it = directory_.agents().upper_bound(after); it != directory_.agents().end(); ++it) {
    if (response.agents_size() == page_size) {
      response.set_next_page_token(EncodePageToken(response.agents().rbegin()->name(), "agents"));
      break;
    }
    *response.add_agents() = it->second;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> AgentRpc::HandleInvoke(CallContext& call, const v1::InvokeAgentRequest& request,
                                          v1::InvokeAgentResponse& response) {
  TUTTI_CO_ASSIGN_OR_RETURN(const v1::Agent* agent, directory_.Find(request.agent()));
  if (!request.has_input()) {
    co_return Error(absl::StatusCode::kInvalidArgument, "MISSING_FIELD", "input must be set")
        .Violation("input", "must be set");
  }
  TUTTI_CO_ASSIGN_OR_RETURN(AgentResult result,
                            co_await runner_.Run(call, *agent, ToJson(request.input()), ids_.NewUlid()));
  ToProto(result.output, response.mutable_output());
  for (auto& usage : result.usage) *response.add_usage() = std::move(usage);
  co_return absl::OkStatus();
}

Task<absl::Status> AgentExecutionRpc::HandleExecute(CallContext& call, const v1::ExecuteRequest& request,
                                                    v1::ExecuteResponse& response) {
  const v1::Agent* agent = nullptr;
  if (request.has_definition()) {
    agent = &request.definition();
  } else {
    TUTTI_CO_ASSIGN_OR_RETURN(agent, directory_.Find(request.agent()));
  }
  TUTTI_CO_ASSIGN_OR_RETURN(Json input, FromPayload(request.input()));
  std::shared_ptr<TextPublisher::Speech> speech;  // once something is said
  auto on_text = [&](int turn, absl::string_view piece) {
    if (!speech) speech = publisher_.Open(request, agent->name());
    if (speech) speech->Say(turn, piece);
  };
  auto ran = co_await runner_.Run(call, *agent, std::move(input), request.idempotency_key(), on_text);
  if (speech) co_await speech->End();
  TUTTI_CO_ASSIGN_OR_RETURN(AgentResult result, std::move(ran));
  ToPayload(result.output, response.mutable_output());
  for (auto& usage : result.usage) *response.add_usage() = std::move(usage);
  co_return absl::OkStatus();
}

}  // namespace tutti::agent_manager
