// What serves calls: handlers are coroutines that never see gRPC. local_methods.h finds them by name, rpc_server.h
// brings calls from other processes to them.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/rpc/call_context.h"
#include "runtime/rpc/rpc_metrics.h"

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

absl::Status ShuttingDown();
// Returns INVALID_ARGUMENT for bytes that are no message of that type.
absl::Status MalformedRequest(absl::string_view type);
// Returns UNAVAILABLE for an error that leaves open what was committed. A request with an id may be sent again.
absl::Status AsRepeatable(const absl::Status& status);

template <class Request>
bool HasRequestId(const Request& request) {
  if constexpr (requires { request.request_id(); }) return !request.request_id().empty();
  return false;
}

// A member's coroutine, begun by an ordinary function: with sanitizers GCC 12 reads an uninitialised temporary where a
// coroutine calls through a pointer to a member.
template <class Impl, class Method, class... Args>
auto StartMethod(Impl& impl, Method method, Args&&... args) {
  return (impl.*method)(std::forward<Args>(args)...);
}

// What of a caller's context goes along.
struct CallOrigin {
  explicit CallOrigin(const CallContext& call)
      : trace(call.trace), start_by(call.start_by), actor(call.actor), origin(call.origin), call_id(call.call_id) {}
  TraceContext trace;
  absl::Time start_by;
  std::string actor, origin, call_id;
};

// The callee's side of a call: its span, its context, its place in the metrics.
class ServedCall {
 public:
  // `name` outlives it.
  ServedCall(ServerEnv& env, const std::string& name, CallOrigin origin, absl::Time deadline, std::stop_token stop);
  CallContext& call() { return call_; }
  void End(const absl::Status& status);

 private:
  ServerEnv& env_;
  const std::string& name_;
  const absl::Time start_;
  Span span_;
  CallContext call_;
};

}  // namespace rpc_internal

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

// One method by its bytes, whatever its shape: a unary one reads one message and writes one.
class ByteMethod {
 public:
  virtual ~ByteMethod() = default;
  virtual Task<absl::Status> Serve(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                                   BehindWriter<grpc::ByteBuffer>& writer) = 0;
};

// What a server serves.
class ByteMethods {
 public:
  virtual ~ByteMethods() = default;
  // "/tutti.area.v1.Service/Method"; null: there is no such method. It lives as long as this. On one thread.
  virtual ByteMethod* Find(absl::string_view path) = 0;
};

}  // namespace tutti
