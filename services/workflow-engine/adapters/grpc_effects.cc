#include "services/workflow-engine/adapters/grpc_effects.h"

#include "absl/strings/str_cat.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/status/macros.h"

namespace tutti::engine {
namespace {
constexpr absl::Duration kListTimeout = absl::Seconds(5);
constexpr absl::Duration kNoOwnTimeout = absl::InfiniteDuration();  // the step's deadline bounds the call
}  // namespace

Task<absl::StatusOr<AgentAnswer>> GrpcAgents::Execute(CallContext& call, Attempt attempt, std::string agent,
                                                      const tutti::agent::v1::Agent* definition, Json input) {
  tutti::agent::v1::ExecuteRequest request;
  request.set_run_id(attempt.run_id);
  request.set_step_path(attempt.step_path);
  request.set_idempotency_key(attempt.idempotency_key);
  if (definition) {
    *request.mutable_definition() = *definition;
  } else {
    request.set_agent(agent);
  }
  ToPayload(input, request.mutable_input());
  Span span = call.tracer->Start(absl::StrCat("invoke_agent ", agent), SpanKind::kInternal, call.trace);
  span.Set("gen_ai.operation.name", "invoke_agent");
  span.Set("gen_ai.agent.name", agent);
  span.Set("tutti.step.path", attempt.step_path);
  CallContext child = call;
  child.trace = span.context();
  tutti::agent::v1::ExecuteResponse response;
  absl::Status status = co_await CallUnary(local_, child, peer_, "tutti.agent.v1.AgentExecutionService/Execute",
                                           std::move(request), response, kNoOwnTimeout);
  span.SetStatus(status);
  TUTTI_CO_RETURN_IF_ERROR(status);
  AgentAnswer answer;
  TUTTI_CO_ASSIGN_OR_RETURN(answer.output, FromPayload(response.output()));
  answer.usage.assign(response.usage().begin(), response.usage().end());
  co_return answer;
}

Task<absl::StatusOr<std::map<std::string, std::string>>> GrpcAgents::Names(CallContext& call) {
  std::map<std::string, std::string> names;
  tutti::agent::v1::ListAgentsRequest request;
  request.set_page_size(1000);
  do {
    tutti::agent::v1::ListAgentsResponse response;
    TUTTI_CO_RETURN_IF_ERROR(co_await CallUnary(local_, call, peer_, "tutti.agent.v1.AgentService/ListAgents", request,
                                                response, kListTimeout));
    for (const auto& agent : response.agents()) names[agent.name()] = agent.role();
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  co_return names;
}

Task<absl::StatusOr<Json>> GrpcTools::Execute(CallContext& call, Attempt attempt, std::string tool, Json parameters) {
  tutti::tool::v1::ExecuteRequest request;
  request.set_tool(tool);
  request.set_idempotency_key(attempt.idempotency_key);
  ToPayload(parameters, request.mutable_parameters());
  Span span = call.tracer->Start(absl::StrCat("execute_tool ", tool), SpanKind::kInternal, call.trace);
  span.Set("gen_ai.operation.name", "execute_tool");
  span.Set("gen_ai.tool.name", tool);
  span.Set("tutti.step.path", attempt.step_path);
  CallContext child = call;
  child.trace = span.context();
  tutti::tool::v1::ExecuteResponse response;
  absl::Status status = co_await CallUnary(local_, child, peer_, "tutti.tool.v1.ToolExecutionService/Execute",
                                           std::move(request), response, kNoOwnTimeout);
  span.SetStatus(status);
  TUTTI_CO_RETURN_IF_ERROR(status);
  auto result = FromPayload(response.result());
  co_return result;
}

Task<absl::StatusOr<std::map<std::string, std::string>>> GrpcTools::Names(CallContext& call) {
  std::map<std::string, std::string> names;
  tutti::tool::v1::ListToolsRequest request;
  request.set_page_size(1000);
  do {
    tutti::tool::v1::ListToolsResponse response;
    TUTTI_CO_RETURN_IF_ERROR(co_await CallUnary(local_, call, peer_, "tutti.tool.v1.ToolService/ListTools", request,
                                                response, kListTimeout));
    for (const auto& tool : response.tools()) names[tool.name()] = tool.description();
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  co_return names;
}

}  // namespace tutti::engine
