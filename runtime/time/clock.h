// Time as something that is passed in.
#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tutti {

class Clock {
 public:
  virtual ~Clock() = default;
  // Wall time. Thread safe.
  virtual absl::Time Now() const = 0;
};

// Runs functions later. Thread safe.
class TimerService {
 public:
  virtual ~TimerService() = default;
  // Runs `fn` once after `delay`, on the service's thread: it must only hand over, never work. Ids are never 0.
  virtual uint64_t After(absl::Duration delay, absl::AnyInvocable<void()> fn) = 0;
  // True when the timer had not begun to fire and now never will.
  virtual bool Cancel(uint64_t id) = 0;
};

}  // namespace tutti
