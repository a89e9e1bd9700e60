// Monitoring's gRPC services: its own, and OpenTelemetry's collector for traces.
#pragma once

#include "opentelemetry/proto/collector/trace/v1/trace_service.pb.h"
#include "runtime/process/module.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/readiness.h"
#include "runtime/rpc/server_calls.h"
#include "services/monitoring/domain/trace_store.h"
#include "tutti/monitoring/v1/monitoring_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::monitoring {

namespace otlp = opentelemetry::proto::collector::trace::v1;

class MonitoringRpc final {
 public:
  MonitoringRpc(ServerEnv& env, const LocalMethods& local, const Peers& peers, const TraceStore& traces,
                ReadinessBoard& readiness)
      : env_(env), local_(local), peers_(peers), traces_(traces), readiness_(readiness) {}
  void Offer(LocalMethods& local) {
    local.Add(env_, "tutti.monitoring.v1.MonitoringService/GetHealth", *this, &MonitoringRpc::HandleHealth);
    local.Add(env_, "tutti.monitoring.v1.MonitoringService/ListUsage", *this, &MonitoringRpc::HandleUsage);
    local.Add(env_, "tutti.monitoring.v1.MonitoringService/GetTrace", *this, &MonitoringRpc::HandleTrace);
  }

 private:
  Task<absl::Status> HandleHealth(CallContext& call, const v1::GetHealthRequest& request,
                                  v1::GetHealthResponse& response);
  Task<absl::Status> HandleUsage(CallContext& call, const v1::ListUsageRequest& request,
                                 v1::ListUsageResponse& response);
  Task<absl::Status> HandleTrace(CallContext& call, const v1::GetTraceRequest& request, v1::GetTraceResponse& response);
  Task<v1::ServiceHealth> Ask(CallContext& call, std::string name, RpcPeer peer);
  ServerEnv& env_;
  const LocalMethods& local_;
  const Peers peers_;
  const TraceStore& traces_;
  ReadinessBoard& readiness_;
};

class TraceRpc final {
 public:
  // `forward` may have no channel.
  TraceRpc(ServerEnv& env, TraceStore& traces, RpcPeer forward)
      : env_(env), traces_(traces), forward_(std::move(forward)) {}
  void Offer(LocalMethods& local) { local.Add(env_, kExport, *this, &TraceRpc::HandleExport); }

 private:
  static constexpr char kExport[] = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
  Task<absl::Status> HandleExport(CallContext& call, const otlp::ExportTraceServiceRequest& request,
                                  otlp::ExportTraceServiceResponse& response);
  ServerEnv& env_;
  TraceStore& traces_;
  const RpcPeer forward_;
};

}  // namespace tutti::monitoring
