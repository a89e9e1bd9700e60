// Monitoring's gRPC services: its own, and OpenTelemetry's collector for traces.
#pragma once

#include <grpcpp/channel.h>

#include "opentelemetry/proto/collector/trace/v1/trace_service.grpc.pb.h"
#include "runtime/process/module.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "services/monitoring/domain/trace_store.h"
#include "tutti/monitoring/v1/monitoring_service.grpc.pb.h"
#include "tutti/state/v1/run_store_service.grpc.pb.h"

namespace tutti::monitoring {

namespace otlp = opentelemetry::proto::collector::trace::v1;

class MonitoringRpc final : public v1::MonitoringService::CallbackService {
 public:
  MonitoringRpc(ServerEnv& env, const PeerChannels& peers, const TraceStore& traces)
      : env_(env),
        peers_(peers),
        runs_(tutti::state::v1::RunStoreService::NewStub(peers.state_manager)),
        traces_(traces) {}
  void Offer(LocalMethods& local) {
    local.Add(env_, "tutti.monitoring.v1.MonitoringService/GetHealth", *this, &MonitoringRpc::HandleHealth);
    local.Add(env_, "tutti.monitoring.v1.MonitoringService/ListUsage", *this, &MonitoringRpc::HandleUsage);
    local.Add(env_, "tutti.monitoring.v1.MonitoringService/GetTrace", *this, &MonitoringRpc::HandleTrace);
  }
  grpc::ServerUnaryReactor* GetHealth(grpc::CallbackServerContext* context, const v1::GetHealthRequest* request,
                                      v1::GetHealthResponse* response) override;
  grpc::ServerUnaryReactor* ListUsage(grpc::CallbackServerContext* context, const v1::ListUsageRequest* request,
                                      v1::ListUsageResponse* response) override;
  grpc::ServerUnaryReactor* GetTrace(grpc::CallbackServerContext* context, const v1::GetTraceRequest* request,
                                     v1::GetTraceResponse* response) override;

 private:
  Task<absl::Status> HandleHealth(CallContext& call, const v1::GetHealthRequest& request,
                                  v1::GetHealthResponse& response);
  Task<absl::Status> HandleUsage(CallContext& call, const v1::ListUsageRequest& request,
                                 v1::ListUsageResponse& response);
  Task<absl::Status> HandleTrace(CallContext& call, const v1::GetTraceRequest& request, v1::GetTraceResponse& response);
  Task<v1::ServiceHealth> Ask(CallContext& call, std::string name, std::shared_ptr<grpc::Channel> channel);
  ServerEnv& env_;
  const PeerChannels peers_;
  std::unique_ptr<tutti::state::v1::RunStoreService::StubInterface> runs_;
  const TraceStore& traces_;
};

class TraceRpc final : public otlp::TraceService::CallbackService {
 public:
  // `forward` may be null.
  TraceRpc(ServerEnv& env, TraceStore& traces, std::shared_ptr<grpc::Channel> forward) : env_(env), traces_(traces) {
    if (forward) forward_ = otlp::TraceService::NewStub(forward);
  }
  grpc::ServerUnaryReactor* Export(grpc::CallbackServerContext* context, const otlp::ExportTraceServiceRequest* request,
                                   otlp::ExportTraceServiceResponse* response) override;

 private:
  Task<absl::Status> HandleExport(CallContext& call, const otlp::ExportTraceServiceRequest& request,
                                  otlp::ExportTraceServiceResponse& response);
  ServerEnv& env_;
  TraceStore& traces_;
  std::unique_ptr<otlp::TraceService::StubInterface> forward_;
};

}  // namespace tutti::monitoring
