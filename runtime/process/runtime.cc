#include "runtime/process/runtime.h"

#include <prometheus/registry.h>

#include "tutti/config/v1/config.pb.h"

namespace tutti {

Runtime::Runtime(const tutti::config::v1::Config& config)
    : rng(Xoshiro::SeedFromSystem()),
      ids(clock, rng),
      metrics(std::make_shared<prometheus::Registry>()),
      rpc_metrics(*metrics),
      telemetry_loop("tutti-telemetry"),
      exporter({.instance = config.process().instance()}, telemetry_loop, timers, clock, rng),
      local_methods(timers),
      log_level(LogLevelFromName(config.telemetry().log_level())),
      sample_ratio(config.telemetry().sample_ratio()),
      trace_budget(clock, config.telemetry().max_traces_per_second()) {}

Runtime::~Runtime() = default;

std::unique_ptr<Tracer> Runtime::NewTracer(const std::string& service) {
  return std::make_unique<Tracer>(service, clock, rng, &exporter, sample_ratio, &trace_budget);
}

}  // namespace tutti
