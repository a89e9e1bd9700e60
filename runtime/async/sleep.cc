#include "runtime/async/sleep.h"

#include <memory>

#include "runtime/async/one_shot.h"

namespace tutti {

Task<bool> Sleep(TimerService& timers, Executor& executor, absl::Duration delay, std::stop_token stop) {
  if (stop.stop_requested()) co_return false;
  if (delay <= absl::ZeroDuration()) co_return true;
  // Shared with the timer: a cancelled timer may be in the middle of firing while this frame ends.
  auto shot = std::make_shared<OneShot<bool>>();
  uint64_t timer = timers.After(delay, [shot] { shot->Set(true); });
  std::stop_callback on_stop(stop, [shot] { shot->Set(false); });
  bool elapsed = co_await shot->Wait(executor);
  if (!elapsed) timers.Cancel(timer);
  co_return elapsed;
}

}  // namespace tutti
