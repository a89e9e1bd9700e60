// grpc.health.v1: what load balancers and Kubernetes' probes ask. gRPC's own service answers by threads of its own.
#pragma once

#include <string>
#include <vector>

#include "grpc/health/v1/health.pb.h"
#include "runtime/rpc/local_methods.h"

namespace tutti {

// SERVING from the start until End. The server as a whole is the service "".
class Health {
 public:
  Health(ServerEnv& env, std::vector<std::string> services) : env_(env), services_(std::move(services)) {}
  void Offer(LocalMethods& methods);
  // NOT_SERVING from now on; those who watch hear of it, and their calls end. Thread safe.
  void End() { ended_.request_stop(); }

 private:
  using Request = grpc::health::v1::HealthCheckRequest;
  using Response = grpc::health::v1::HealthCheckResponse;
  Task<absl::Status> HandleCheck(CallContext& call, const Request& request, Response& response);
  Task<absl::Status> HandleWatch(CallContext& call, const Request& request, StreamWriter<Response>& writer);
  Response::ServingStatus StatusOf(const std::string& service) const;

  ServerEnv& env_;
  const std::vector<std::string> services_;
  std::stop_source ended_;
};

}  // namespace tutti
