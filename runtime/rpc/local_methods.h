// The methods of the services in this process, for callers in it: the same messages, statuses, deadlines, cancellation
// and traces as over gRPC, without a transport between them (docs/adr/0011). Methods of other processes are reached in
// the same way where a carrier is given; else the caller has a channel of gRPC.
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
#include "runtime/rpc/local_stream.h"
#include "runtime/rpc/server_calls.h"
#include "runtime/status/macros.h"
#include "runtime/sync/mutex.h"

namespace tutti {

// A network that carries calls as bytes. Methods are named as `tutti.area.v1.Service/Method`.
class MethodCarrier {
 public:
  virtual ~MethodCarrier() = default;
  virtual bool Carries(absl::string_view method) const = 0;
  // As CallUnary.
  virtual Task<absl::Status> Carry(CallContext& call, std::string method, grpc::ByteBuffer& request,
                                   grpc::ByteBuffer& response, absl::Duration timeout) = 0;
  // As OpenStream.
  virtual std::unique_ptr<ReadStream<grpc::ByteBuffer>> CarryStream(CallContext& call, std::string method,
                                                                    const grpc::ByteBuffer& request,
                                                                    absl::Duration timeout) = 0;
};

namespace rpc_internal {

template <class Message>
absl::Status FromBytes(grpc::ByteBuffer& bytes, Message& message) {
  grpc::Status parsed = grpc::SerializationTraits<Message>::Deserialize(&bytes, &message);
  return parsed.ok() ? absl::OkStatus() : absl::InternalError("the message cannot be parsed");
}

// Parses a caller's request. Returns INVALID_ARGUMENT when the bytes are no such message.
template <class Message>
absl::Status RequestFromBytes(grpc::ByteBuffer& bytes, Message& message) {
  if (FromBytes(bytes, message).ok()) return absl::OkStatus();
  return MalformedRequest(Message::descriptor()->full_name());
}

template <class Message>
absl::Status ToBytes(const Message& message, grpc::ByteBuffer& bytes) {
  bytes.Clear();
  bool own = false;
  grpc::Status written = grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own);
  return written.ok() ? absl::OkStatus() : absl::InternalError("the message cannot be serialized");
}

// A stream of bytes as one of messages, or the other way round.
template <class Response>
class ParsedStream final : public ReadStream<Response> {
 public:
  explicit ParsedStream(std::unique_ptr<ReadStream<grpc::ByteBuffer>> bytes) : bytes_(std::move(bytes)) {}
  Task<bool> Read(Response& response) override {
    grpc::ByteBuffer message;
    if (!co_await bytes_->Read(message)) co_return false;
    parsed_ = FromBytes(message, response);
    co_return parsed_.ok();
  }
  Task<absl::Status> Finish() override {
    if (!parsed_.ok()) bytes_->Cancel();
    absl::Status status = co_await bytes_->Finish();
    co_return parsed_.ok() ? status : parsed_;
  }
  void Cancel() override { bytes_->Cancel(); }

 private:
  std::unique_ptr<ReadStream<grpc::ByteBuffer>> bytes_;
  absl::Status parsed_;
};

template <class Response>
class SerializedStream final : public ReadStream<grpc::ByteBuffer> {
 public:
  explicit SerializedStream(std::unique_ptr<ReadStream<Response>> messages) : messages_(std::move(messages)) {}
  Task<bool> Read(grpc::ByteBuffer& bytes) override {
    Response message;
    if (!co_await messages_->Read(message)) co_return false;
    co_return ToBytes(message, bytes).ok();
  }
  Task<absl::Status> Finish() override {
    absl::Status status = co_await messages_->Finish();
    co_return status;
  }
  void Cancel() override { messages_->Cancel(); }

 private:
  std::unique_ptr<ReadStream<Response>> messages_;
};

// What the server's side of a bidirectional stream reads and writes, by its bytes.
template <class Request>
class ParsedReader final : public StreamReader<Request> {
 public:
  explicit ParsedReader(StreamReader<grpc::ByteBuffer>& bytes) : bytes_(bytes) {}
  Task<bool> Read(Request& request) override {
    grpc::ByteBuffer message;
    if (!co_await bytes_.Read(message)) co_return false;
    parsed_ = RequestFromBytes(message, request);
    co_return parsed_.ok();
  }
  // Whether it was the stream that ended, and not what came.
  const absl::Status& parsed() const { return parsed_; }

 private:
  StreamReader<grpc::ByteBuffer>& bytes_;
  absl::Status parsed_;
};

template <class Response>
class SerializedWriter final : public BehindWriter<Response> {
 public:
  explicit SerializedWriter(BehindWriter<grpc::ByteBuffer>& bytes) : bytes_(bytes) {}
  void StartWriting(const Response& response) override {
    (void)ToBytes(response, message_);
    bytes_.StartWriting(message_);
  }
  Task<bool> Written() override { return bytes_.Written(); }
  void WriteLast(Response response) override {
    grpc::ByteBuffer message;
    (void)ToBytes(response, message);
    bytes_.WriteLast(std::move(message));
  }

 private:
  BehindWriter<grpc::ByteBuffer>& bytes_;
  grpc::ByteBuffer message_;
};

}  // namespace rpc_internal

class LocalMethods {
 public:
  // `carrier` may be null; it outlives the calls.
  explicit LocalMethods(TimerService& timers, MethodCarrier* carrier = nullptr) : timers_(timers), carrier_(carrier) {}
  // Before anything is looked for.
  void ReachOthersBy(MethodCarrier& carrier) { carrier_ = &carrier; }

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
  // For server streams.
  template <class Impl, class Request, class Response>
  void AddStream(ServerEnv& env, const char* name, Impl& impl,
                 Task<absl::Status> (Impl::*method)(CallContext&, const Request&, StreamWriter<Response>&)) {
    auto entry = std::make_shared<StreamMethod<Impl, Request, Response>>(env, timers_, name, impl, method);
    MutexLock lock(mutex_);
    streams_[name] = entry;
    typed_[name] = std::static_pointer_cast<TypedStream<Request, Response>>(entry);
  }

  // For bidirectional streams, which are reached from other processes only. A unary method may have the same name, for
  // callers in this process.
  template <class Impl, class Request, class Response>
  void AddBidi(ServerEnv& env, const char* name, Impl& impl,
               Task<absl::Status> (Impl::*method)(CallContext&, StreamReader<Request>&, BehindWriter<Response>&)) {
    auto entry = std::make_shared<BidiMethod<Impl, Request, Response>>(env, name, impl, method);
    MutexLock lock(mutex_);
    bidis_[name] = entry;
  }

  // One method, by its messages.
  template <class Request, class Response>
  class Typed {
   public:
    virtual ~Typed() = default;
    // As CallUnary. `timeout` bounds it even when the call has no deadline.
    virtual Task<absl::Status> Call(CallContext& call, Request request, Response& response, absl::Duration timeout) = 0;
  };
  // Null when the method is no service's of this process, and not carried either.
  template <class Request, class Response>
  std::shared_ptr<Typed<Request, Response>> Find(absl::string_view name) const {
    return FindAs<Typed<Request, Response>, Carried<Request, Response>>(name);
  }

  template <class Request, class Response>
  class TypedStream {
   public:
    virtual ~TypedStream() = default;
    virtual std::unique_ptr<ReadStream<Response>> Open(CallContext& call, const Request& request,
                                                       absl::Duration timeout) = 0;
  };
  template <class Request, class Response>
  std::shared_ptr<TypedStream<Request, Response>> FindStream(absl::string_view name) const {
    return FindAs<TypedStream<Request, Response>, CarriedStream<Request, Response>>(name);
  }

  // One method of this process, by its bytes: for who forwards calls without looking into them.
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
  // One of another process; null when there is no carrier for it.
  std::shared_ptr<Raw> FindCarried(absl::string_view name) const {
    if (carrier_ == nullptr || !carrier_->Carries(name)) return nullptr;
    return std::make_shared<CarriedRaw>(*carrier_, std::string(name));
  }
  class RawStream {
   public:
    virtual ~RawStream() = default;
    virtual std::unique_ptr<ReadStream<grpc::ByteBuffer>> OpenBytes(CallContext& call, grpc::ByteBuffer& request) = 0;
  };
  std::shared_ptr<RawStream> FindRawStream(absl::string_view name) const {
    MutexLock lock(mutex_);
    auto it = streams_.find(name);
    return it == streams_.end() ? nullptr : it->second;
  }
  std::shared_ptr<ByteMethod> FindBidi(absl::string_view name) const {
    MutexLock lock(mutex_);
    auto it = bidis_.find(name);
    return it == bidis_.end() ? nullptr : it->second;
  }
  std::shared_ptr<RawStream> FindCarriedStream(absl::string_view name) const {
    if (carrier_ == nullptr || !carrier_->Carries(name)) return nullptr;
    return std::make_shared<CarriedRawStream>(*carrier_, std::string(name));
  }

 private:
  template <class Request, class Response, class Impl, class Handler>
  void Put(ServerEnv& env, const char* name, Impl& impl, Handler handler) {
    auto entry = std::make_shared<Method<Impl, Handler, Request, Response>>(env, timers_, name, impl, handler);
    MutexLock lock(mutex_);
    methods_[name] = entry;
    typed_[name] = std::static_pointer_cast<Typed<Request, Response>>(entry);
  }

  // Names stand for one pair of messages: both are made from the same contract.
  template <class As, class ByCarrier>
  std::shared_ptr<As> FindAs(absl::string_view name) const {
    MutexLock lock(mutex_);
    auto it = typed_.find(name);
    if (it != typed_.end()) return std::static_pointer_cast<As>(it->second);
    if (carrier_ == nullptr || !carrier_->Carries(name)) return nullptr;
    std::shared_ptr<As> carried = std::make_shared<ByCarrier>(*carrier_, std::string(name));
    typed_[std::string(name)] = carried;
    return carried;
  }

  template <class Request, class Response>
  class Carried final : public Typed<Request, Response> {
   public:
    Carried(MethodCarrier& carrier, std::string name) : carrier_(carrier), name_(std::move(name)) {}
    Task<absl::Status> Call(CallContext& call, Request request, Response& response, absl::Duration timeout) override {
      if (call.stop.stop_requested()) co_return absl::CancelledError("the caller gave up");
      Span span = call.tracer->Start(name_, SpanKind::kClient, call.trace);
      CallContext child = call;
      child.trace = span.context();
      grpc::ByteBuffer bytes, answer;
      absl::Status status = rpc_internal::ToBytes(request, bytes);
      if (status.ok()) status = co_await carrier_.Carry(child, name_, bytes, answer, timeout);
      if (status.ok()) status = rpc_internal::FromBytes(answer, response);
      span.SetStatus(status);
      co_return status;
    }

   private:
    MethodCarrier& carrier_;
    const std::string name_;
  };

  class CarriedRaw final : public Raw {
   public:
    CarriedRaw(MethodCarrier& carrier, std::string name) : carrier_(carrier), name_(std::move(name)) {}
    Task<absl::Status> CallBytes(CallContext& call, grpc::ByteBuffer& request, grpc::ByteBuffer& response) override {
      absl::Status status = co_await carrier_.Carry(call, name_, request, response, absl::InfiniteDuration());
      co_return status;
    }

   private:
    MethodCarrier& carrier_;
    const std::string name_;
  };

  class CarriedRawStream final : public RawStream {
   public:
    CarriedRawStream(MethodCarrier& carrier, std::string name) : carrier_(carrier), name_(std::move(name)) {}
    std::unique_ptr<ReadStream<grpc::ByteBuffer>> OpenBytes(CallContext& call, grpc::ByteBuffer& request) override {
      return carrier_.CarryStream(call, name_, request, absl::InfiniteDuration());
    }

   private:
    MethodCarrier& carrier_;
    const std::string name_;
  };

  template <class Request, class Response>
  class CarriedStream final : public TypedStream<Request, Response> {
   public:
    CarriedStream(MethodCarrier& carrier, std::string name) : carrier_(carrier), name_(std::move(name)) {}
    std::unique_ptr<ReadStream<Response>> Open(CallContext& call, const Request& request,
                                               absl::Duration timeout) override {
      grpc::ByteBuffer bytes;
      (void)rpc_internal::ToBytes(request, bytes);
      return std::make_unique<rpc_internal::ParsedStream<Response>>(carrier_.CarryStream(call, name_, bytes, timeout));
    }

   private:
    MethodCarrier& carrier_;
    const std::string name_;
  };

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
      if (!env_.scope.Spawn(env_.executor, Serve(running, rpc_internal::CallOrigin(call), deadline))) {
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
      TUTTI_CO_RETURN_IF_ERROR(rpc_internal::RequestFromBytes(bytes, request));
      Response response;
      absl::Status status = co_await Call(call, std::move(request), response, absl::InfiniteDuration());
      if (status.ok()) status = rpc_internal::ToBytes(response, out);
      co_return status;
    }

   private:
    // Shared, for a caller may go before its callee.
    struct Running {
      Request request;
      Response response;
      std::stop_source stop;
      OneShot<absl::Status> done;
    };

    Task<void> Serve(std::shared_ptr<Running> running, rpc_internal::CallOrigin origin, absl::Time deadline) {
      rpc_internal::ServedCall local(env_, name_, std::move(origin), deadline, running->stop.get_token());
      const bool repeatable = rpc_internal::HasRequestId(running->request);
      absl::Status status = co_await rpc_internal::StartMethod(impl_, handler_, local.call(),
                                                               std::move(running->request), running->response);
      if (repeatable && absl::IsUnknown(status)) status = rpc_internal::AsRepeatable(status);
      local.End(status);
      running->done.Set(std::move(status));
    }

    ServerEnv& env_;
    TimerService& timers_;
    const std::string name_;
    Impl& impl_;
    const Handler handler_;
  };

  template <class Impl, class Request, class Response>
  class StreamMethod final : public TypedStream<Request, Response>, public RawStream {
   public:
    using Handler = Task<absl::Status> (Impl::*)(CallContext&, const Request&, StreamWriter<Response>&);
    StreamMethod(ServerEnv& env, TimerService& timers, std::string name, Impl& impl, Handler handler)
        : env_(env), timers_(timers), name_(std::move(name)), impl_(impl), handler_(handler) {}

    std::unique_ptr<ReadStream<Response>> Open(CallContext& call, const Request& request,
                                               absl::Duration timeout) override {
      auto pipe = std::make_shared<rpc_internal::LocalPipe<Response>>(env_.executor);
      absl::Time now = env_.clock.Now();
      absl::Time deadline = timeout == absl::InfiniteDuration() ? absl::InfiniteFuture() : now + timeout;
      deadline = std::min(deadline, call.deadline);
      if (!env_.scope.Spawn(env_.executor, Serve(pipe, request, rpc_internal::CallOrigin(call), deadline))) {
        pipe->End(rpc_internal::ShuttingDown());
      }
      return std::make_unique<rpc_internal::LocalStream<Response>>(call, std::move(pipe), timers_, deadline - now);
    }
    std::unique_ptr<ReadStream<grpc::ByteBuffer>> OpenBytes(CallContext& call, grpc::ByteBuffer& bytes) override {
      Request request;
      std::unique_ptr<ReadStream<Response>> stream;
      if (absl::Status parsed = rpc_internal::RequestFromBytes(bytes, request); parsed.ok()) {
        stream = Open(call, request, absl::InfiniteDuration());
      } else {
        auto pipe = std::make_shared<rpc_internal::LocalPipe<Response>>(env_.executor);
        pipe->End(parsed);
        stream = std::make_unique<rpc_internal::LocalStream<Response>>(call, std::move(pipe), timers_,
                                                                       absl::InfiniteDuration());
      }
      return std::make_unique<rpc_internal::SerializedStream<Response>>(std::move(stream));
    }

   private:
    Task<void> Serve(std::shared_ptr<rpc_internal::LocalPipe<Response>> pipe, Request request,
                     rpc_internal::CallOrigin origin, absl::Time deadline) {
      rpc_internal::ServedCall local(env_, name_, std::move(origin), deadline, pipe->stop_token());
      StreamWriter<Response>& writer = *pipe;
      absl::Status status = co_await rpc_internal::StartMethod(impl_, handler_, local.call(), request, writer);
      local.End(status);
      pipe->End(std::move(status));
    }

    ServerEnv& env_;
    TimerService& timers_;
    const std::string name_;
    Impl& impl_;
    const Handler handler_;
  };

  template <class Impl, class Request, class Response>
  class BidiMethod final : public ByteMethod {
   public:
    using Handler = Task<absl::Status> (Impl::*)(CallContext&, StreamReader<Request>&, BehindWriter<Response>&);
    BidiMethod(ServerEnv& env, std::string name, Impl& impl, Handler handler)
        : env_(env), name_(std::move(name)), impl_(impl), handler_(handler) {}
    Task<absl::Status> Serve(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                             BehindWriter<grpc::ByteBuffer>& writer) override {
      rpc_internal::ServedCall served(env_, name_, rpc_internal::CallOrigin(call), call.deadline, call.stop);
      rpc_internal::ParsedReader<Request> requests(reader);
      rpc_internal::SerializedWriter<Response> responses(writer);
      StreamReader<Request>& from = requests;
      BehindWriter<Response>& to = responses;
      absl::Status status = co_await rpc_internal::StartMethod(impl_, handler_, served.call(), from, to);
      if (status.ok()) status = requests.parsed();
      served.End(status);
      co_return status;
    }

   private:
    ServerEnv& env_;
    const std::string name_;
    Impl& impl_;
    const Handler handler_;
  };

  TimerService& timers_;
  MethodCarrier* carrier_;
  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<ByteMethod>> bidis_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::shared_ptr<Raw>> methods_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::shared_ptr<RawStream>> streams_ ABSL_GUARDED_BY(mutex_);
  mutable absl::flat_hash_map<std::string, std::shared_ptr<void>> typed_ ABSL_GUARDED_BY(mutex_);
};

// CallUnary, without a transport when the method is a service's of this process.
template <class Request, class Response>
Task<absl::Status> CallUnary(const LocalMethods& local, CallContext& call, const RpcPeer& peer, const char* name,
                             Request request, Response& response, absl::Duration timeout) {
  if (auto here = local.Find<Request, Response>(name)) {
    absl::Status status = co_await here->Call(call, std::move(request), response, timeout);
    co_return status;
  }
  std::string method = name;
  absl::Status status = co_await CallUnary(call, peer, std::move(method), request, response, timeout);
  co_return status;
}

// A server stream, begun; without a transport when the method is a service's of this process. `call` outlives it.
template <class Response, class Request>
std::unique_ptr<ReadStream<Response>> OpenStream(const LocalMethods& local, CallContext& call, const RpcPeer& peer,
                                                 const char* name, const Request& request, absl::Duration timeout) {
  if (auto here = local.FindStream<Request, Response>(name)) return here->Open(call, request, timeout);
  return OpenStream<Response>(call, peer, name, request, timeout);
}

}  // namespace tutti
