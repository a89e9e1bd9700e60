// What travels with a call through the layers: how long it may take, whether it was given up, which trace it belongs
// to.
#pragma once

#include <stop_token>
#include <string>

#include "absl/time/time.h"
#include "runtime/async/executor.h"
#include "runtime/telemetry/trace.h"

namespace tutti {

struct CallContext {
  CallContext(Executor& executor, Tracer& tracer) : executor(&executor), tracer(&tracer) {}

  Executor* executor;  // where the handler runs and goes on after each await
  Tracer* tracer;
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token stop;
  // Bounds the start of effects: after this time the caller may own its work no longer.
  absl::Time start_by = absl::InfiniteFuture();
  TraceContext trace;
  // Who asks and from where, for the audit log; set at the edge, passed on from service to service. What no
  // authentication vouches for is `anonymous`.
  std::string actor, origin;
  // A name for the call (a ULID) that the gateway gives it, the same when its channel delivers it again because an
  // answer was lost: what the call makes is made under it, once. Empty where nothing is delivered twice.
  std::string call_id;
};

}  // namespace tutti
