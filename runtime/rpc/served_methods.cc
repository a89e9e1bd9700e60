#include "runtime/rpc/served_methods.h"

namespace tutti {
namespace {

absl::Status NoRequest(const CallContext& call) {
  return call.stop.stop_requested() ? absl::CancelledError("the caller has gone")
                                    : absl::InvalidArgumentError("the call has no request");
}

class Unary final : public ByteMethod {
 public:
  explicit Unary(std::shared_ptr<LocalMethods::Raw> method) : method_(std::move(method)) {}
  Task<absl::Status> Serve(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                           BehindWriter<grpc::ByteBuffer>& writer) override {
    grpc::ByteBuffer request, response;
    if (!co_await reader.Read(request)) co_return NoRequest(call);
    absl::Status status = co_await method_->CallBytes(call, request, response);
    if (status.ok()) writer.WriteLast(std::move(response));
    co_return status;
  }

 private:
  const std::shared_ptr<LocalMethods::Raw> method_;
};

class ServerStream final : public ByteMethod {
 public:
  explicit ServerStream(std::shared_ptr<LocalMethods::RawStream> method) : method_(std::move(method)) {}
  Task<absl::Status> Serve(CallContext& call, StreamReader<grpc::ByteBuffer>& reader,
                           BehindWriter<grpc::ByteBuffer>& writer) override {
    grpc::ByteBuffer request;
    if (!co_await reader.Read(request)) co_return NoRequest(call);
    auto stream = method_->OpenBytes(call, request);
    absl::Status status = co_await HandOn(std::move(stream), writer);
    co_return status;
  }

 private:
  const std::shared_ptr<LocalMethods::RawStream> method_;
};

}  // namespace

Task<absl::Status> HandOn(std::unique_ptr<ReadStream<grpc::ByteBuffer>> stream, StreamWriter<grpc::ByteBuffer>& to) {
  grpc::ByteBuffer message;
  while (co_await stream->Read(message)) {
    const bool written = co_await to.Write(message);
    if (!written) stream->Cancel();
  }
  absl::Status status = co_await stream->Finish();
  co_return status;
}

ByteMethod* ServedMethods::Find(absl::string_view path) {
  if (auto it = known_.find(path); it != known_.end()) return it->second.get();
  const absl::string_view name = path.substr(std::min<size_t>(path.size(), 1));
  std::shared_ptr<ByteMethod> method = methods_.FindBidi(name);
  if (!method) {
    if (auto unary = methods_.FindRaw(name)) method = std::make_shared<Unary>(std::move(unary));
  }
  if (!method) {
    if (auto stream = methods_.FindRawStream(name)) method = std::make_shared<ServerStream>(std::move(stream));
  }
  if (!method) return nullptr;  // callers may ask for any name: only what there is is kept
  return known_.emplace(std::string(path), std::move(method)).first->second.get();
}

}  // namespace tutti
