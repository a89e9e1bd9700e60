// How coroutines reach a database.
#pragma once

#include <memory>
#include <utility>

#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"
#include "runtime/status/error.h"
#include "runtime/time/clock.h"
#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

class Access {
 public:
  Access(Database& database, TimerService& timers, const Clock& clock)
      : database_(database), timers_(timers), clock_(clock) {}

  Database& database() { return database_; }

  // Runs `body(tx, response)` in a transaction and answers when it is committed; writes with an equal lane are
  // committed in order. `body` may run more than once and owns what it needs. UNAVAILABLE with RetryInfo when the
  // deadline comes first: whether it was committed is then not known.
  template <class Response, class Body>
  Task<absl::StatusOr<Response>> Write(Executor& executor, absl::Time deadline, uint64_t lane, Body body) {
    auto call = std::make_shared<Call<Response>>();
    WriteOp op;
    op.lane = lane;
    op.apply = [call, body = std::move(body)](Transaction& tx) mutable {
      call->response = Response();
      return body(tx, call->response);
    };
    op.finish = [call](const absl::Status& status) { call->done.Set(status); };
    uint64_t timer = Watch(deadline, call);
    database_.Write(std::move(op));
    absl::Status status = co_await call->done.Wait(executor);
    if (timer != 0) timers_.Cancel(timer);
    if (!status.ok()) co_return status;
    co_return std::move(call->response);
  }

  // Awaits what `begin(database, done)` starts; `done` takes the answer, on any thread. The deadline is as for Write.
  template <class Response, class Begin>
  Task<absl::StatusOr<Response>> Await(Executor& executor, absl::Time deadline, Begin begin) {
    auto call = std::make_shared<Call<Response>>();
    uint64_t timer = Watch(deadline, call);
    begin(database_, [call](absl::StatusOr<Response> answer) {
      if (answer.ok()) call->response = *std::move(answer);
      call->done.Set(answer.status());
    });
    absl::Status status = co_await call->done.Wait(executor);
    if (timer != 0) timers_.Cancel(timer);
    if (!status.ok()) co_return status;
    co_return std::move(call->response);
  }

  template <class Response, class Body>
  Task<absl::StatusOr<Response>> Read(Executor& executor, absl::Time deadline, bool allow_stale, Body body) {
    auto call = std::make_shared<Call<Response>>();
    ReadOp op;
    op.allow_stale = allow_stale;
    op.query = [call, body = std::move(body)](Transaction& tx) mutable {
      call->response = Response();
      return body(tx, call->response);
    };
    op.finish = [call](const absl::Status& status) { call->done.Set(status); };
    uint64_t timer = Watch(deadline, call);
    database_.Read(std::move(op));
    absl::Status status = co_await call->done.Wait(executor);
    if (timer != 0) timers_.Cancel(timer);
    if (!status.ok()) co_return status;
    co_return std::move(call->response);
  }

  // Calls `fn` when a call must be answered, so that the answer arrives in time; 0: there is no deadline.
  uint64_t BeforeDeadline(absl::Time deadline, absl::AnyInvocable<void()> fn) {
    if (deadline == absl::InfiniteFuture()) return 0;
    absl::Duration left = deadline - clock_.Now();
    left -= std::min(left / 10, absl::Milliseconds(100));
    return timers_.After(std::max(left, absl::ZeroDuration()), std::move(fn));
  }
  void Cancel(uint64_t timer) {
    if (timer != 0) timers_.Cancel(timer);
  }
  // What is said then.
  static absl::Status Slow() {
    return Error(absl::StatusCode::kUnavailable, "DATABASE_SLOW",
                 "the database did not answer before the call's deadline; try again")
        .RetryAfter(absl::Seconds(1));
  }

 private:
  template <class Response>
  struct Call {
    Response response;
    OneShot<absl::Status> done;
  };

  template <class Response>
  uint64_t Watch(absl::Time deadline, std::shared_ptr<Call<Response>> call) {
    return BeforeDeadline(deadline, [call] { call->done.Set(Slow()); });
  }

  Database& database_;
  TimerService& timers_;
  const Clock& clock_;
};

}  // namespace tutti::state_manager
