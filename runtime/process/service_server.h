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
        own_loop_(runtime.shared_loop && (!alone || !runtime.listens) ? nullptr : std::make_unique<EventLoop>(name)),
        loop_(own_loop_ ? *own_loop_ : *runtime.shared_loop),
        env_{loop_, scope_, *tracer_, runtime.rpc_metrics, runtime.clock} {}
  ~ServiceServer() {
    Drain(absl::Now());
    if (own_loop_) return;
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

  // Nothing, where nobody listens: calls then come by the runtime's local methods.
  absl::Status Serve(RpcServer::Options options) {
    if (!runtime_.listens) return absl::OkStatus();
    options.name = name_;
    // What is reached inside the process only, and by who is not believed, is not reached by streams of calls.
    if (!options.address.empty() && !env_.edge) {
      call_streams_ = std::make_unique<CallStreamRpc>(env_, runtime_.local_methods, runtime_.ids.NewUlid());
      options.services.push_back(call_streams_.get());
    }
    auto server = RpcServer::Start(std::move(options));
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
  std::unique_ptr<EventLoop> own_loop_;
  Executor& loop_;
  Scope scope_;
  ServerEnv env_;
  std::unique_ptr<CallStreamRpc> call_streams_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace tutti
