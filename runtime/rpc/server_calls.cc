#include "runtime/rpc/server_calls.h"

#include "absl/time/clock.h"

namespace tutti::rpc_internal {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

std::string MetadataOf(const grpc::CallbackServerContext& context, const char* key) {
  auto it = context.client_metadata().find(key);
  return it == context.client_metadata().end() ? "" : std::string(it->second.data(), it->second.size());
}

absl::Status ShuttingDown() {
  return Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the service is shutting down; try another or later")
      .RetryAfter(absl::Seconds(1));
}

CallRecord::CallRecord(ServerEnv& env, grpc::CallbackServerContext& context, std::stop_token stop, std::string method)
    : env_(env),
      method_(std::move(method)),
      start_(env.clock.Now()),
      span_(env.tracer.Start(method_, SpanKind::kServer,
                             TraceContext::FromTraceparent(MetadataOf(context, "traceparent")))),
      call_(env.executor, env.tracer) {
  call_.deadline = DeadlineOf(context);
  call_.stop = std::move(stop);
  call_.trace = span_.context();
  if (!env.edge) {
    call_.actor = MetadataOf(context, "tutti-actor");
    call_.origin = MetadataOf(context, "tutti-origin");
    call_.call_id = MetadataOf(context, "tutti-call-id");
  }
  if (call_.actor.empty()) call_.actor = "anonymous";
  if (call_.origin.empty()) call_.origin = context.peer();
  span_.Set("rpc.system.name", "grpc");
  span_.Set("rpc.method", method_);
}

grpc::Status CallRecord::End(const absl::Status& status) {
  span_.Set("rpc.status_code", absl::StatusCodeToString(status.code()));
  span_.SetStatus(status);
  span_.End();
  env_.metrics.Record(method_, status.code(), env_.clock.Now() - start_);
  return ToGrpc(status);
}

}  // namespace tutti::rpc_internal
