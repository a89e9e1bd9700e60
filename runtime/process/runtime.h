// What one process has once, and lends to the services in it.
#pragma once

#include <memory>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/random/random.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/readiness.h"
#include "runtime/rpc/rpc_metrics.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/otlp_exporter.h"
#include "runtime/telemetry/trace.h"
#include "runtime/time/clock.h"

namespace prometheus {
class Registry;
}
namespace tutti::config::v1 {
class Config;
}

namespace tutti {

// Members end in the reverse order: what is used is declared before its users.
struct Runtime {
 private:
  // The machine's clock, timers and random numbers; null where others are given.
  struct Machine;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<RpcLoop> own_shared_loop_;  // the exporter's calls end there

 public:
  // What a process has of the outside world, where it is not the machine's: a simulator's. All outlive the runtime.
  struct Surroundings {
    const Clock& clock;
    TimerService& timers;
    Rng& rng;
    Executor& loop;          // where everything runs, also what else has threads of its own
    MethodCarrier& network;  // how other processes are reached: nobody listens
  };

  explicit Runtime(const tutti::config::v1::Config& config);
  Runtime(const tutti::config::v1::Config& config, Surroundings given);
  ~Runtime();

  const Clock& clock;
  TimerService& timers;
  Rng& rng;
  IdSource ids;
  std::shared_ptr<prometheus::Registry> metrics;
  RpcMetrics rpc_metrics;
  OtlpExporter exporter;
  LocalMethods local_methods;
  ReadinessBoard readiness;  // of the services in this process
  // Where all services of one process run, when they share a loop: a call from one to the other is then no switch of
  // threads. Null: each has its own.
  Executor* shared_loop = nullptr;
  // Where the ends of calls to other processes arrive; null until ShareLoop.
  RpcQueue* rpc_queue = nullptr;
  // Whether services have ports and channels of gRPC.
  const bool listens;
  LogLevel log_level;
  double sample_ratio;
  TraceBudget trace_budget;

  // From now on all services share a loop, which looks for work for `linger` before it sleeps.
  void ShareLoop(std::chrono::microseconds linger);
  // A lazy connection to the process at `host:port`; none where there is no shared loop with a queue.
  RpcPeer PeerAt(const std::string& address, int max_message_bytes) const;
  std::unique_ptr<Tracer> NewTracer(const std::string& service);
  // For work that blocks.
  std::unique_ptr<WorkQueue> NewWorkers(const std::string& name, int threads, size_t max_queue);
};

}  // namespace tutti
