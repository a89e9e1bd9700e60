#include "runtime/async/executor.h"

#include "runtime/async/thread.h"

namespace tutti {
namespace {
// How busy a loop is is known of about as long.
constexpr std::chrono::milliseconds kWindow{20};
}  // namespace

EventLoop::EventLoop(const std::string& name, std::chrono::microseconds linger)
    : linger_(linger), thread_([this, linger] {
        // With a process for each service the other end of every wait is another process's loop: none goes first.
        if (linger > linger.zero()) RunInForeground();
        Run();
      }) {
  NameThread(thread_, name);
}

EventLoop::~EventLoop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    linger_.Came();
  }
  wake_.NotifyOne();
  thread_.join();
}

void EventLoop::Post(absl::AnyInvocable<void()> fn) {
  bool wake;
  {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(fn));
    linger_.Came();
    wake = asleep_;
    asleep_ = false;
  }
  if (wake) wake_.NotifyOne();
}

void EventLoop::Run() {
  using Clock = std::chrono::steady_clock;
  std::vector<absl::AnyInvocable<void()>> batch;
  Clock::duration worked{}, passed{};  // within the window
  Clock::time_point begun = Clock::now();
  for (;;) {
    const Clock::time_point ended = Clock::now();
    worked += ended - begun;
    // A loop that is hardly ever idle leaves its core to others when it is: they have waited.
    if (worked < passed * 3 / 4) linger_.Await();
    mutex_.Lock();
    while (queue_.empty() && !stopping_) {
      asleep_ = true;
      wake_.Wait(mutex_);
    }
    asleep_ = false;
    bool stop = stopping_ && queue_.empty();
    batch.swap(queue_);
    linger_.Took();
    mutex_.Unlock();
    if (stop) return;
    const Clock::time_point found = Clock::now();
    passed += found - begun;
    begun = found;
    if (passed > kWindow) {
      worked /= 2;
      passed /= 2;
    }
    for (auto& fn : batch) fn();
    batch.clear();
  }
}

WorkerPool::WorkerPool(const std::string& name, int threads, size_t max_queue) : max_queue_(max_queue) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
    NameThread(threads_.back(), name);
  }
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  for (auto& thread : threads_) thread.join();
}

bool WorkerPool::TryPost(absl::AnyInvocable<void()> fn) {
  {
    MutexLock lock(mutex_);
    if (stopping_ || queue_.size() >= max_queue_) return false;
    queue_.push_back(std::move(fn));
  }
  wake_.NotifyOne();
  return true;
}

void WorkerPool::Run() {
  for (;;) {
    mutex_.Lock();
    while (queue_.empty() && !stopping_) wake_.Wait(mutex_);
    if (queue_.empty()) {
      mutex_.Unlock();
      return;
    }
    auto fn = std::move(queue_.front());
    queue_.erase(queue_.begin());
    mutex_.Unlock();
    fn();
  }
}

}  // namespace tutti
