#include "services/standalone/standalone.h"

#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "runtime/config/load_config.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/process/service_main.h"
#include "runtime/status/macros.h"
#include "services/agent-manager/module.h"
#include "services/gateway/module.h"
#include "services/monitoring/module.h"
#include "services/state-manager/module.h"
#include "services/tool-service/module.h"
#include "services/workflow-engine/module.h"

namespace tutti {
namespace {

using tutti::config::v1::Config;

// Started in the order of need, ended in the reverse.
class Suite {
 public:
  Suite(Runtime& runtime, const Config& config) : runtime_(runtime), config_(config) {}

  ~Suite() {
    Drain(absl::Now());
    while (!modules_.empty()) modules_.pop_back();  // the last first: nobody loses what it calls
  }

  absl::Status Start() {
    for (auto* factory : {state_manager::NewStateManager, tool_service::NewToolService, agent_manager::NewAgentManager,
                          engine::NewWorkflowEngine, monitoring::NewMonitoring, gateway::NewGateway}) {
      modules_.push_back(factory(runtime_, config_, /*standalone=*/true));
      // They reach each other by the runtime's local methods.
      TUTTI_RETURN_IF_ERROR(modules_.back()->Start(Peers()));
    }
    return absl::OkStatus();
  }

  void Drain(absl::Time deadline) {
    for (auto it = modules_.rbegin(); it != modules_.rend(); ++it) (*it)->Drain(deadline);
  }

 private:
  Runtime& runtime_;
  const Config& config_;
  std::vector<std::unique_ptr<Module>> modules_;
};

int Fail(const absl::Status& status, int code) {
  std::cerr << "error: " << status.message() << "\n";
  return code;
}

}  // namespace

int RunStandalone(const std::vector<std::string>& args) {
  PrepareThreads();
  auto loaded = LoadConfig(args, getenv, EnvironmentNames());
  if (!loaded.ok()) return Fail(loaded.status(), 2);
  Config& config = loaded->config;
  if (loaded->help) {
    std::cout << "tutti up: all services in one process, on SQLite. Flags over TUTTI_* over --config over defaults.\n"
                 "Most used: --gateway.http-port, --gateway.grpc-port, --state-manager.data-dir, "
                 "--tool-service.document-roots\n"
              << FlagList();
    return 0;
  }
  if (loaded->version) {
    std::cout << "tutti " << kVersion << "\n";
    return 0;
  }
  if (config.telemetry().metrics_port() == 0) config.mutable_telemetry()->set_metrics_port(9464);
  if (config.telemetry().metrics_port() < 0) config.mutable_telemetry()->set_metrics_port(0);
  if (loaded->print) {
    std::cout << ToYaml(config);
    return 0;
  }
  Runtime runtime(config);
  runtime.ShareLoop(kLinger);
  Logger log("tutti", runtime.log_level, runtime.clock);
  auto metrics =
      MetricsEndpoint::Start(config.process().bind_address(), config.telemetry().metrics_port(), runtime.metrics);
  if (!metrics.ok()) return Fail(metrics.status(), 1);
  auto suite = std::make_unique<Suite>(runtime, config);
  if (absl::Status status = suite->Start(); !status.ok()) return Fail(status, 1);
  const std::string& endpoint = config.telemetry().otlp_endpoint();
  RpcPeer collector;  // its own, unless another is given
  if (!endpoint.empty()) collector = runtime.PeerAt(endpoint, static_cast<int>(config.process().max_message_bytes()));
  runtime.exporter.Connect(runtime.local_methods, std::move(collector));
  log.Info("ready",
           {{"version", kVersion},
            {"rest", absl::StrCat("http://", config.process().bind_address(), ":", config.gateway().http_port())},
            {"grpc", absl::StrCat(config.process().bind_address(), ":", config.gateway().grpc_port())}});
  WaitForSignal();
  log.Info("shutting down");
  EndProcessAfter(GraceOf(config) + kAfterGrace);
  runtime.exporter.FlushAndStop();
  suite->Drain(absl::Now() + absl::Seconds(config.process().shutdown_grace().seconds()));
  suite.reset();
  log.Info("stopped");
  return 0;
}

}  // namespace tutti
