// Calls RPCs from coroutines over gRPC's callback API. Deadline, cancellation and trace travel from the CallContext.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"
#include "runtime/rpc/call_context.h"
#include "runtime/status/grpc_status.h"

namespace tutti {

// A callee gets this much less than the caller has left, so that its answer still arrives.
inline constexpr absl::Duration kDeadlineMargin = absl::Milliseconds(20);

namespace rpc_internal {
// Sets deadline (the earlier of the call's and `timeout` from now) and trace.
void Prepare(const CallContext& call, absl::Duration timeout, const TraceContext& trace, grpc::ClientContext& context);
}  // namespace rpc_internal

// One unary call: CallUnary(call, *stub->async(), &Async::GetRun, "tutti.…/GetRun", request, response, timeout).
// `timeout` bounds it even when the call has no deadline. Never blocks; goes on upon the call's executor.
template <class Async, class Request, class Response>
Task<absl::Status> CallUnary(CallContext& call, Async& async,
                             void (Async::*method)(grpc::ClientContext*, const Request*, Response*,
                                                   std::function<void(grpc::Status)>),
                             const char* name, const Request& request, Response& response, absl::Duration timeout) {
  if (call.stop.stop_requested()) co_return absl::CancelledError("the caller gave up");
  Span span = call.tracer->Start(name, SpanKind::kClient, call.trace);
  grpc::ClientContext context;
  rpc_internal::Prepare(call, timeout, span.context(), context);
  OneShot<grpc::Status> done;
  (async.*method)(&context, &request, &response, [&done](grpc::Status status) { done.Set(std::move(status)); });
  std::stop_callback cancel(call.stop, [&context] { context.TryCancel(); });
  grpc::Status status = co_await done.Wait(*call.executor);
  absl::Status out = FromGrpc(status);
  span.SetStatus(out);
  co_return out;
}

// The client's side of a server stream, whatever carries it: Read until false, then Finish; it lives until Finish has
// returned.
template <class Response>
class ReadStream {
 public:
  virtual ~ReadStream() = default;
  virtual Task<bool> Read(Response& response) = 0;
  virtual Task<absl::Status> Finish() = 0;
  // Ends it early; Finish is called all the same.
  virtual void Cancel() = 0;
};

// By gRPC; begun by Start.
template <class Response>
class ClientReadStream final : public grpc::ClientReadReactor<Response>, public ReadStream<Response> {
 public:
  ClientReadStream(CallContext& call, absl::Duration timeout) : call_(call) {
    rpc_internal::Prepare(call, timeout, call.trace, context_);
  }
  grpc::ClientContext* context() { return &context_; }
  // After the stub's method has bound this reactor.
  void Start() {
    this->AddHold();
    this->StartCall();
    cancel_.emplace(call_.stop, Canceller(context_));
  }
  Task<bool> Read(Response& response) override {
    OneShot<bool> arrived;
    read_ = &arrived;
    this->StartRead(&response);
    auto ok = co_await arrived.Wait(*call_.executor);
    co_return ok;
  }
  Task<absl::Status> Finish() override {
    this->RemoveHold();
    grpc::Status status = co_await done_.Wait(*call_.executor);
    cancel_.reset();
    co_return FromGrpc(status);
  }
  void Cancel() override { context_.TryCancel(); }
  void OnReadDone(bool ok) override { read_->Set(ok); }
  void OnDone(const grpc::Status& status) override { done_.Set(status); }

 private:
  struct Canceller {
    explicit Canceller(grpc::ClientContext& context) : context(&context) {}
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };
  CallContext& call_;
  grpc::ClientContext context_;
  OneShot<bool>* read_ = nullptr;
  OneShot<grpc::Status> done_;
  std::optional<std::stop_callback<Canceller>> cancel_;
};

// The client's side of a bidirectional stream. Start; one Read and one Write at a time; WritesDone; Finish. A write may
// be left to itself (StartWriting), which wakes nobody, and be awaited (Written) before the next.
template <class Request, class Response>
class ClientBidiStream final : public grpc::ClientBidiReactor<Request, Response> {
 public:
  ClientBidiStream(CallContext& call, absl::Duration timeout) : call_(call) {
    rpc_internal::Prepare(call, timeout, call.trace, context_);
  }
  grpc::ClientContext* context() { return &context_; }
  void Start() {
    this->AddHold();
    this->StartCall();
    cancel_.emplace(call_.stop, Canceller(context_));
  }
  Task<bool> Read(Response& response) {
    OneShot<bool> arrived;
    read_ = &arrived;
    this->StartRead(&response);
    auto ok = co_await arrived.Wait(*call_.executor);
    co_return ok;
  }
  Task<bool> Write(const Request& request) {
    StartWriting(request);
    return Written();
  }
  // `request` must live until Written() has returned.
  void StartWriting(const Request& request) {
    written_.emplace();
    this->StartWrite(&request);
  }
  // Until what was started last is written; at once when nothing was. False: the stream is broken.
  Task<bool> Written() {
    if (!written_) co_return true;
    auto ok = co_await written_->Wait(*call_.executor);
    co_return ok;
  }
  void WritesDone() { this->StartWritesDone(); }
  void Cancel() { context_.TryCancel(); }
  Task<absl::Status> Finish() {
    this->RemoveHold();
    grpc::Status status = co_await done_.Wait(*call_.executor);
    cancel_.reset();
    co_return FromGrpc(status);
  }
  void OnReadDone(bool ok) override { read_->Set(ok); }
  void OnWriteDone(bool ok) override { written_->Set(ok); }
  void OnDone(const grpc::Status& status) override { done_.Set(status); }

 private:
  struct Canceller {
    explicit Canceller(grpc::ClientContext& context) : context(&context) {}
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };
  CallContext& call_;
  grpc::ClientContext context_;
  OneShot<bool>* read_ = nullptr;
  std::optional<OneShot<bool>> written_;
  OneShot<grpc::Status> done_;
  std::optional<std::stop_callback<Canceller>> cancel_;
};

}  // namespace tutti
