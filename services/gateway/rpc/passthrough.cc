#include "services/gateway/rpc/passthrough.h"

#include "runtime/rpc/served_methods.h"
#include "runtime/status/error.h"

namespace tutti::gateway {

MethodForwarder::MethodForwarder(ServerEnv& env, const PublicMethod* method, const LocalMethods& methods, IdSource& ids)
    : env_(env),
      name_(method ? method->name() : "unknown"),
      method_(method),
      local_(method && method->unary() ? methods.FindRaw(method->name().substr(1)) : nullptr),
      carried_(method && method->unary() && !local_ ? methods.FindCarried(method->name().substr(1)) : nullptr),
      local_stream_(method && !method->unary() ? methods.FindRawStream(method->name().substr(1)) : nullptr),
      ids_(ids) {}

Task<absl::Status> MethodForwarder::Serve(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                                          BehindWriter<grpc::ByteBuffer>& writer) {
  rpc_internal::ServedCall served(env_, name_, rpc_internal::CallOrigin(call), call.deadline, call.stop);
  absl::Status status = co_await Forward(served.call(), reader, writer);
  served.End(status);
  co_return status;
}

Task<absl::Status> MethodForwarder::Forward(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                                            BehindWriter<grpc::ByteBuffer>& writer) {
  if (!method_ || (method_->unary() && !local_ && !carried_)) {
    co_return Error(absl::StatusCode::kUnimplemented, "METHOD_NOT_PUBLIC",
                    "no such public method; reflection lists those that are");
  }
  grpc::ByteBuffer request;
  if (!co_await reader.Read(request)) co_return absl::CancelledError("the caller has gone");
  if (method_->unary()) {
    if (!local_) call.call_id = ids_.NewUlid();
    grpc::ByteBuffer response;
    LocalMethods::Raw& service = local_ ? *local_ : *carried_;
    absl::Status status = co_await service.CallBytes(call, request, response);
    if (status.ok()) writer.WriteLast(std::move(response));
    co_return status;
  }
  auto stream = local_stream_ ? local_stream_->OpenBytes(call, request) : method_->Open(call, std::move(request));
  absl::Status status = co_await HandOn(std::move(stream), writer);
  co_return status;
}

ByteMethod* Passthrough::Find(absl::string_view path) {
  const PublicMethod* method = methods_.Find(path);
  if (!method) return &unknown_;
  return &forwarders_.try_emplace(method->name(), env_, method, local_, ids_).first->second;
}

}  // namespace tutti::gateway
