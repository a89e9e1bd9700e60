// One gRPC server: services, health, reflection, limits, and an ordered end.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Channel;
class CallbackGenericService;
}  // namespace grpc

namespace tutti {

class ReflectionV1;
class ReflectionV1Alpha;

class RpcServer {
 public:
  struct Options {
    std::string name;       // for messages, for example "state-manager"
    std::string address;    // host:port; empty: reachable only by InProcess()
    std::string port_flag;  // the flag to name when the port is taken
    int max_message_bytes = 4 << 20;
    std::vector<grpc::Service*> services;             // must outlive the server
    grpc::CallbackGenericService* generic = nullptr;  // takes every method nobody else has
    std::vector<std::string> reflected;               // full names that reflection lists, besides those of `services`
  };
  // UNAVAILABLE with the port and the flag when the address is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(Options options);
  ~RpcServer();

  std::shared_ptr<grpc::Channel> InProcess() const;
  int port() const { return port_; }
  void SetServing(bool serving);
  // Refuses new calls, lets running ones end until `deadline`, then cancels them. From a thread that serves no calls.
  void Shutdown(absl::Time deadline);

 private:
  RpcServer();
  std::unique_ptr<ReflectionV1> reflection_v1_;
  std::unique_ptr<ReflectionV1Alpha> reflection_v1alpha_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  int max_message_bytes_ = 0;
};

}  // namespace tutti
