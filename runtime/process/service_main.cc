#include "runtime/process/service_main.h"

#include <grpc/support/log.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/async/thread.h"
#include "runtime/config/load_config.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/rpc/call_streams.h"
#include "runtime/rpc/channel.h"
#include "runtime/status/error.h"

namespace tutti {

namespace {
// gRPC's own messages, by the way the rest of a process says things. That a port is taken RpcServer says better.
void SayForGrpc(gpr_log_func_args* args) {
  if (absl::EndsWith(args->file, "chttp2_server.cc")) return;
  std::cerr << "grpc: " << args->message << "\n";
}
}  // namespace

void PrepareThreads() {
  gpr_set_log_function(SayForGrpc);
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  RunInBackground();
  // Debian builds Abseil with its search for deadlocks, which takes 1 % of all time in gRPC's mutexes.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

void WaitForSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  int received = 0;
  sigwait(&signals, &received);
}

absl::Duration GraceOf(const tutti::config::v1::Config& config) {
  const auto& grace = config.process().shutdown_grace();
  return absl::Seconds(grace.seconds()) + absl::Nanoseconds(grace.nanos());
}

void EndProcessAfter(absl::Duration limit) {
  signal(SIGALRM, [](int) {
    static constexpr char kWords[] = "error: not done after the grace period; ended as it is\n";
    if (write(STDERR_FILENO, kWords, sizeof kWords - 1) < 0) _exit(3);
    _exit(3);
  });
  alarm(static_cast<unsigned>(std::max<int64_t>(1, absl::ToInt64Seconds(absl::Ceil(limit, absl::Seconds(1))))));
}

struct MetricsEndpoint::Impl {
  std::unique_ptr<prometheus::Exposer> exposer;
  std::shared_ptr<prometheus::Registry> registry;
};

MetricsEndpoint::MetricsEndpoint() : impl_(std::make_unique<Impl>()) {}
MetricsEndpoint::~MetricsEndpoint() = default;

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const std::string& address, int port, std::shared_ptr<prometheus::Registry> registry) {
  std::unique_ptr<MetricsEndpoint> out(new MetricsEndpoint());
  if (port == 0) return out;
  out->impl_->registry = std::move(registry);
  try {
    out->impl_->exposer = std::make_unique<prometheus::Exposer>(absl::StrCat(address, ":", port), 1);
    out->impl_->exposer->RegisterCollectable(out->impl_->registry);
  } catch (const std::exception& e) {
    return Error(
        absl::StatusCode::kUnavailable, "PORT_TAKEN",
        absl::StrCat("metrics: cannot listen on ", address, ":", port,
                     " (another process has the port?); choose another with --telemetry.metrics-port, -1 is off"));
  }
  return out;
}

namespace {

int Fail(const absl::Status& status, int code) {
  std::cerr << "error: " << status.message() << "\n";
  return code;
}

int DefaultMetricsPort(const std::string& name) {
  static const std::map<std::string, int> kPorts = {{"gateway", 10090},       {"workflow-engine", 10091},
                                                    {"agent-manager", 10092}, {"tool-service", 10093},
                                                    {"state-manager", 10094}, {"monitoring", 10095}};
  auto it = kPorts.find(name);
  return it == kPorts.end() ? 0 : it->second;
}

}  // namespace

int ServiceMain(int argc, char** argv, const std::string& name, const ModuleFactory& factory) {
  PrepareThreads();
  auto loaded = LoadConfig({argv + 1, argv + argc}, getenv, EnvironmentNames());
  if (!loaded.ok()) return Fail(loaded.status(), 2);
  auto& config = loaded->config;
  if (loaded->version) {
    std::cout << "tutti-" << name << " " << kVersion << "\n";
    return 0;
  }
  if (loaded->help) {
    std::cout << "tutti-" << name << ": one service of Tutti. Flags over TUTTI_* over --config over defaults.\n"
              << FlagList();
    return 0;
  }
  bool metrics_given = config.telemetry().metrics_port() != 0;
  if (!metrics_given) config.mutable_telemetry()->set_metrics_port(DefaultMetricsPort(name));
  if (config.telemetry().metrics_port() < 0) config.mutable_telemetry()->set_metrics_port(0);
  if (loaded->print) {
    std::cout << ToYaml(config);
    return 0;
  }
  Runtime runtime(config);
  Logger log(name, runtime.log_level, runtime.clock);
  runtime.ShareLoop(/*linger=*/{});
  const auto& address = config.peers();
  int limit = static_cast<int>(config.process().max_message_bytes());
  Peers peers{runtime.PeerAt(address.gateway(), limit),           runtime.PeerAt(address.workflow_engine(), limit),
              runtime.PeerAt(address.agent_manager(), limit),     runtime.PeerAt(address.tool_service(), limit),
              runtime.PeerAt(address.state_manager(), 2 * limit), runtime.PeerAt(address.monitoring(), limit)};
  auto tracer = runtime.NewTracer(name);
  const auto bytes = static_cast<size_t>(limit);
  CallStreams others({{"tutti.workflow.v1", peers.workflow_engine, bytes},
                      {"tutti.agent.v1", peers.agent_manager, bytes},
                      {"tutti.tool.v1", peers.tool_service, bytes},
                      {"tutti.state.v1", peers.state_manager, 2 * bytes},
                      {"tutti.monitoring.v1", peers.monitoring, bytes}},
                     *runtime.shared_loop, runtime.clock, runtime.timers, runtime.rng, *tracer);
  runtime.local_methods.ReachOthersBy(others);
  auto metrics =
      MetricsEndpoint::Start(config.process().bind_address(), config.telemetry().metrics_port(), runtime.metrics);
  if (!metrics.ok()) return Fail(metrics.status(), 1);
  auto module = factory(runtime, config, /*standalone=*/false);
  if (absl::Status status = module->Start(peers); !status.ok()) return Fail(status, 1);
  if (!config.telemetry().otlp_endpoint().empty()) {
    runtime.exporter.Connect(runtime.local_methods, runtime.PeerAt(config.telemetry().otlp_endpoint(), limit));
  }
  log.Info("ready", {{"version", kVersion}});
  WaitForSignal();
  log.Info("shutting down");
  EndProcessAfter(GraceOf(config) + kAfterGrace);
  module->Drain(absl::Now() + absl::Seconds(config.process().shutdown_grace().seconds()));
  others.Stop();
  runtime.exporter.FlushAndStop();
  module.reset();
  log.Info("stopped");
  return 0;
}

}  // namespace tutti
