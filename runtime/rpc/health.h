// grpc.health.v1, as load balancers and the probes of Kubernetes ask it. gRPC's own service answers by threads of its
// own.
#pragma once

#include <string>
#include <vector>

#include "grpc/health/v1/health.pb.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/readiness.h"

namespace tutti {

// Reports SERVING while the service is ready, and NOT_SERVING after End. The name "" stands for the whole server.
class Health {
 public:
  // `readiness` outlives it; null: always ready.
  Health(ServerEnv& env, std::vector<std::string> services, Readiness* readiness)
      : env_(env), services_(std::move(services)), readiness_(readiness) {}
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
  Readiness* const readiness_;
  std::stop_source ended_;
};

}  // namespace tutti
