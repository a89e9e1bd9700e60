#include "services/state-manager/loops/waker.h"

#include <algorithm>

#include "runtime/async/sleep.h"

namespace tutti::state_manager {
namespace {

constexpr int64_t kBatch = 500;
// A run may be parked at any moment with a time that is near: nobody sleeps longer than this.
constexpr absl::Duration kLongest = absl::Milliseconds(100);
// While nobody waits for a time, which a look at an empty index says.
constexpr absl::Duration kIdle = absl::Milliseconds(500);

}  // namespace

Task<void> Waker::Loop() {
  absl::Duration pause = kIdle;
  while (co_await Sleep(timers_, executor_, pause, stop_.get_token())) {
    auto look = [&leases = leases_](Transaction& tx, int64_t& out) {
      auto next = leases.NextWake(tx);
      if (next.ok()) out = *next;
      return next.status();
    };
    auto next = co_await access_.Read<int64_t>(executor_, absl::InfiniteFuture(), /*allow_stale=*/false, look);
    pause = kIdle;
    if (!next.ok() || *next == 0) continue;
    pause = std::min(kLongest, absl::Microseconds(*next));
    if (*next > 1) continue;
    auto wake = [&leases = leases_](Transaction& tx, Leases::Woken& out) {
      auto woken = leases.WakeDue(tx, kBatch);
      if (woken.ok()) out = *woken;
      return woken.status();
    };
    auto woken = co_await access_.Write<Leases::Woken>(executor_, absl::InfiniteFuture(), LaneOf("leases"), wake);
    if (!woken.ok()) {
      log_.Warning("waiting runs not woken; trying again", {{"error", woken.status().message()}});
      pause = kIdle;
      continue;
    }
    if (woken->runs == kBatch) pause = absl::Milliseconds(1);
  }
}

}  // namespace tutti::state_manager
