// The real clock, and timers on one thread of their own.
#pragma once

#include <map>
#include <thread>
#include <unordered_map>
#include <utility>

#include "runtime/sync/mutex.h"
#include "runtime/time/clock.h"

namespace tutti {

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

class SystemTimers final : public TimerService {
 public:
  SystemTimers();
  // Timers that have not fired never do.
  ~SystemTimers() override;
  uint64_t After(absl::Duration delay, absl::AnyInvocable<void()> fn) override;
  bool Cancel(uint64_t id) override;

 private:
  // Monotonic due time, then order of insertion.
  using Key = std::pair<int64_t, uint64_t>;
  void Run();

  Mutex mutex_;
  CondVar wake_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<Key, absl::AnyInvocable<void()>> due_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, int64_t> when_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace tutti
