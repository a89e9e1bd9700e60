// HTTP as a client: to models, embedders and other APIs.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/task.h"
#include "runtime/rpc/call_context.h"

namespace tutti {

struct HttpRequest {
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;
  std::string method = "POST";
  size_t max_answer_bytes = size_t{16} << 20;  // 16 times as many for a stream of events, which is not kept
  // Instead of the response's body: each piece of a successful answer that is a stream of events (text/event-stream),
  // as it comes. Called on the call's executor; the last time before Send answers.
  std::function<void(absl::string_view)> on_event_stream;
  // Addresses of private networks and of this machine are refused, whatever name leads to them.
  bool public_only = false;
  // Keeps the request from leaving after this time.
  absl::Time start_by = absl::InfiniteFuture();
};

struct HttpResponse {
  int status = 0;
  std::string body;
  int retry_after_seconds = 0;                 // 0: not said
  std::map<std::string, std::string> headers;  // names in lower case; the last of several
};

struct UrlHost {
  std::string name;  // in lower case
  int port = 0;
};
// INVALID_ARGUMENT: no http or https URL, or one with a user name or password in it.
absl::StatusOr<UrlHost> HostOf(const std::string& url);

// What an answer other than a success means, in the words of the error that APIs send along. `who` answered.
absl::Status AnswerError(const std::string& who, const HttpResponse& response);

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  // Any HTTP status is an answer. UNAVAILABLE: no connection. DEADLINE_EXCEEDED, CANCELLED: as the call says.
  // RESOURCE_EXHAUSTED: the answer is over the request's limit. PERMISSION_DENIED: the address is not public. ABORTED
  // with START_TOO_LATE: nothing was sent, for `start_by` had passed.
  virtual Task<absl::StatusOr<HttpResponse>> Send(CallContext& call, HttpRequest request) = 0;
};

}  // namespace tutti
