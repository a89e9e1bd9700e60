#include "runtime/rpc/health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tutti {

void Health::Offer(LocalMethods& methods) {
  methods.Add(env_, "grpc.health.v1.Health/Check", *this, &Health::HandleCheck);
  methods.AddStream(env_, "grpc.health.v1.Health/Watch", *this, &Health::HandleWatch);
}

Health::Response::ServingStatus Health::StatusOf(const std::string& service) const {
  const bool known = service.empty() || std::find(services_.begin(), services_.end(), service) != services_.end();
  if (!known) return Response::SERVICE_UNKNOWN;
  const bool ready = !readiness_ || readiness_->Get().ok();
  return ready && !ended_.stop_requested() ? Response::SERVING : Response::NOT_SERVING;
}

Task<absl::Status> Health::HandleCheck(CallContext&, const Request& request, Response& response) {
  const auto status = StatusOf(request.service());
  if (status == Response::SERVICE_UNKNOWN) {
    co_return absl::NotFoundError(absl::StrCat("there is no service \"", request.service(), "\" here"));
  }
  response.set_status(status);
  co_return absl::OkStatus();
}

Task<absl::Status> Health::HandleWatch(CallContext& call, const Request& request, StreamWriter<Response>& writer) {
  for (auto last = Response::UNKNOWN;;) {
    auto changed = std::make_shared<OneShot<bool>>();
    if (readiness_) readiness_->Await(changed);
    std::stop_callback on_end(ended_.get_token(), [&changed] { changed->Set(true); });
    std::stop_callback on_stop(call.stop, [&changed] { changed->Set(false); });
    Response response;
    response.set_status(StatusOf(request.service()));
    if (response.status() != last) {
      const bool written = co_await writer.Write(response);
      if (!written) co_return absl::CancelledError("the caller has gone");
      last = response.status();
    }
    if (ended_.stop_requested()) co_return rpc_internal::ShuttingDown();
    co_await changed->Wait(*call.executor);
    if (call.stop.stop_requested()) co_return absl::CancelledError("the caller has gone");
  }
}

}  // namespace tutti
