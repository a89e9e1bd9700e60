#include "services/gateway/rpc/passthrough.h"

#include "runtime/async/when_all.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/status/error.h"

namespace tutti::gateway {
namespace {

using Stream = ClientBidiStream<grpc::ByteBuffer, grpc::ByteBuffer>;

Task<bool> PumpUp(StreamReader<grpc::ByteBuffer>& from, Stream& to) {
  grpc::ByteBuffer message;
  while (co_await from.Read(message)) {
    if (!co_await to.Write(message)) co_return false;
  }
  to.WritesDone();
  co_return true;
}

Task<bool> PumpDown(Stream& from, StreamWriter<grpc::ByteBuffer>& to) {
  grpc::ByteBuffer message;
  while (co_await from.Read(message)) {
    if (!co_await to.Write(message)) {
      from.Cancel();
      co_return false;
    }
  }
  co_return true;
}

}  // namespace

MethodForwarder::MethodForwarder(std::string name, const PublicMethod* method, const LocalMethods& methods,
                                 IdSource& ids)
    : name_(std::move(name)),
      method_(method),
      local_(method && method->unary() ? methods.FindRaw(method->name().substr(1)) : nullptr),
      carried_(method && method->unary() && !local_ ? methods.FindCarried(method->name().substr(1)) : nullptr),
      ids_(ids) {}

Task<absl::Status> MethodForwarder::Forward(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                                            BehindWriter<grpc::ByteBuffer>& writer) {
  if (!method_ || (method_->unary() && !local_ && !carried_)) {
    co_return Error(absl::StatusCode::kUnimplemented, "METHOD_NOT_PUBLIC",
                    "no such public method; reflection lists those that are");
  }
  if (!local_) call.call_id = ids_.NewUlid();
  if (method_->unary()) {
    grpc::ByteBuffer request, response;
    if (!co_await reader.Read(request)) co_return absl::CancelledError("the caller has gone");
    LocalMethods::Raw& service = local_ ? *local_ : *carried_;
    absl::Status status = co_await service.CallBytes(call, request, response);
    if (status.ok()) writer.WriteLast(std::move(response));
    co_return status;
  }
  Stream stream(call, absl::InfiniteDuration());
  method_->Prepare(stream);
  stream.Start();
  std::vector<Task<bool>> both;
  both.push_back(PumpDown(stream, writer));
  both.push_back(PumpUp(reader, stream));
  co_await WhenAll(std::move(both));
  absl::Status status = co_await stream.Finish();
  co_return status;
}

grpc::ServerGenericBidiReactor* Passthrough::CreateReactor(grpc::GenericCallbackServerContext* context) {
  MethodForwarder* forwarder = &unknown_;
  if (const PublicMethod* method = methods_.Find(context->method())) {
    MutexLock lock(mutex_);
    auto& slot = forwarders_[method->name()];
    if (!slot) {
      slot = std::make_unique<MethodForwarder>(method->name(), method, local_, ids_);
    }
    forwarder = slot.get();
  }
  return ServeBidi<grpc::ByteBuffer, grpc::ByteBuffer>(env_, context, *forwarder, forwarder->name().c_str(),
                                                       &MethodForwarder::Forward);
}

}  // namespace tutti::gateway
