// Calls RPCs from coroutines over gRPC's completion queues. Deadline, cancellation and trace travel from the
// CallContext.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <atomic>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"
#include "runtime/rpc/call_context.h"
#include "runtime/rpc/rpc_queue.h"
#include "runtime/rpc/stream_ops.h"
#include "runtime/status/grpc_status.h"

namespace tutti {

// Another process, as calls reach it: the channel, and the queue where their ends arrive.
struct RpcPeer {
  std::shared_ptr<grpc::Channel> channel;  // null: there is no way to it
  grpc::CompletionQueue* queue = nullptr;
  explicit operator bool() const { return channel != nullptr; }
};

// A callee gets this much less than the caller has left, so that its answer still arrives.
inline constexpr absl::Duration kDeadlineMargin = absl::Milliseconds(20);

namespace rpc_internal {
// Sets deadline (the earlier of the call's and `timeout` from now) and trace.
void Prepare(const CallContext& call, absl::Duration timeout, const TraceContext& trace, grpc::ClientContext& context);
// UNAVAILABLE: a peer without a channel.
absl::Status NoWayTo(const std::string& method);

// CallUnary without a span of its own; `trace` goes along.
template <class Request, class Response>
Task<absl::Status> CallBare(CallContext& call, TraceContext trace, const RpcPeer& peer, std::string method,
                            const Request& request, Response& response, absl::Duration timeout) {
  if (call.stop.stop_requested()) co_return absl::CancelledError("the caller gave up");
  if (!peer) co_return NoWayTo(method);
  grpc::ClientContext context;
  Prepare(call, timeout, trace, context);
  grpc::Status status;
  RpcEnd ended;
  grpc::TemplatedGenericStub<Request, Response> stub(peer.channel);
  auto reader = stub.PrepareUnaryCall(&context, absl::StrCat("/", method), request, peer.queue);
  reader->StartCall();
  reader->Finish(&response, &status, ended.tag());
  std::stop_callback cancel(call.stop, [&context] { context.TryCancel(); });
  co_await ended.Wait(*call.executor);
  co_return FromGrpc(status);
}
}  // namespace rpc_internal

// One unary call of "tutti.area.v1.Service/Method". `timeout` bounds it even when the call has no deadline. Never
// blocks; goes on upon the call's executor. `request` and `response` live until then.
template <class Request, class Response>
Task<absl::Status> CallUnary(CallContext& call, const RpcPeer& peer, std::string method, const Request& request,
                             Response& response, absl::Duration timeout) {
  Span span = call.tracer->Start(method, SpanKind::kClient, call.trace);
  absl::Status status =
      co_await rpc_internal::CallBare(call, span.context(), peer, std::move(method), request, response, timeout);
  span.SetStatus(status);
  co_return status;
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

namespace rpc_internal {
// To a peer without a channel.
template <class Response>
class NoStream final : public ReadStream<Response> {
 public:
  explicit NoStream(std::string method) : method_(std::move(method)) {}
  Task<bool> Read(Response&) override { co_return false; }
  Task<absl::Status> Finish() override { co_return NoWayTo(method_); }
  void Cancel() override {}

 private:
  const std::string method_;
};
}  // namespace rpc_internal

// The client's side of a bidirectional stream. Start; one read and one write at a time; WritesDone; Finish. A write is
// left to itself (StartWriting), which wakes nobody, and awaited (Written) before the next.
template <class Request, class Response>
class ClientBidiStream final {
 public:
  ClientBidiStream(CallContext& call, absl::Duration timeout) : call_(call) {
    rpc_internal::Prepare(call, timeout, call.trace, context_);
  }
  // "tutti.area.v1.Service/Method". The peer has a channel. The start counts as a write: Written() waits for it.
  void Start(const RpcPeer& peer, const std::string& method) {
    Prepare(peer, method);
    written_.emplace();
    stream_->StartCall(write_.Begin(&*written_));
    cancel_.emplace(call_.stop, Canceller(context_));
  }
  // With the only message there is to write, which lives until Finish has returned.
  void StartWith(const RpcPeer& peer, const std::string& method, const Request& request) {
    context_.set_initial_metadata_corked(true);
    Prepare(peer, method);
    stream_->StartCall(nullptr);
    written_.emplace();
    stream_->WriteLast(request, grpc::WriteOptions(), write_.Begin(&*written_));
    cancel_.emplace(call_.stop, Canceller(context_));
  }
  Task<bool> Read(Response& response) {
    OneShot<bool> arrived;
    stream_->Read(&response, read_.Begin(&arrived));
    auto ok = co_await arrived.Wait(*call_.executor);
    co_return ok;
  }
  // After Written(); `request` must live until it has returned again.
  void StartWriting(const Request& request) {
    written_.emplace();
    stream_->Write(request, write_.Begin(&*written_));
  }
  // Until what was started last is written; at once when nothing was. False: the stream is broken.
  Task<bool> Written() {
    if (!written_) co_return true;
    auto ok = co_await written_->Wait(*call_.executor);
    co_return ok;
  }
  void WritesDone() { stream_->WritesDone(write_.Begin(nullptr)); }
  void Cancel() { context_.TryCancel(); }
  Task<absl::Status> Finish() {
    stream_->Finish(&status_, finish_.Begin(nullptr));
    co_await count_.AwaitNone(*call_.executor);
    cancel_.reset();
    co_return FromGrpc(status_);
  }

 private:
  void Prepare(const RpcPeer& peer, const std::string& method) {
    grpc::TemplatedGenericStub<Request, Response> stub(peer.channel);
    stream_ = stub.PrepareCall(&context_, absl::StrCat("/", method), peer.queue);
  }
  struct Canceller {
    explicit Canceller(grpc::ClientContext& context) : context(&context) {}
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };
  CallContext& call_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<Request, Response>> stream_;
  StreamOpCount count_;
  StreamOp read_{count_}, write_{count_}, finish_{count_};
  std::optional<OneShot<bool>> written_;
  grpc::Status status_;
  std::optional<std::stop_callback<Canceller>> cancel_;
};

// A server stream by gRPC: of one request.
template <class Request, class Response>
class ClientReadStream final : public ReadStream<Response> {
 public:
  // The peer has a channel.
  ClientReadStream(CallContext& call, const RpcPeer& peer, const std::string& method, Request request,
                   absl::Duration timeout)
      : request_(std::move(request)), stream_(call, timeout) {
    stream_.StartWith(peer, method, request_);
  }
  Task<bool> Read(Response& response) override {
    auto ok = co_await stream_.Read(response);
    co_return ok;
  }
  Task<absl::Status> Finish() override {
    absl::Status status = co_await stream_.Finish();
    co_return status;
  }
  void Cancel() override { stream_.Cancel(); }

 private:
  const Request request_;
  ClientBidiStream<Request, Response> stream_;
};

// A server stream of "tutti.area.v1.Service/Method", begun. `call` outlives it.
template <class Response, class Request>
std::unique_ptr<ReadStream<Response>> OpenStream(CallContext& call, const RpcPeer& peer, const std::string& method,
                                                 Request request, absl::Duration timeout) {
  if (!peer) return std::make_unique<rpc_internal::NoStream<Response>>(method);
  return std::make_unique<ClientReadStream<Request, Response>>(call, peer, method, std::move(request), timeout);
}

}  // namespace tutti
