// A tool as the catalogue sees it.
#pragma once

#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/async/task.h"
#include "runtime/json/json.h"
#include "runtime/rpc/call_context.h"

namespace tutti::tool_service {

// What a call of a tool carries besides its parameters.
struct ToolCallInfo {
  std::string idempotency_key;
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token stop;
  bool given_up(absl::Time now) const { return stop.stop_requested() || now >= deadline; }
};

// Thread safe. Runs on a worker thread and may block, within the call's deadline.
class Tool {
 public:
  virtual ~Tool() = default;
  virtual std::string name() const = 0;
  virtual std::string description() const = 0;
  // JSON Schema; parameters are checked against it before Call.
  virtual Json parameters_schema() const = 0;
  virtual bool idempotent() const { return true; }
  virtual absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo& info) = 0;
  // True: it waits for others and needs no thread meanwhile; CallAsync is asked instead, on the call's executor.
  virtual bool async() const { return false; }
  virtual Task<absl::StatusOr<Json>> CallAsync(CallContext& call, Json parameters, ToolCallInfo info) {
    co_return Call(parameters, info);
  }
};

}  // namespace tutti::tool_service
