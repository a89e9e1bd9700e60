// Serves RPCs by coroutines over gRPC's callback API. This file and client_calls.h are the only ones that hold
// reactors; handlers never see gRPC. The reactor's contract is gRFC L67: one Finish, as the driver's last act; OnDone
// deletes.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <optional>
#include <string>
#include <utility>

#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/rpc/call_context.h"
#include "runtime/rpc/rpc_metrics.h"
#include "runtime/status/error.h"
#include "runtime/status/grpc_status.h"

namespace tutti {

// What the serving of one service needs. Must outlive the service's server.
struct ServerEnv {
  Executor& executor;
  Scope& scope;
  Tracer& tracer;
  RpcMetrics& metrics;
  const Clock& clock;
  // The outermost server: what callers say of themselves is not believed.
  bool edge = false;
};

namespace rpc_internal {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context);
std::string MetadataOf(const grpc::CallbackServerContext& context, const char* key);
absl::Status ShuttingDown();

// A member's coroutine, begun by an ordinary function: with sanitizers GCC 12 reads an uninitialised temporary where a
// coroutine calls through a pointer to a member.
template <class Impl, class Method, class... Args>
auto StartMethod(Impl& impl, Method method, Args&&... args) {
  return (impl.*method)(std::forward<Args>(args)...);
}

// The part of a call that is the same for every shape: span, metrics, context.
class CallRecord {
 public:
  CallRecord(ServerEnv& env, grpc::CallbackServerContext& context, std::stop_token stop, std::string method);
  CallContext& call() { return call_; }
  // Ends span and metrics; the status to finish with.
  grpc::Status End(const absl::Status& status);

 private:
  ServerEnv& env_;
  std::string method_;
  absl::Time start_;
  Span span_;
  CallContext call_;
};

template <class Request, class Response, class Impl>
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  using Method = Task<absl::Status> (Impl::*)(CallContext&, const Request&, Response&);
  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }

  Task<void> Drive(ServerEnv& env, grpc::CallbackServerContext& context, const Request& request, Response& response,
                   Impl& impl, Method method, const char* name) {
    CallRecord record(env, context, stop_.get_token(), name);
    absl::Status status = co_await StartMethod(impl, method, record.call(), request, response);
    grpc::Status out = record.End(status);
    Finish(std::move(out));
  }

 private:
  std::stop_source stop_;
};

}  // namespace rpc_internal

template <class Request, class Response, class Impl>
grpc::ServerUnaryReactor* ServeUnary(ServerEnv& env, grpc::CallbackServerContext* context, const Request* request,
                                     Response* response, Impl& impl, const char* name,
                                     Task<absl::Status> (Impl::*method)(CallContext&, const Request&, Response&)) {
  auto* call = new rpc_internal::UnaryCall<Request, Response, Impl>();
  if (!env.scope.Spawn(env.executor, call->Drive(env, *context, *request, *response, impl, method, name))) {
    call->Finish(ToGrpc(rpc_internal::ShuttingDown()));
  }
  return call;
}

// The sending side of a stream. One Write at a time; awaiting it is the back-pressure.
template <class Response>
class StreamWriter {
 public:
  virtual ~StreamWriter() = default;
  // False when the client has gone. `response` must live until then.
  virtual Task<bool> Write(const Response& response) = 0;
  // The last message: sent together with the call's end, when its status is OK.
  virtual void WriteLast(Response response) = 0;
};

// One that can be left to write while its caller does something else: nobody is woken for what nobody waits for.
template <class Response>
class BehindWriter : public StreamWriter<Response> {
 public:
  // `response` must live until Written() has returned.
  virtual void StartWriting(const Response& response) = 0;
  // Until what was started last is written; at once when nothing was. False when the client has gone.
  virtual Task<bool> Written() = 0;
  Task<bool> Write(const Response& response) final {
    StartWriting(response);
    return Written();
  }
};

// The receiving side of a stream. One Read at a time.
template <class Request>
class StreamReader {
 public:
  virtual ~StreamReader() = default;
  // False at the end of the stream.
  virtual Task<bool> Read(Request& request) = 0;
};

namespace rpc_internal {

template <class Request, class Response, class Impl>
class ServerStreamCall final : public grpc::ServerWriteReactor<Response>, public StreamWriter<Response> {
 public:
  using Method = Task<absl::Status> (Impl::*)(CallContext&, const Request&, StreamWriter<Response>&);
  explicit ServerStreamCall(Executor& executor) : executor_(executor) {}
  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override { write_->Set(ok); }

  Task<bool> Write(const Response& response) override {
    OneShot<bool> written;
    write_ = &written;
    this->StartWrite(&response);
    auto ok = co_await written.Wait(executor_);
    co_return ok;
  }

  Task<void> Drive(ServerEnv& env, grpc::CallbackServerContext& context, const Request& request, Impl& impl,
                   Method method, const char* name) {
    CallRecord record(env, context, stop_.get_token(), name);
    StreamWriter<Response>& writer = *this;
    absl::Status status = co_await StartMethod(impl, method, record.call(), request, writer);
    grpc::Status out = record.End(status);
    if (last_ && out.ok()) {
      this->StartWriteAndFinish(&*last_, {}, std::move(out));
    } else {
      this->Finish(std::move(out));
    }
  }
  void WriteLast(Response response) override { last_.emplace(std::move(response)); }

 private:
  Executor& executor_;
  std::stop_source stop_;
  OneShot<bool>* write_ = nullptr;
  std::optional<Response> last_;
};

// Base is ServerBidiReactor<Request, Response>.
template <class Request, class Response, class Impl>
class BidiCall final : public grpc::ServerBidiReactor<Request, Response>,
                       public BehindWriter<Response>,
                       public StreamReader<Request> {
 public:
  using Method = Task<absl::Status> (Impl::*)(CallContext&, StreamReader<Request>&, BehindWriter<Response>&);
  explicit BidiCall(Executor& executor) : executor_(executor) {}
  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override { written_->Set(ok); }
  void OnReadDone(bool ok) override { read_->Set(ok); }

  void StartWriting(const Response& response) override {
    written_.emplace();
    this->StartWrite(&response);
  }
  Task<bool> Written() override {
    if (!written_) co_return true;
    auto ok = co_await written_->Wait(executor_);
    co_return ok;
  }
  Task<bool> Read(Request& request) override {
    OneShot<bool> arrived;
    read_ = &arrived;
    this->StartRead(&request);
    auto ok = co_await arrived.Wait(executor_);
    co_return ok;
  }

  Task<void> Drive(ServerEnv& env, grpc::CallbackServerContext& context, Impl& impl, Method method, const char* name) {
    CallRecord record(env, context, stop_.get_token(), name);
    StreamReader<Request>& reader = *this;
    BehindWriter<Response>& writer = *this;
    absl::Status status = co_await StartMethod(impl, method, record.call(), reader, writer);
    (void)co_await Written();
    grpc::Status out = record.End(status);
    if (last_ && out.ok()) {
      this->StartWriteAndFinish(&*last_, {}, std::move(out));
    } else {
      this->Finish(std::move(out));
    }
  }
  void WriteLast(Response response) override { last_.emplace(std::move(response)); }

 private:
  Executor& executor_;
  std::stop_source stop_;
  std::optional<OneShot<bool>> written_;
  OneShot<bool>* read_ = nullptr;
  std::optional<Response> last_;
};

}  // namespace rpc_internal

template <class Request, class Response, class Impl>
grpc::ServerWriteReactor<Response>* ServeServerStream(ServerEnv& env, grpc::CallbackServerContext* context,
                                                      const Request* request, Impl& impl, const char* name,
                                                      Task<absl::Status> (Impl::*method)(CallContext&, const Request&,
                                                                                         StreamWriter<Response>&)) {
  auto* call = new rpc_internal::ServerStreamCall<Request, Response, Impl>(env.executor);
  if (!env.scope.Spawn(env.executor, call->Drive(env, *context, *request, impl, method, name))) {
    call->Finish(ToGrpc(rpc_internal::ShuttingDown()));
  }
  return call;
}

template <class Request, class Response, class Impl>
grpc::ServerBidiReactor<Request, Response>* ServeBidi(
    ServerEnv& env, grpc::CallbackServerContext* context, Impl& impl, const char* name,
    Task<absl::Status> (Impl::*method)(CallContext&, StreamReader<Request>&, BehindWriter<Response>&)) {
  auto* call = new rpc_internal::BidiCall<Request, Response, Impl>(env.executor);
  if (!env.scope.Spawn(env.executor, call->Drive(env, *context, impl, method, name))) {
    call->Finish(ToGrpc(rpc_internal::ShuttingDown()));
  }
  return call;
}

}  // namespace tutti
