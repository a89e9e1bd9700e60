#include "runtime/rpc/rpc_server.h"

#include <grpcpp/grpcpp.h>

#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/rpc/channel.h"
#include "runtime/rpc/stream_ops.h"
#include "runtime/status/error.h"
#include "runtime/status/grpc_status.h"

namespace tutti {
namespace {

// How many calls may arrive before the queue is looked at again; more wait in the server.
constexpr int kExpected = 32;

std::string MetadataOf(const grpc::GenericServerContext& context, const char* key) {
  auto it = context.client_metadata().find(key);
  return it == context.client_metadata().end() ? "" : std::string(it->second.data(), it->second.size());
}

}  // namespace

// One call, from before it arrives. It ends when its handler has, and gRPC has given back all tags.
class RpcServer::Call final : public StreamReader<grpc::ByteBuffer>, public BehindWriter<grpc::ByteBuffer> {
 public:
  explicit Call(RpcServer& server) : server_(server), stream_(&context_) {
    context_.AsyncNotifyWhenDone(static_cast<EventSource::Event*>(&gone_));
    server_.generic_.RequestCall(&context_, &stream_, &server_.queue_.queue(), &server_.queue_.queue(),
                                 static_cast<EventSource::Event*>(&arrived_));
  }
  ~Call() override { server_.Left(); }

  Task<bool> Read(grpc::ByteBuffer& request) override {
    OneShot<bool> arrived;
    stream_.Read(&request, read_.Begin(&arrived));
    auto ok = co_await arrived.Wait(server_.env_.executor);
    co_return ok;
  }
  void StartWriting(const grpc::ByteBuffer& response) override {
    written_.emplace();
    stream_.Write(response, write_.Begin(&*written_));
  }
  Task<bool> Written() override {
    if (!written_) co_return true;
    auto ok = co_await written_->Wait(server_.env_.executor);
    co_return ok;
  }
  void WriteLast(grpc::ByteBuffer response) override { last_.emplace(std::move(response)); }

 private:
  template <void (Call::*kThen)(bool ok)>
  struct On final : public EventSource::Event {
    explicit On(Call& of) : call(of) {}
    void Happened(bool ok) override { (call.*kThen)(ok); }
    Call& call;
  };

  void Arrived(bool ok) {
    if (!ok) {  // the server ends
      delete this;
      return;
    }
    count_.More();  // until Gone
    server_.Expect();
    ServerEnv& env = server_.env_;
    ByteMethod* method = server_.own_served_.Find(context_.method());
    const bool own = method != nullptr;
    if (!own && server_.options_.methods) method = server_.options_.methods->Find(context_.method());
    if (!env.scope.Spawn(env.executor, Serve(method, own))) {
      End(rpc_internal::ShuttingDown());
    }
  }
  // It was answered, or given up.
  void Gone(bool) {
    if (context_.IsCancelled()) stop_.request_stop();
    count_.Less();
  }

  // `own`: the server's own methods, which probes ask for all day.
  Task<void> Serve(ByteMethod* method, bool own) {
    CallContext call(server_.env_.executor, server_.env_.tracer);
    Fill(call);
    if (own) call.trace = TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};
    absl::Status status = absl::UnimplementedError(absl::StrCat("there is no method ", context_.method()));
    if (method) status = co_await method->Serve(call, *this, *this);
    (void)co_await Written();
    End(std::move(status));
  }

  void Fill(CallContext& call) {
    if (auto deadline = context_.deadline(); deadline != std::chrono::system_clock::time_point::max()) {
      call.deadline = absl::FromChrono(deadline);
    }
    call.stop = stop_.get_token();
    call.trace = TraceContext::FromTraceparent(MetadataOf(context_, "traceparent"));
    if (!server_.env_.edge) {
      call.actor = MetadataOf(context_, "tutti-actor");
      call.origin = MetadataOf(context_, "tutti-origin");
      call.call_id = MetadataOf(context_, "tutti-call-id");
      int64_t start_within = 0;
      if (absl::SimpleAtoi(MetadataOf(context_, "tutti-start-within"), &start_within)) {
        call.start_by = server_.env_.clock.Now() + absl::Milliseconds(start_within);
      }
    }
    if (call.actor.empty()) call.actor = "anonymous";
    if (call.origin.empty()) call.origin = context_.peer();
  }

  async_internal::Detached End(absl::Status status) {
    const grpc::Status out = ToGrpc(status);
    if (last_ && out.ok()) {
      stream_.WriteAndFinish(*last_, grpc::WriteOptions(), out, finish_.Begin(nullptr));
    } else {
      stream_.Finish(out, finish_.Begin(nullptr));
    }
    co_await count_.AwaitNone(server_.env_.executor);
    delete this;
  }

  RpcServer& server_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  StreamOpCount count_;
  On<&Call::Arrived> arrived_{*this};
  On<&Call::Gone> gone_{*this};
  StreamOp read_{count_}, write_{count_}, finish_{count_};
  std::stop_source stop_;
  std::optional<OneShot<bool>> written_;
  std::optional<grpc::ByteBuffer> last_;
};

RpcServer::RpcServer(Options options, ServerEnv& env, RpcQueue& queue, TimerService& timers)
    : options_(std::move(options)),
      env_(env),
      queue_(queue),
      health_(env, options_.reflected, options_.readiness),
      reflection_(env, options_.reflected),
      own_(timers),
      own_served_(own_) {
  health_.Offer(own_);
  reflection_.Offer(own_);
}

RpcServer::~RpcServer() { Shutdown(absl::Now()); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(Options options, ServerEnv& env, RpcQueue& queue,
                                                            TimerService& timers) {
  std::unique_ptr<RpcServer> out(new RpcServer(std::move(options), env, queue, timers));
  const Options& given = out->options_;
  grpc::ServerBuilder& builder = queue.builder();
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port must be an error, not a shared one
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.SetMaxReceiveMessageSize(given.max_message_bytes);
  int port = 0;
  if (!given.address.empty()) builder.AddListeningPort(given.address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterAsyncGenericService(&out->generic_);
  out->server_ = queue.StartServer();
  if (!out->server_ || (!given.address.empty() && port == 0)) {
    return Error(absl::StatusCode::kUnavailable, "PORT_TAKEN",
                 absl::StrCat(given.name, ": cannot listen on ", given.address,
                              " (another process has the port?); choose another with ", given.port_flag))
        .Metadata("address", given.address);
  }
  out->port_ = port;
  for (int i = 0; i < kExpected; ++i) out->Expect();
  return out;
}

void RpcServer::Expect() {
  {
    MutexLock lock(mutex_);
    ++calls_;
  }
  new Call(*this);
}

void RpcServer::Left() {
  MutexLock lock(mutex_);
  if (--calls_ == 0) none_.NotifyAll();
}

std::shared_ptr<grpc::Channel> RpcServer::InProcess() const {
  return server_->InProcessChannel(DefaultChannelArguments(options_.max_message_bytes));
}

void RpcServer::Shutdown(absl::Time deadline) {
  if (!server_) return;
  health_.End();
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
  {
    MutexLock lock(mutex_);
    while (calls_ > 0) none_.Wait(mutex_);
  }
  server_.reset();
}

}  // namespace tutti
