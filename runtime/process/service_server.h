// The serving half that all modules share: event loop, scope, tracer, log, RPC server, in the order in which they end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/process/runtime.h"
#include "runtime/rpc/rpc_server.h"
#include "runtime/rpc/server_calls.h"

namespace tutti {

class ServiceServer {
 public:
  ServiceServer(Runtime& runtime, const std::string& name)
      : name_(name),
        runtime_(runtime),
        log_(name, runtime.log_level, runtime.clock),
        tracer_(runtime.NewTracer(name)),
        loop_(name),
        env_{loop_, scope_, *tracer_, runtime.rpc_metrics, runtime.clock} {}
  ~ServiceServer() { Drain(absl::Now()); }

  ServerEnv& env() { return env_; }
  Logger& log() { return log_; }
  Tracer& tracer() { return *tracer_; }
  Executor& loop() { return loop_; }
  Runtime& runtime() { return runtime_; }

  absl::Status Serve(RpcServer::Options options) {
    options.name = name_;
    auto server = RpcServer::Start(std::move(options));
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return absl::OkStatus();
  }
  RpcServer& server() { return *server_; }

  // No new calls; running ones end or are cancelled at `deadline`.
  void Drain(absl::Time deadline) {
    if (server_) server_->Shutdown(deadline);
    scope_.CloseAndWait();
  }

 private:
  const std::string name_;
  Runtime& runtime_;
  Logger log_;
  std::unique_ptr<Tracer> tracer_;
  EventLoop loop_;
  Scope scope_;
  ServerEnv env_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace tutti
