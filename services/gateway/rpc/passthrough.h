// gRPC at the gateway: public methods go on to their services as bytes, in both directions, whatever their shape.
#pragma once

#include <grpcpp/generic/async_generic_service.h>

#include <map>
#include <memory>
#include <string>

#include "runtime/random/random.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "services/gateway/rpc/public_methods.h"

namespace tutti::gateway {

// One method. The bytes are not looked into.
class MethodForwarder {
 public:
  MethodForwarder(std::string name, const PublicMethod* method, const LocalMethods& methods, IdSource& ids);
  Task<absl::Status> Forward(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                             BehindWriter<grpc::ByteBuffer>& writer);
  const std::string& name() const { return name_; }

 private:
  const std::string name_;
  const PublicMethod* const method_;  // null: not a public method
  // One is not null, for unary methods; the other: of this process, of another.
  const std::shared_ptr<LocalMethods::Raw> local_, carried_;
  IdSource& ids_;
};

class Passthrough final : public grpc::CallbackGenericService {
 public:
  Passthrough(ServerEnv& env, const PublicMethods& methods, const LocalMethods& local, IdSource& ids)
      : env_(env), methods_(methods), local_(local), ids_(ids), unknown_("unknown", nullptr, local, ids) {}
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;

 private:
  ServerEnv& env_;
  const PublicMethods& methods_;
  const LocalMethods& local_;
  IdSource& ids_;
  MethodForwarder unknown_;
  Mutex mutex_;
  std::map<std::string, std::unique_ptr<MethodForwarder>> forwarders_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::gateway
