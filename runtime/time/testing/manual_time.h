// A clock and timers that move only when a test says so.
#pragma once

#include <map>
#include <utility>

#include "runtime/sync/mutex.h"
#include "runtime/time/clock.h"

namespace tutti::testing {

class ManualTime final : public Clock, public TimerService {
 public:
  explicit ManualTime(absl::Time start = absl::FromUnixSeconds(1700000000)) : now_(start) {}

  absl::Time Now() const override {
    MutexLock lock(mutex_);
    return now_;
  }
  uint64_t After(absl::Duration delay, absl::AnyInvocable<void()> fn) override {
    MutexLock lock(mutex_);
    uint64_t id = next_id_++;
    due_.emplace(std::make_pair(now_ + delay, id), std::move(fn));
    return id;
  }
  bool Cancel(uint64_t id) override {
    MutexLock lock(mutex_);
    for (auto it = due_.begin(); it != due_.end(); ++it) {
      if (it->first.second == id) {
        due_.erase(it);
        return true;
      }
    }
    return false;
  }
  // Every timer due by then has fired, in order of time and then of insertion, when this returns.
  void Advance(absl::Duration by) {
    mutex_.Lock();
    absl::Time target = now_ + by;
    while (!due_.empty() && due_.begin()->first.first <= target) {
      now_ = std::max(now_, due_.begin()->first.first);
      auto fn = std::move(due_.begin()->second);
      due_.erase(due_.begin());
      mutex_.Unlock();
      fn();
      mutex_.Lock();
    }
    now_ = target;
    mutex_.Unlock();
  }
  // Timers that wait.
  size_t pending() const {
    MutexLock lock(mutex_);
    return due_.size();
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<std::pair<absl::Time, uint64_t>, absl::AnyInvocable<void()>> due_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::testing
