// Checks once a second that the databases answer and take writes, and tells health checks.
#pragma once

#include <stop_token>

#include "runtime/async/scope.h"
#include "runtime/rpc/readiness.h"
#include "runtime/telemetry/log.h"
#include "services/state-manager/store/shards.h"

namespace tutti::state_manager {

class Pulse {
 public:
  Pulse(const Shards& shards, Readiness& readiness, const Clock& clock, TimerService& timers, Executor& executor,
        Logger& log)
      : shards_(shards), readiness_(readiness), clock_(clock), timers_(timers), executor_(executor), log_(log) {}
  ~Pulse() { Stop(); }

  void Start() { scope_.Spawn(executor_, Loop()); }
  void Stop() {
    stop_.request_stop();
    scope_.CloseAndWait();
  }

 private:
  Task<void> Loop();
  // Returns the first database's error. RESOURCE_EXHAUSTED with DISK_FULL: the disk is full, and the database can only
  // be read.
  Task<absl::Status> Look();

  const Shards& shards_;
  Readiness& readiness_;
  const Clock& clock_;
  TimerService& timers_;
  Executor& executor_;
  Logger& log_;
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::state_manager
