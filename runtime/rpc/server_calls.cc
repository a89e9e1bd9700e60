#include "runtime/rpc/server_calls.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::rpc_internal {

absl::Status ShuttingDown() {
  return Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the service is shutting down; try another or later")
      .RetryAfter(absl::Seconds(1));
}

absl::Status MalformedRequest(absl::string_view type) {
  return Error(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST",
               absl::StrCat("the request's bytes are no message of type ", type, "; the types are in proto/"));
}

absl::Status AsRepeatable(const absl::Status& status) {
  if (ReasonOf(status) != "COMMIT_UNKNOWN") return status;
  return Error(absl::StatusCode::kUnavailable, "COMMIT_UNKNOWN",
               "the database was lost during the commit, and it is not known what was written; send the same request "
               "again: its request_id makes it safe")
      .RetryAfter(absl::Seconds(1));
}

ServedCall::ServedCall(ServerEnv& env, const std::string& name, CallOrigin origin, absl::Time deadline,
                       std::stop_token stop)
    : env_(env),
      name_(name),
      start_(env.clock.Now()),
      span_(env.tracer.Start(name, SpanKind::kServer, origin.trace)),
      call_(env.executor, env.tracer) {
  call_.deadline = deadline;
  call_.stop = std::move(stop);
  call_.trace = span_.context();
  call_.start_by = origin.start_by;
  call_.actor = origin.actor.empty() ? "anonymous" : std::move(origin.actor);
  call_.origin = origin.origin.empty() ? "in-process" : std::move(origin.origin);
  call_.call_id = std::move(origin.call_id);
  span_.Set("rpc.system.name", "grpc");
  span_.Set("rpc.method", name);
}

void ServedCall::End(const absl::Status& status) {
  span_.Set("rpc.status_code", absl::StatusCodeToString(status.code()));
  span_.SetStatus(status);
  span_.End();
  env_.metrics.Record(name_, status.code(), env_.clock.Now() - start_);
}

}  // namespace tutti::rpc_internal
