// One gRPC server: methods by their bytes, health, reflection, limits, and an ordered end.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/rpc/health.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/reflection.h"
#include "runtime/rpc/rpc_queue.h"
#include "runtime/rpc/served_methods.h"

namespace tutti {

class RpcServer {
 public:
  struct Options {
    std::string name;       // for messages, for example "state-manager"
    std::string address;    // host:port; empty: reachable only by InProcess()
    std::string port_flag;  // the flag to name when the port is taken
    int max_message_bytes = 4 << 20;
    ByteMethods* methods = nullptr;      // besides health and reflection; outlives the server
    std::vector<std::string> reflected;  // full names of the services that reflection lists
    Readiness* readiness = nullptr;      // what health says; outlives the server. Null: always ready
  };
  // Calls arrive in `queue`, whose only server this is, and run on the environment's executor. All outlive the server.
  // UNAVAILABLE with the port and the flag when the address is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(Options options, ServerEnv& env, RpcQueue& queue,
                                                          TimerService& timers);
  ~RpcServer();

  std::shared_ptr<grpc::Channel> InProcess() const;
  int port() const { return port_; }
  // Refuses new calls, lets running ones end until `deadline`, then cancels them. From a thread that serves no calls.
  void Shutdown(absl::Time deadline);

 private:
  class Call;

  RpcServer(Options options, ServerEnv& env, RpcQueue& queue, TimerService& timers);
  void Expect();  // one more call
  void Left();

  const Options options_;
  ServerEnv& env_;
  RpcQueue& queue_;
  Health health_;
  Reflection reflection_;
  LocalMethods own_;
  ServedMethods own_served_;
  grpc::AsyncGenericService generic_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  Mutex mutex_;
  CondVar none_;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;  // under way or expected
};

}  // namespace tutti
