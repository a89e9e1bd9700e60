#include "services/monitoring/module.h"

#include "absl/strings/str_cat.h"
#include "runtime/process/service_server.h"
#include "services/monitoring/rpc/services.h"

namespace tutti::monitoring {
namespace {

class Monitoring final : public Module {
 public:
  Monitoring(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone)
      : config_(config),
        standalone_(standalone),
        traces_(static_cast<size_t>(std::max(1, config.monitoring().max_traces())),
                static_cast<size_t>(std::max(1, config.monitoring().max_spans_per_trace()))),
        serving_(runtime, "monitoring", /*alone=*/true) {}
  ~Monitoring() override { Drain(absl::Now()); }

  absl::Status Start(const Peers& peers) override {
    const auto& options = config_.monitoring();
    RpcPeer forward;
    int limit = static_cast<int>(config_.process().max_message_bytes());
    if (!options.forward_otlp_endpoint().empty()) {
      forward = serving_.runtime().PeerAt(options.forward_otlp_endpoint(), limit);
    }
    monitoring_rpc_ = std::make_unique<MonitoringRpc>(serving_.env(), serving_.runtime().local_methods, peers, traces_,
                                                      serving_.runtime().readiness);
    trace_rpc_ = std::make_unique<TraceRpc>(serving_.env(), traces_, std::move(forward));
    monitoring_rpc_->Offer(serving_.runtime().local_methods);
    trace_rpc_->Offer(serving_.runtime().local_methods);
    RpcServer::Options server;
    if (!standalone_) server.address = absl::StrCat(config_.process().bind_address(), ":", options.grpc_port());
    server.port_flag = "--monitoring.grpc-port";
    server.max_message_bytes = limit;
    server.reflected = {"tutti.monitoring.v1.MonitoringService", "opentelemetry.proto.collector.trace.v1.TraceService"};
    return serving_.Serve(std::move(server));
  }
  void Drain(absl::Time deadline) override { serving_.Drain(deadline); }

 private:
  const tutti::config::v1::Config& config_;
  const bool standalone_;
  TraceStore traces_;
  ServiceServer serving_;
  std::unique_ptr<MonitoringRpc> monitoring_rpc_;
  std::unique_ptr<TraceRpc> trace_rpc_;
};

}  // namespace

std::unique_ptr<Module> NewMonitoring(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return std::make_unique<Monitoring>(runtime, config, standalone);
}

}  // namespace tutti::monitoring
