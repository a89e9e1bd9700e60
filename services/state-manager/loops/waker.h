// Wakes runs whose time has come, to the tenth of a second.
#pragma once

#include <stop_token>

#include "runtime/async/scope.h"
#include "runtime/telemetry/log.h"
#include "services/state-manager/store/access.h"
#include "services/state-manager/store/leases.h"

namespace tutti::state_manager {

// One for each database.
class Waker {
 public:
  Waker(Access& access, const Leases& leases, TimerService& timers, Executor& executor, Logger& log)
      : access_(access), leases_(leases), timers_(timers), executor_(executor), log_(log) {}
  ~Waker() { Stop(); }

  void Start() { scope_.Spawn(executor_, Loop()); }
  void Stop() {
    stop_.request_stop();
    scope_.CloseAndWait();
  }

 private:
  Task<void> Loop();

  Access& access_;
  const Leases& leases_;
  TimerService& timers_;
  Executor& executor_;
  Logger& log_;
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::state_manager
