// The serving half that all modules share: event loop, scope, tracer, log, RPC server, in the order in which they end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/async/sync_wait.h"
#include "runtime/process/runtime.h"
#include "runtime/rpc/call_stream_rpc.h"
#include "runtime/rpc/rpc_server.h"
#include "runtime/rpc/server_calls.h"

namespace tutti {

class ServiceServer {
 public:
  // `alone`: on a loop of its own even where services share one, since it works much and nobody waits for it.
  ServiceServer(Runtime& runtime, const std::string& name, bool alone = false)
      : name_(name),
        runtime_(runtime),
        log_(name, runtime.log_level, runtime.clock),
        tracer_(runtime.NewTracer(name)),
        own_rpc_loop_(runtime.shared_loop ? nullptr : std::make_unique<RpcLoop>(name)),
        own_loop_(runtime.shared_loop && alone && runtime.listens ? std::make_unique<EventLoop>(name) : nullptr),
        loop_(own_rpc_loop_ ? static_cast<Executor&>(*own_rpc_loop_)
              : own_loop_   ? *own_loop_
                            : *runtime.shared_loop),
        env_{loop_, scope_, *tracer_, runtime.rpc_metrics, runtime.clock},
        served_(runtime.local_methods) {}
  ~ServiceServer() {
    Drain(absl::Now());
    if (own_loop_ || own_rpc_loop_) return;
    // What was posted for this service has run when it goes, as if the loop were its own.
    OneShot<bool> passed;
    loop_.Post([&passed] { passed.Set(true); });
    SyncWait(Passed(passed, loop_));
  }

  ServerEnv& env() { return env_; }
  Logger& log() { return log_; }
  Tracer& tracer() { return *tracer_; }
  Executor& loop() { return loop_; }
  Runtime& runtime() { return runtime_; }
  // Returns what health checks report of this service.
  Readiness& readiness() { return runtime_.readiness.Of(name_); }

  // By gRPC. What has no address is reached by the runtime's local methods only.
  absl::Status Serve(RpcServer::Options options) {
    if (!runtime_.listens || options.address.empty()) return absl::OkStatus();
    options.name = name_;
    options.readiness = &readiness();
    // By who is not believed nothing is reached by streams of calls.
    if (!env_.edge) {
      call_streams_ = std::make_unique<CallStreamRpc>(env_, runtime_.local_methods, runtime_.ids.NewUlid());
      call_streams_->Offer(runtime_.local_methods);
    }
    if (!options.methods) options.methods = &served_;
    RpcQueue& queue = own_rpc_loop_ ? own_rpc_loop_->rpc() : *runtime_.rpc_queue;
    auto server = RpcServer::Start(std::move(options), env_, queue, runtime_.timers);
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return absl::OkStatus();
  }
  RpcServer& server() { return *server_; }

  // No new calls; running ones end or are cancelled at `deadline`.
  void Drain(absl::Time deadline) {
    if (call_streams_) call_streams_->Drain();
    if (server_) server_->Shutdown(deadline);
    scope_.CloseAndWait();
  }

 private:
  static Task<void> Passed(OneShot<bool>& passed, Executor& loop) { co_await passed.Wait(loop); }

  const std::string name_;
  Runtime& runtime_;
  Logger log_;
  std::unique_ptr<Tracer> tracer_;
  std::unique_ptr<RpcLoop> own_rpc_loop_;
  std::unique_ptr<EventLoop> own_loop_;
  Executor& loop_;
  Scope scope_;
  ServerEnv env_;
  ServedMethods served_;
  std::unique_ptr<CallStreamRpc> call_streams_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace tutti
