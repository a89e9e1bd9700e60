// A world under a seed: virtual time, processes that stand still, vanish and come back, and nothing that happens by
// itself. What runs next is drawn among all that could, so that a seed is one order of events, and replays exactly.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/async/executor.h"
#include "runtime/random/random.h"
#include "runtime/sync/mutex.h"
#include "runtime/time/clock.h"

namespace tutti::simulation {

class World;

// One process: its loop, its timers, its clock, its random numbers. Thread safe, for a process that ends is drained by
// a thread of its own; all else happens on the simulator's.
class Process final : public Executor, public TimerService, public Clock {
 public:
  Process(World& world, std::string name, absl::Duration skew, uint64_t seed)
      : world_(world), name_(std::move(name)), skew_(skew), rng_(seed) {}

  void Post(absl::AnyInvocable<void()> fn) override {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(fn));
  }
  absl::Time Now() const override;
  uint64_t After(absl::Duration delay, absl::AnyInvocable<void()> fn) override;
  bool Cancel(uint64_t id) override {
    MutexLock lock(mutex_);
    auto due = due_.find(id);
    if (due == due_.end()) return false;
    timers_.erase({due->second, id});
    due_.erase(due);
    return true;
  }

  const std::string& name() const { return name_; }
  Rng& rng() { return rng_; }
  bool alive() const { return alive_; }
  bool frozen() const { return frozen_; }
  void set_frozen(bool frozen) { frozen_ = frozen; }

 private:
  friend class World;
  bool Runnable() const {
    MutexLock lock(mutex_);
    return !queue_.empty();
  }
  absl::Time NextTimer() const {
    MutexLock lock(mutex_);
    return timers_.empty() ? absl::InfiniteFuture() : timers_.begin()->first.first;
  }
  // What was posted first; false: nothing was.
  bool RunOne();
  bool FireOne();
  // The world's time, or the process's own when it is apart from the world.
  absl::Time Time() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  World& world_;
  const std::string name_;
  const absl::Duration skew_;
  Xoshiro rng_;
  bool alive_ = true, frozen_ = false;
  mutable Mutex mutex_;
  absl::Time apart_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<std::pair<absl::Time, uint64_t>, absl::AnyInvocable<void()>> timers_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, absl::Time> due_ ABSL_GUARDED_BY(mutex_);
};

class World {
 public:
  explicit World(uint64_t seed) : seed_(seed), rng_(seed) {}

  absl::Time now() const { return now_; }
  // In [0, 1), and at most `most`.
  bool Chance(double probability) { return rng_.Unit() < probability; }
  absl::Duration Delay(absl::Duration most) { return most * rng_.Unit(); }
  size_t Pick(size_t count) { return static_cast<size_t>(rng_.Next() % count); }

  // A process whose clock is off by `skew`. It lives as long as the world.
  Process& Start(std::string name, absl::Duration skew = absl::ZeroDuration()) {
    processes_.push_back(
        std::make_unique<Process>(*this, std::move(name), skew, seed_ * 1000003 + processes_.size() + 1));
    return *processes_.back();
  }
  // Something that no process does: a message arrives, a disk has written.
  void After(absl::Duration delay, absl::AnyInvocable<void()> fn) {
    events_.emplace(std::make_pair(now_ + std::max(delay, absl::ZeroDuration()), next_event_++), std::move(fn));
  }

  // Goes on until `done`, or `limit` of virtual time has passed; true: it is done.
  bool Run(absl::Duration limit, const std::function<bool()>& done);

  // Nobody hears of the process any more. `drain` ends it, on a thread of its own; its loop and its timers go on for as
  // long, apart from the world's time.
  void Kill(Process& process, const std::function<void()>& drain);

 private:
  friend class Process;
  // The next thing that happens, at `end` at the latest.
  bool Step(absl::Time end);

  const uint64_t seed_;
  Xoshiro rng_;
  absl::Time now_ = absl::FromUnixSeconds(1700000000);
  std::vector<std::unique_ptr<Process>> processes_;
  uint64_t next_event_ = 0;
  std::map<std::pair<absl::Time, uint64_t>, absl::AnyInvocable<void()>> events_;
};

}  // namespace tutti::simulation
