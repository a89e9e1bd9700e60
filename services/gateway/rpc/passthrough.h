// gRPC at the gateway: public methods go on to their services as bytes.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "runtime/random/random.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "services/gateway/rpc/public_methods.h"

namespace tutti::gateway {

// One method. The bytes are not looked into.
class MethodForwarder final : public ByteMethod {
 public:
  // `method` is null for what is not public.
  MethodForwarder(ServerEnv& env, const PublicMethod* method, const LocalMethods& methods, IdSource& ids);
  Task<absl::Status> Serve(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                           BehindWriter<grpc::ByteBuffer>& writer) override;

 private:
  Task<absl::Status> Forward(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                             BehindWriter<grpc::ByteBuffer>& writer);

  ServerEnv& env_;
  const std::string name_;
  const PublicMethod* const method_;
  // Of a unary method one is not null: of this process, of another.
  const std::shared_ptr<LocalMethods::Raw> local_, carried_;
  // Of a server stream; null: another process has it.
  const std::shared_ptr<LocalMethods::RawStream> local_stream_;
  IdSource& ids_;
};

class Passthrough final : public ByteMethods {
 public:
  Passthrough(ServerEnv& env, const PublicMethods& methods, const LocalMethods& local, IdSource& ids)
      : env_(env), methods_(methods), local_(local), ids_(ids), unknown_(env, nullptr, local, ids) {}
  ByteMethod* Find(absl::string_view path) override;

 private:
  ServerEnv& env_;
  const PublicMethods& methods_;
  const LocalMethods& local_;
  IdSource& ids_;
  MethodForwarder unknown_;
  std::map<std::string, MethodForwarder> forwarders_;
};

}  // namespace tutti::gateway
