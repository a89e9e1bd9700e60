// What one process has once, and lends to the services in it.
#pragma once

#include <memory>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/random/random.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/rpc_metrics.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/otlp_exporter.h"
#include "runtime/telemetry/trace.h"
#include "runtime/time/system_time.h"

namespace prometheus {
class Registry;
}
namespace tutti::config::v1 {
class Config;
}

namespace tutti {

// Members end in the reverse order: what is used is declared before its users.
struct Runtime {
  explicit Runtime(const tutti::config::v1::Config& config);
  ~Runtime();

  SystemClock clock;
  SystemTimers timers;
  Xoshiro rng;
  IdSource ids;
  std::shared_ptr<prometheus::Registry> metrics;
  RpcMetrics rpc_metrics;
  EventLoop telemetry_loop;
  OtlpExporter exporter;
  LocalMethods local_methods;
  // Where all services of one process run, when they share a loop: a call from one to the other is then no switch of
  // threads. Null: each has its own.
  std::unique_ptr<EventLoop> shared_loop;
  LogLevel log_level;
  double sample_ratio;
  TraceBudget trace_budget;

  std::unique_ptr<Tracer> NewTracer(const std::string& service);
};

}  // namespace tutti
