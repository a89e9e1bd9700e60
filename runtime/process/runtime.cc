#include "runtime/process/runtime.h"

#include <prometheus/registry.h>

#include "runtime/rpc/channel.h"
#include "runtime/time/system_time.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti {
namespace {

// Work that would block, where time stands still while it is done.
class InlineWorkers final : public WorkQueue {
 public:
  explicit InlineWorkers(Executor& executor) : executor_(executor) {}
  bool TryPost(absl::AnyInvocable<void()> fn) override {
    executor_.Post(std::move(fn));
    return true;
  }

 private:
  Executor& executor_;
};

}  // namespace

struct Runtime::Machine {
  SystemClock clock;
  SystemTimers timers;
  Xoshiro rng{Xoshiro::SeedFromSystem()};
  EventLoop telemetry_loop{"tutti-telemetry"};
};

Runtime::Runtime(const tutti::config::v1::Config& config)
    : machine_(std::make_unique<Machine>()),
      clock(machine_->clock),
      timers(machine_->timers),
      rng(machine_->rng),
      ids(clock, rng),
      metrics(std::make_shared<prometheus::Registry>()),
      rpc_metrics(*metrics),
      exporter({.instance = config.process().instance()}, machine_->telemetry_loop, timers, clock, rng),
      local_methods(timers),
      listens(true),
      log_level(LogLevelFromName(config.telemetry().log_level())),
      sample_ratio(config.telemetry().sample_ratio()),
      trace_budget(clock, config.telemetry().max_traces_per_second()) {}

Runtime::Runtime(const tutti::config::v1::Config& config, Surroundings given)
    : clock(given.clock),
      timers(given.timers),
      rng(given.rng),
      ids(clock, rng),
      metrics(std::make_shared<prometheus::Registry>()),
      rpc_metrics(*metrics),
      exporter({.instance = config.process().instance()}, given.loop, timers, clock, rng),
      local_methods(timers, &given.network),
      shared_loop(&given.loop),
      listens(false),
      log_level(LogLevelFromName(config.telemetry().log_level())),
      sample_ratio(config.telemetry().sample_ratio()),
      trace_budget(clock, config.telemetry().max_traces_per_second()) {}

Runtime::~Runtime() = default;

void Runtime::ShareLoop(std::chrono::microseconds linger) {
  own_shared_loop_ = std::make_unique<RpcLoop>("services", linger);
  shared_loop = own_shared_loop_.get();
  rpc_queue = &own_shared_loop_->rpc();
}

RpcPeer Runtime::PeerAt(const std::string& address, int max_message_bytes) const {
  if (!rpc_queue) return {};
  return {ConnectTo(address, max_message_bytes), &rpc_queue->queue()};
}

std::unique_ptr<Tracer> Runtime::NewTracer(const std::string& service) {
  return std::make_unique<Tracer>(service, clock, rng, &exporter, sample_ratio, &trace_budget);
}

std::unique_ptr<WorkQueue> Runtime::NewWorkers(const std::string& name, int threads, size_t max_queue) {
  if (!machine_) return std::make_unique<InlineWorkers>(*shared_loop);
  return std::make_unique<WorkerPool>(name, threads, max_queue);
}

}  // namespace tutti
