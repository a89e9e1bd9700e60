// A wait that a stop token ends early.
#pragma once

#include <stop_token>

#include "runtime/async/executor.h"
#include "runtime/async/task.h"
#include "runtime/time/clock.h"

namespace tutti {

// True when the time has passed, false when `stop` was requested first.
Task<bool> Sleep(TimerService& timers, Executor& executor, absl::Duration delay, std::stop_token stop);

}  // namespace tutti
