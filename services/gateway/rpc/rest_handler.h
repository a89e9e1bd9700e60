// REST at the gateway: transcodes a request, calls the service, transcodes the answer. Streams go out as server-sent
// events (Accept: text/event-stream) or as one JSON object a line.
#pragma once

#include "runtime/process/service_server.h"
#include "services/gateway/adapters/http_server.h"
#include "services/gateway/domain/caller_check.h"
#include "services/gateway/domain/transcoder.h"
#include "services/gateway/rpc/public_methods.h"

namespace tutti::gateway {

class RestHandler final : public HttpHandler {
 public:
  RestHandler(ServiceServer& serving, const Transcoder& transcoder, const PublicMethods& methods, CallerRules rules,
              absl::Duration timeout)
      : serving_(serving), transcoder_(transcoder), methods_(methods), rules_(std::move(rules)), timeout_(timeout) {}
  void RunOn(Executor& executor) override { executor_ = &executor; }

  Task<void> Handle(const HttpRequest& request, HttpReply& reply) override;
  std::string TooLarge(int64_t limit) override;
  std::string Malformed(int http_status, const std::string& what) override;
  std::string Busy(const std::string& what) override;

 private:
  Task<absl::Status> Unary(CallContext& call, const Transcoder::Call& target, HttpReply& reply);
  Task<absl::Status> Stream(CallContext& call, const Transcoder::Call& target, bool events, HttpReply& reply);
  ServiceServer& serving_;
  const Transcoder& transcoder_;
  const PublicMethods& methods_;
  const CallerRules rules_;
  const absl::Duration timeout_;
  Executor* executor_ = nullptr;
};

}  // namespace tutti::gateway
