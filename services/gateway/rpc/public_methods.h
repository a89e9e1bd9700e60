// Which services the gateway shows, and where each lives.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/process/module.h"
#include "runtime/rpc/client_calls.h"

namespace tutti::gateway {

// A method, and the service that has it.
class PublicMethod {
 public:
  PublicMethod(std::string name, RpcPeer peer, bool unary)
      : name_(std::move(name)), peer_(std::move(peer)), unary_(unary) {}
  const std::string& name() const { return name_; }  // "/pkg.Service/Method"
  bool unary() const { return unary_; }
  // A server stream, begun. `call` outlives it.
  std::unique_ptr<ReadStream<grpc::ByteBuffer>> Open(CallContext& call, grpc::ByteBuffer request) const;

 private:
  const std::string name_;
  const RpcPeer peer_;
  const bool unary_;
};

class PublicMethods {
 public:
  explicit PublicMethods(const Peers& peers);
  const std::vector<std::string>& services() const { return services_; }
  // "/pkg.Service/Method"; null when the method is not public.
  const PublicMethod* Find(absl::string_view method) const;

 private:
  std::vector<std::string> services_;
  std::map<std::string, PublicMethod, std::less<>> methods_;  // by name
};

}  // namespace tutti::gateway
