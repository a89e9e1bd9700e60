// Which services the gateway shows, and where each lives.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/process/module.h"

namespace tutti::gateway {

class PublicMethods {
 public:
  explicit PublicMethods(const PeerChannels& peers);
  const std::vector<std::string>& services() const { return services_; }
  // The stub to the service of "/pkg.Service/Method"; null when the method is not public.
  grpc::GenericStub* StubFor(absl::string_view method) const;

 private:
  std::vector<std::string> services_;
  std::map<std::string, std::unique_ptr<grpc::GenericStub>, std::less<>> stubs_;  // by "/pkg.Service/Method"
};

}  // namespace tutti::gateway
