// The CLI's connection to a suite: blocking calls through the gateway.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/rpc/channel.h"
#include "runtime/status/error.h"
#include "runtime/status/grpc_status.h"

namespace tutti::cli {

class Client {
 public:
  Client(std::string server, absl::Duration timeout)
      : server_(std::move(server)), timeout_(timeout), channel_(ConnectTo(server_, 64 << 20)) {}

  // Calls `method` of `stub`; UNAVAILABLE says where nobody answered and how to start one, or that it is behind the
  // gateway that nobody does.
  template <class Stub, class Request, class Response>
  absl::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    if (timeout_ != absl::InfiniteDuration()) context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
    return Explain(FromGrpc((stub.*method)(&context, request, &response)));
  }

  absl::Status Explain(const absl::Status& status) const {
    if (status.code() != absl::StatusCode::kUnavailable || !ReasonOf(status).empty()) return status;
    if (channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY) {
      return absl::UnavailableError(absl::StrCat("the suite at ", server_, " answers, a service behind it does not (",
                                                 status.message(), "); `tutti health` shows which. Try again later"));
    }
    return absl::UnavailableError(absl::StrCat("nobody answers at ", server_, " (", status.message(),
                                               "); start a suite with `tutti up`, or name another with --server"));
  }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  const std::string server_;
  const absl::Duration timeout_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace tutti::cli
