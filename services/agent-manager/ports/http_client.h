// HTTP as providers need it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/task.h"
#include "runtime/rpc/call_context.h"

namespace tutti::agent_manager {

struct HttpRequest {
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;                  // POSTed
};

struct HttpResponse {
  int status = 0;
  std::string body;
  int retry_after_seconds = 0;  // 0: not said
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  // Any HTTP status is an answer. UNAVAILABLE: no connection. DEADLINE_EXCEEDED, CANCELLED: as the call says.
  // RESOURCE_EXHAUSTED: the answer is over the limit of 16 MiB.
  virtual Task<absl::StatusOr<HttpResponse>> Post(CallContext& call, HttpRequest request) = 0;
};

}  // namespace tutti::agent_manager
