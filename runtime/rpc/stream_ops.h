// The operations of one stream of gRPC, on either side: each has a tag of its own, and the stream lives until all have
// ended.
#pragma once

#include <atomic>
#include <utility>

#include "runtime/async/executor.h"
#include "runtime/async/one_shot.h"

namespace tutti {

// How many are under way.
class StreamOpCount {
 public:
  void More() { count_.fetch_add(1, std::memory_order_relaxed); }
  // The last act of whoever calls it: the stream may be gone afterwards.
  void Less() {
    if (count_.fetch_sub(1, std::memory_order_acq_rel) == 1) none_.Set(true);
  }
  // Once, when no more are begun but as a part of those under way.
  OneShot<bool>::Awaiter AwaitNone(Executor& executor) {
    Less();  // its own one, held so far
    return none_.Wait(executor);
  }

 private:
  std::atomic<int> count_{1};
  OneShot<bool> none_;
};

// One kind of operation, of which one is under way at a time.
class StreamOp final : public EventSource::Event {
 public:
  explicit StreamOp(StreamOpCount& count) : count_(count) {}
  // The tag of the next one; `result`, unless it is null, is set at its end.
  void* Begin(OneShot<bool>* result) {
    result_ = result;
    count_.More();
    return static_cast<EventSource::Event*>(this);
  }
  void Happened(bool ok) override {
    if (OneShot<bool>* result = std::exchange(result_, nullptr)) result->Set(ok);
    count_.Less();
  }

 private:
  StreamOpCount& count_;
  OneShot<bool>* result_ = nullptr;
};

}  // namespace tutti
