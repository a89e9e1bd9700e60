// What calls inside one process are made of; local_methods.h is what callers use.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "runtime/async/one_shot.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/rpc/server_calls.h"
#include "runtime/sync/mutex.h"

namespace tutti::rpc_internal {

// Between the two ends of a server stream, which may be on different threads: the writer is one message ahead at most.
template <class Response>
class LocalPipe final : public StreamWriter<Response> {
 public:
  explicit LocalPipe(Executor& writer) : writer_(writer) {}

  Task<bool> Write(const Response& response) override {
    for (;;) {
      std::shared_ptr<OneShot<bool>> room;
      {
        MutexLock lock(mutex_);
        if (cancelled_) co_return false;
        if (messages_.empty()) {
          messages_.push_back(response);
          Wake(reader_waits_);
          co_return true;
        }
        room = writer_waits_ = std::make_shared<OneShot<bool>>();
      }
      co_await room->Wait(writer_);
    }
  }
  void WriteLast(Response response) override {
    MutexLock lock(mutex_);
    last_.emplace(std::move(response));
  }
  // The writer's last act.
  void End(absl::Status status) {
    MutexLock lock(mutex_);
    if (last_ && status.ok()) messages_.push_back(*std::move(last_));
    if (!ended_) ended_ = std::move(status);
    Wake(reader_waits_);
  }
  std::stop_token stop_token() const { return stop_.get_token(); }

  Task<bool> Read(Response& response, Executor& reader) {
    for (;;) {
      std::shared_ptr<OneShot<bool>> news;
      {
        MutexLock lock(mutex_);
        if (cancelled_) co_return false;
        if (!messages_.empty()) {
          response = std::move(messages_.front());
          messages_.pop_front();
          Wake(writer_waits_);
          co_return true;
        }
        if (ended_) co_return false;
        news = reader_waits_ = std::make_shared<OneShot<bool>>();
      }
      co_await news->Wait(reader);
    }
  }
  // As gRPC has it: the status is there when the callee has ended, or when the caller has given up, whatever is unread.
  Task<absl::Status> AwaitEnd(Executor& reader) {
    for (;;) {
      std::shared_ptr<OneShot<bool>> news;
      {
        MutexLock lock(mutex_);
        if (cancelled_) co_return *cancelled_;
        if (ended_) co_return *ended_;
        messages_.clear();
        Wake(writer_waits_);
        news = reader_waits_ = std::make_shared<OneShot<bool>>();
      }
      co_await news->Wait(reader);
    }
  }
  // The reader gives up, for this reason.
  void Cancel(absl::Status why) {
    {
      MutexLock lock(mutex_);
      if (cancelled_) return;
      cancelled_ = ended_ && messages_.empty() ? *ended_ : std::move(why);
      Wake(reader_waits_);
      Wake(writer_waits_);
    }
    stop_.request_stop();
  }

 private:
  static void Wake(std::shared_ptr<OneShot<bool>>& waiter) {
    if (auto woken = std::exchange(waiter, nullptr)) woken->Set(true);
  }

  Executor& writer_;
  std::stop_source stop_;
  Mutex mutex_;
  std::deque<Response> messages_ ABSL_GUARDED_BY(mutex_);
  std::optional<Response> last_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> ended_ ABSL_GUARDED_BY(mutex_), cancelled_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<OneShot<bool>> reader_waits_ ABSL_GUARDED_BY(mutex_), writer_waits_ ABSL_GUARDED_BY(mutex_);
};

// The reader's end of a pipe.
template <class Response>
class LocalStream final : public ReadStream<Response> {
 public:
  // `left`: until the deadline; infinite is none.
  LocalStream(CallContext& call, std::shared_ptr<LocalPipe<Response>> pipe, TimerService& timers, absl::Duration left)
      : executor_(*call.executor), pipe_(std::move(pipe)), timers_(timers), on_stop_(call.stop, Stop(pipe_)) {
    if (left == absl::InfiniteDuration()) return;
    timer_ = timers_.After(left, [pipe = pipe_] { pipe->Cancel(absl::DeadlineExceededError("Deadline Exceeded")); });
  }
  ~LocalStream() override {
    if (timer_ != 0) timers_.Cancel(timer_);
    Cancel();
  }
  Task<bool> Read(Response& response) override {
    bool ok = co_await pipe_->Read(response, executor_);
    co_return ok;
  }
  Task<absl::Status> Finish() override {
    absl::Status status = co_await pipe_->AwaitEnd(executor_);
    co_return status;
  }
  void Cancel() override { pipe_->Cancel(absl::CancelledError("the caller gave up")); }

 private:
  struct Stop {
    explicit Stop(std::shared_ptr<LocalPipe<Response>> pipe) : pipe(std::move(pipe)) {}
    std::shared_ptr<LocalPipe<Response>> pipe;
    void operator()() const { pipe->Cancel(absl::CancelledError("the caller gave up")); }
  };
  Executor& executor_;
  std::shared_ptr<LocalPipe<Response>> pipe_;
  TimerService& timers_;
  uint64_t timer_ = 0;
  std::stop_callback<Stop> on_stop_;
};

}  // namespace tutti::rpc_internal
