#include "tests/simulation/world.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace tutti::simulation {

absl::Time Process::Time() const { return std::max(world_.now_, apart_); }

absl::Time Process::Now() const {
  MutexLock lock(mutex_);
  return Time() + skew_;
}

uint64_t Process::After(absl::Duration delay, absl::AnyInvocable<void()> fn) {
  MutexLock lock(mutex_);
  uint64_t id = next_id_++;
  absl::Time due = Time() + std::max(delay, absl::ZeroDuration());
  timers_.emplace(std::make_pair(due, id), std::move(fn));
  due_[id] = due;
  return id;
}

bool Process::RunOne() {
  absl::AnyInvocable<void()> fn;
  {
    MutexLock lock(mutex_);
    if (queue_.empty()) return false;
    fn = std::move(queue_.front());
    queue_.pop_front();
  }
  fn();
  return true;
}

bool Process::FireOne() {
  absl::AnyInvocable<void()> fn;
  {
    MutexLock lock(mutex_);
    if (timers_.empty()) return false;
    auto first = timers_.begin();
    fn = std::move(first->second);
    if (!alive_) apart_ = std::max(apart_, first->first.first);
    due_.erase(first->first.second);
    timers_.erase(first);
  }
  fn();
  return true;
}

bool World::Step(absl::Time end) {
  std::vector<Process*> runnable;
  absl::Time next = events_.empty() ? absl::InfiniteFuture() : events_.begin()->first.first;
  Process* timed = nullptr;
  for (auto& process : processes_) {
    if (!process->alive_ || process->frozen_) continue;
    if (process->Runnable()) runnable.push_back(process.get());
    if (absl::Time due = process->NextTimer(); due < next) {
      next = due;
      timed = process.get();
    }
  }
  if (!runnable.empty()) return runnable[runnable.size() == 1 ? 0 : Pick(runnable.size())]->RunOne();
  if (next > end) {
    now_ = std::max(now_, end);
    return false;
  }
  now_ = std::max(now_, next);
  if (timed) return timed->FireOne();
  auto event = std::move(events_.begin()->second);
  events_.erase(events_.begin());
  event();
  return true;
}

bool World::Run(absl::Duration limit, const std::function<bool()>& done) {
  const absl::Time end = now_ + limit;
  while (!done()) {
    if (!Step(end)) return done();
  }
  return true;
}

void World::Kill(Process& process, const std::function<void()>& drain) {
  process.alive_ = false;
  std::atomic<bool> over{false};
  std::thread ending([&] {
    drain();
    over = true;
  });
  while (!over) {
    if (!process.RunOne() && !process.FireOne()) std::this_thread::yield();
  }
  ending.join();
  while (process.RunOne() || process.FireOne()) {
  }
}

}  // namespace tutti::simulation
