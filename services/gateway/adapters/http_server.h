// HTTP/1.1 by Boost.Beast on one thread, which is also an executor: a connection is one coroutine.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/async/executor.h"
#include "runtime/async/scope.h"
#include "runtime/async/task.h"
#include "runtime/time/clock.h"

namespace tutti::gateway {

struct HttpRequest {
  std::string method, target, body;
  std::string remote;  // address and port of the other side
  // Empty when the request has no such header.
  std::function<std::string(const char*)> header;
  std::stop_token stop;  // the server is closing, and waits no longer
};

// One answer: either Send once, or Begin, Write any number of times, and End.
class HttpReply {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;
  virtual ~HttpReply() = default;
  // False when the client has gone.
  virtual Task<bool> Send(int status, std::string content_type, std::string body, Headers headers) = 0;
  virtual Task<bool> Begin(int status, std::string content_type, Headers headers) = 0;
  virtual Task<bool> Write(std::string data) = 0;
  virtual Task<bool> End() = 0;
};

// Reports the path that load balancers ask, which is answered whatever else is refused.
inline bool IsHealthCheck(absl::string_view target) { return target == "/healthz" || target == "/healthz/"; }

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Before the first request: where Handle will run.
  virtual void RunOn(Executor& executor) = 0;
  virtual Task<void> Handle(const HttpRequest& request, HttpReply& reply) = 0;
  // The answer's body for a body over the limit, and for what is no HTTP.
  virtual std::string TooLarge(int64_t limit) = 0;
  virtual std::string Malformed(int http_status, const std::string& what) = 0;
  // The answer's body when there are too many connections.
  virtual std::string Busy(const std::string& what) = 0;
};

class HttpServer {
 public:
  struct Options {
    std::string address;
    int port = 8080;
    std::string port_flag;
    int64_t max_body_bytes = 4 << 20;
    int max_connections = 4096;
    // Most connections of one address. Beyond this and the limit above a few more connections are served one request
    // each: `/healthz` is answered, anything else with 503.
    int max_connections_per_address = 512;
    // Told why connections are refused, at most every ten seconds. May be null.
    std::function<void(const std::string&)> on_refused;
  };
  // UNAVAILABLE with the port and the flag when the port is taken.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options, HttpHandler& handler);
  virtual ~HttpServer() = default;
  virtual Executor& executor() = 0;
  virtual int port() const = 0;
  // Accepts no more; lets running requests end until the deadline, then closes. Blocks.
  virtual void Drain(absl::Time deadline) = 0;
};

}  // namespace tutti::gateway
