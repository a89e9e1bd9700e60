#include "runtime/time/system_time.h"

#include <algorithm>

#include "runtime/async/thread.h"

namespace tutti {
namespace {
int64_t MonotonicNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
// Delays past this are kept at it: a timer of a year may fire a moment early in nanoseconds, never overflow.
constexpr int64_t kMaxDelayNanos = int64_t{100} * 365 * 86400 * 1000000000;
}  // namespace

SystemTimers::SystemTimers() : thread_([this] { Run(); }) { NameThread(thread_, "tutti-timers"); }

SystemTimers::~SystemTimers() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  thread_.join();
}

uint64_t SystemTimers::After(absl::Duration delay, absl::AnyInvocable<void()> fn) {
  int64_t nanos = std::clamp<int64_t>(absl::ToInt64Nanoseconds(delay), 0, kMaxDelayNanos);
  int64_t due = MonotonicNanos() + nanos;
  bool first;
  uint64_t id;
  {
    MutexLock lock(mutex_);
    id = next_id_++;
    auto it = due_.emplace(Key(due, id), std::move(fn)).first;
    when_.emplace(id, due);
    first = it == due_.begin();
  }
  if (first) wake_.NotifyOne();
  return id;
}

bool SystemTimers::Cancel(uint64_t id) {
  MutexLock lock(mutex_);
  auto it = when_.find(id);
  if (it == when_.end()) return false;
  due_.erase(Key(it->second, id));
  when_.erase(it);
  return true;
}

void SystemTimers::Run() {
  mutex_.Lock();
  while (!stopping_) {
    if (due_.empty()) {
      wake_.Wait(mutex_);
      continue;
    }
    int64_t wait = due_.begin()->first.first - MonotonicNanos();
    if (wait > 0) {
      wake_.WaitFor(mutex_, std::chrono::nanoseconds(wait));
      continue;
    }
    auto fn = std::move(due_.begin()->second);
    when_.erase(due_.begin()->first.second);
    due_.erase(due_.begin());
    mutex_.Unlock();
    fn();
    mutex_.Lock();
  }
  mutex_.Unlock();
}

}  // namespace tutti
