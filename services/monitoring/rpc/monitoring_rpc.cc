#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "runtime/async/when_all.h"
#include "runtime/process/service_main.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/monitoring/rpc/services.h"

namespace tutti::monitoring {

Task<v1::ServiceHealth> MonitoringRpc::Ask(CallContext& call, std::string name, RpcPeer peer) {
  v1::ServiceHealth out;
  out.set_name(name);
  if (!peer) {  // in this process
    absl::Status ready = readiness_.Of(name).Get();
    out.set_status(ready.ok() ? "SERVING" : "NOT_SERVING");
    out.set_message(std::string(ready.message()));
    co_return out;
  }
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  absl::Time start = env_.clock.Now();
  std::string method = "grpc.health.v1.Health/Check";
  absl::Status status = co_await CallUnary(call, peer, std::move(method), request, response, absl::Seconds(1));
  absl::Duration latency = env_.clock.Now() - start;
  out.mutable_latency()->set_seconds(absl::ToInt64Seconds(latency));
  out.mutable_latency()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(latency % absl::Seconds(1))));
  if (!status.ok()) {
    out.set_status("UNREACHABLE");
    out.set_message(std::string(status.message()));
  } else {
    bool serving = response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
    out.set_status(serving ? "SERVING" : "NOT_SERVING");
  }
  co_return out;
}

Task<absl::Status> MonitoringRpc::HandleHealth(CallContext& call, const v1::GetHealthRequest&,
                                               v1::GetHealthResponse& response) {
  std::vector<Task<v1::ServiceHealth>> asked;
  asked.push_back(Ask(call, "agent-manager", peers_.agent_manager));
  asked.push_back(Ask(call, "gateway", peers_.gateway));
  asked.push_back(Ask(call, "monitoring", peers_.monitoring));
  asked.push_back(Ask(call, "state-manager", peers_.state_manager));
  asked.push_back(Ask(call, "tool-service", peers_.tool_service));
  asked.push_back(Ask(call, "workflow-engine", peers_.workflow_engine));
  std::vector<v1::ServiceHealth> answers = co_await WhenAll(std::move(asked));
  response.set_status("SERVING");
  response.set_version(kVersion);
  for (auto& answer : answers) {
    if (answer.status() != "SERVING") response.set_status("NOT_SERVING");
    *response.add_services() = std::move(answer);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> MonitoringRpc::HandleUsage(CallContext& call, const v1::ListUsageRequest& request,
                                              v1::ListUsageResponse& response) {
  tutti::state::v1::ListUsageRequest list;
  list.set_run_id(request.run_id());
  list.set_group_by(!request.group_by().empty() ? request.group_by() : request.run_id().empty() ? "run" : "step");
  if (request.has_start_time()) *list.mutable_start_time() = request.start_time();
  TUTTI_CO_ASSIGN_OR_RETURN(int page_size, PageSize(request.page_size()));
  list.set_page_size(page_size);
  tutti::state::v1::ListUsageResponse stored;
  TUTTI_CO_RETURN_IF_ERROR(co_await CallUnary(
      local_, call, peers_.state_manager, "tutti.state.v1.RunStoreService/ListUsage", list, stored, absl::Seconds(10)));
  for (const auto& row : stored.rows()) {
    auto* out = response.add_rows();
    out->set_key(row.key());
    *out->mutable_totals() = row.totals();
  }
  co_return absl::OkStatus();
}

Task<absl::Status> MonitoringRpc::HandleTrace(CallContext&, const v1::GetTraceRequest& request,
                                              v1::GetTraceResponse& response) {
  std::vector<v1::Span> spans = traces_.Find(absl::AsciiStrToLower(request.trace_id()));
  if (spans.empty()) {
    co_return Error(
        absl::StatusCode::kNotFound, "TRACE_NOT_FOUND",
        absl::StrCat("trace ", request.trace_id(), " is not among the recent ones (spans arrive a second late)"));
  }
  for (auto& span : spans) *response.add_spans() = std::move(span);
  co_return absl::OkStatus();
}

}  // namespace tutti::monitoring
