#include "runtime/async/executor.h"

#include "runtime/async/thread.h"

namespace tutti {
namespace {
// How busy a loop is is known of about as long.
constexpr std::chrono::milliseconds kWindow{20};
// What is posted waits for no more events than these.
constexpr int kEventsAtOnce = 64;
}  // namespace

EventLoop::EventLoop(const std::string& name, std::chrono::microseconds linger, EventSource* source)
    : source_(source), linger_(linger), thread_([this, linger] {
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
  Wake();
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
  if (wake) Wake();
}

void EventLoop::Wake() {
  if (source_) {
    source_->Interrupt();
  } else {
    wake_.NotifyOne();
  }
}

void EventLoop::Sleep() {
  asleep_ = true;
  if (!source_) {
    wake_.Wait(mutex_);
    asleep_ = false;
    return;
  }
  mutex_.Unlock();
  bool ok = false;
  EventSource::Event* event = source_->Next(/*wait=*/true, ok);
  mutex_.Lock();
  asleep_ = false;  // before the event posts anything: this thread is awake
  mutex_.Unlock();
  if (event) {
    event->Happened(ok);
    TakeEvents();
  }
  mutex_.Lock();
}

bool EventLoop::TakeEvents() {
  const auto begun = std::chrono::steady_clock::now();
  bool ok = false, any = false;
  for (int i = 0; i < kEventsAtOnce; ++i) {
    EventSource::Event* event = source_->Next(/*wait=*/false, ok);
    if (!event) break;
    event->Happened(ok);
    any = true;
  }
  if (any) worked_ += std::chrono::steady_clock::now() - begun;
  return any;
}

void EventLoop::Run() {
  using Clock = std::chrono::steady_clock;
  std::vector<absl::AnyInvocable<void()>> batch;
  Clock::duration passed{};  // within the window, as worked_
  Clock::time_point begun = Clock::now();
  for (;;) {
    const Clock::time_point ended = Clock::now();
    worked_ += ended - begun;
    // A loop that is hardly ever idle leaves its core to others when it is: they have waited.
    if (worked_ < passed * 3 / 4) linger_.Await([this] { return source_ && TakeEvents(); });
    if (source_) TakeEvents();
    mutex_.Lock();
    while (queue_.empty() && !stopping_) Sleep();
    bool stop = stopping_ && queue_.empty();
    batch.swap(queue_);
    linger_.Took();
    mutex_.Unlock();
    if (stop) return;
    const Clock::time_point found = Clock::now();
    passed += found - begun;
    begun = found;
    if (passed > kWindow) {
      worked_ /= 2;
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
