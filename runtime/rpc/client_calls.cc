#include "runtime/rpc/client_calls.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace tutti::rpc_internal {

void Prepare(const CallContext& call, absl::Duration timeout, const TraceContext& trace, grpc::ClientContext& context) {
  absl::Time deadline = timeout == absl::InfiniteDuration() ? absl::InfiniteFuture() : absl::Now() + timeout;
  if (call.deadline != absl::InfiniteFuture()) deadline = std::min(deadline, call.deadline - kDeadlineMargin);
  if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
  if (!call.actor.empty()) context.AddMetadata("tutti-actor", call.actor);
  if (!call.origin.empty()) context.AddMetadata("tutti-origin", call.origin);
  if (!call.call_id.empty()) context.AddMetadata("tutti-call-id", call.call_id);
  if (call.start_by != absl::InfiniteFuture()) {
    const absl::Duration left = std::max(call.start_by - absl::Now(), absl::ZeroDuration());
    context.AddMetadata("tutti-start-within", absl::StrCat(absl::ToInt64Milliseconds(left)));
  }
  if (trace.valid()) context.AddMetadata("traceparent", trace.ToTraceparent());
}

absl::Status NoWayTo(const std::string& method) {
  return absl::UnavailableError(absl::StrCat(method, ": this process has no connection to the service"));
}

}  // namespace tutti::rpc_internal
