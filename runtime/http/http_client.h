// HTTP as a client: to models, embedders and other APIs.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/task.h"
#include "runtime/rpc/call_context.h"

namespace tutti {

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

// What an answer other than a success means, in the words of the error that APIs send along. `who` answered.
absl::Status AnswerError(const std::string& who, const HttpResponse& response);

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  // Any HTTP status is an answer. UNAVAILABLE: no connection. DEADLINE_EXCEEDED, CANCELLED: as the call says.
  // RESOURCE_EXHAUSTED: the answer is over the limit of 16 MiB.
  virtual Task<absl::StatusOr<HttpResponse>> Post(CallContext& call, HttpRequest request) = 0;
};

}  // namespace tutti
