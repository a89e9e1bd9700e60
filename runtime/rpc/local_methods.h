// The unary methods of the services in this process, for callers in it: the same messages, statuses, deadlines,
// cancellation and traces as over gRPC, without a transport between them (docs/adr/0011).
#pragma once

#include <grpcpp/impl/codegen/proto_utils.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/rpc/server_calls.h"
#include "runtime/sync/mutex.h"

namespace tutti {

class LocalMethods {
 public:
  explicit LocalMethods(TimerService& timers) : timers_(timers) {}

  // `name` as `tutti.area.v1.Service/Method`. `env` and `impl` outlive the calls: their scope is closed before they go.
  template <class Impl, class Request, class Response>
  void Add(ServerEnv& env, const char* name, Impl& impl,
           Task<absl::Status> (Impl::*method)(CallContext&, const Request&, Response&)) {
    Put<Request, Response>(env, name, impl, method);
  }
  // For methods that keep the request.
  template <class Impl, class Request, class Response>
  void AddTaking(ServerEnv& env, const char* name, Impl& impl,
                 Task<absl::Status> (Impl::*method)(CallContext&, Request&&, Response&)) {
    Put<Request, Response>(env, name, impl, method);
  }

  // One method, by its messages.
  template <class Request, class Response>
  class Typed {
   public:
    virtual ~Typed() = default;
    // As CallUnary. `timeout` bounds it even when the call has no deadline.
    virtual Task<absl::Status> Call(CallContext& call, Request request, Response& response, absl::Duration timeout) = 0;
  };
  // Null when the method is no service's of this process.
  template <class Request, class Response>
  std::shared_ptr<Typed<Request, Response>> Find(absl::string_view name) const {
    MutexLock lock(mutex_);
    auto it = typed_.find(name);
    // Names stand for one pair of messages: both are made from the same contract.
    return it == typed_.end() ? nullptr : std::static_pointer_cast<Typed<Request, Response>>(it->second);
  }

  // One method, by its bytes: for who forwards calls without looking into them.
  class Raw {
   public:
    virtual ~Raw() = default;
    virtual Task<absl::Status> CallBytes(CallContext& call, grpc::ByteBuffer& request, grpc::ByteBuffer& response) = 0;
  };
  std::shared_ptr<Raw> FindRaw(absl::string_view name) const {
    MutexLock lock(mutex_);
    auto it = methods_.find(name);
    return it == methods_.end() ? nullptr : it->second;
  }

 private:
  template <class Request, class Response, class Impl, class Handler>
  void Put(ServerEnv& env, const char* name, Impl& impl, Handler handler) {
    auto entry = std::make_shared<Method<Impl, Handler, Request, Response>>(env, timers_, name, impl, handler);
    MutexLock lock(mutex_);
    methods_[name] = entry;
    typed_[name] = std::static_pointer_cast<Typed<Request, Response>>(entry);
  }

  template <class Impl, class Handler, class Request, class Response>
  class Method final : public Typed<Request, Response>, public Raw {
   public:
    Method(ServerEnv& env, TimerService& timers, std::string name, Impl& impl, Handler handler)
        : env_(env), timers_(timers), name_(std::move(name)), impl_(impl), handler_(handler) {}

    Task<absl::Status> Call(CallContext& call, Request request, Response& response, absl::Duration timeout) override {
      if (call.stop.stop_requested()) co_return absl::CancelledError("the caller gave up");
      auto running = std::make_shared<Running>();
      running->request = std::move(request);
      absl::Time now = env_.clock.Now();
      absl::Time deadline = timeout == absl::InfiniteDuration() ? absl::InfiniteFuture() : now + timeout;
      deadline = std::min(deadline, call.deadline);
      if (!env_.scope.Spawn(env_.executor, Serve(running, call.trace, call.actor, call.origin, deadline))) {
        co_return rpc_internal::ShuttingDown();
      }
      uint64_t timer = 0;
      if (deadline != absl::InfiniteFuture()) {
        timer = timers_.After(deadline - now, [running] {
          if (running->done.Set(absl::DeadlineExceededError("Deadline Exceeded"))) running->stop.request_stop();
        });
      }
      std::stop_callback on_stop(call.stop, [running] {
        if (running->done.Set(absl::CancelledError("the caller gave up"))) running->stop.request_stop();
      });
      absl::Status status = co_await running->done.Wait(*call.executor);
      if (timer != 0) timers_.Cancel(timer);
      if (status.ok()) response = std::move(running->response);
      co_return status;
    }

    Task<absl::Status> CallBytes(CallContext& call, grpc::ByteBuffer& bytes, grpc::ByteBuffer& out) override {
      Request request;
      grpc::Status parsed = grpc::SerializationTraits<Request>::Deserialize(&bytes, &request);
      if (!parsed.ok()) co_return absl::InternalError("the request cannot be parsed");
      Response response;
      absl::Status status = co_await Call(call, std::move(request), response, absl::InfiniteDuration());
      if (!status.ok()) co_return status;
      bool own = false;
      grpc::Status written = grpc::SerializationTraits<Response>::Serialize(response, &out, &own);
      co_return written.ok() ? absl::OkStatus() : absl::InternalError("the response cannot be serialized");
    }

   private:
    // Shared, for a caller may go before its callee.
    struct Running {
      Request request;
      Response response;
      std::stop_source stop;
      OneShot<absl::Status> done;
    };

    Task<void> Serve(std::shared_ptr<Running> running, TraceContext trace, std::string actor, std::string origin,
                     absl::Time deadline) {
      absl::Time start = env_.clock.Now();
      Span span = env_.tracer.Start(name_, SpanKind::kServer, trace);
      CallContext call(env_.executor, env_.tracer);
      call.deadline = deadline;
      call.stop = running->stop.get_token();
      call.trace = span.context();
      call.actor = actor.empty() ? "anonymous" : std::move(actor);
      call.origin = origin.empty() ? "in-process" : std::move(origin);
      absl::Status status =
          co_await rpc_internal::StartMethod(impl_, handler_, call, std::move(running->request), running->response);
      span.SetStatus(status);
      span.End();
      env_.metrics.Record(name_, status.code(), env_.clock.Now() - start);
      running->done.Set(std::move(status));
    }

    ServerEnv& env_;
    TimerService& timers_;
    const std::string name_;
    Impl& impl_;
    const Handler handler_;
  };

  TimerService& timers_;
  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<Raw>> methods_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::shared_ptr<void>> typed_ ABSL_GUARDED_BY(mutex_);
};

// CallUnary, without a transport when the method is a service's of this process.
template <class Async, class Request, class Response>
Task<absl::Status> CallUnary(const LocalMethods& local, CallContext& call, Async& async,
                             void (Async::*method)(grpc::ClientContext*, const Request*, Response*,
                                                   std::function<void(grpc::Status)>),
                             const char* name, Request request, Response& response, absl::Duration timeout) {
  if (auto here = local.Find<Request, Response>(name)) {
    absl::Status status = co_await here->Call(call, std::move(request), response, timeout);
    co_return status;
  }
  absl::Status status = co_await CallUnary(call, async, method, name, request, response, timeout);
  co_return status;
}

}  // namespace tutti
