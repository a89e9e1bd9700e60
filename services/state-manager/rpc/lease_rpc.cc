#include "runtime/async/when_all.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {

template <class Request, class Response>
Task<absl::StatusOr<std::vector<Response>>> LeaseRpc::Everywhere(
    CallContext& call, Request request, absl::Status (Leases::*method)(Transaction&, const Request&, Response&) const) {
  std::vector<Task<absl::StatusOr<Response>>> writes;
  for (size_t i = 0; i < shards_.size(); ++i) {
    auto body = [&leases = leases_, request, method](Transaction& tx, Response& out) {
      return (leases.*method)(tx, request, out);
    };
    writes.push_back(shards_.at(i).Write<Response>(*call.executor, call.deadline, LaneOf("leases"), std::move(body)));
  }
  auto answers = co_await WhenAll(std::move(writes));
  std::vector<Response> out;
  absl::Status away;
  for (auto& answer : answers) {
    if (answer.ok()) {
      out.push_back(*std::move(answer));
    } else if (absl::IsUnavailable(answer.status())) {
      away = answer.status();
    } else {
      co_return answer.status();
    }
  }
  if (out.empty()) co_return away;
  co_return std::move(out);
}

TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, RegisterInstance) {
  auto answers = co_await Everywhere(call, request, &Leases::RegisterInstance);
  co_return answers.status();
}

TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, Heartbeat) {
  TUTTI_CO_ASSIGN_OR_RETURN(auto answers, co_await Everywhere(call, request, &Leases::Heartbeat));
  for (const auto& answer : answers) {
    response.set_claimable_runs(response.claimable_runs() + answer.claimable_runs());
    response.mutable_cancel_run_ids()->MergeFrom(answer.cancel_run_ids());
  }
  co_return absl::OkStatus();
}

// Each database gives its share, so that none waits behind another that has much.
TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, ClaimRuns) {
  v1::ClaimRunsRequest share = request;
  const auto shards = static_cast<int>(shards_.size());
  share.set_max_runs((request.max_runs() + shards - 1) / shards);
  TUTTI_CO_ASSIGN_OR_RETURN(auto answers, co_await Everywhere(call, share, &Leases::ClaimRuns));
  for (auto& answer : answers) {
    for (auto& run : *answer.mutable_runs()) *response.add_runs() = std::move(run);
  }
  co_return absl::OkStatus();
}

TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, ReleaseInstance) {
  auto answers = co_await Everywhere(call, request, &Leases::ReleaseInstance);
  co_return answers.status();
}

grpc::ServerWriteReactor<v1::WatchInstanceResponse>* LeaseRpc::WatchInstance(grpc::CallbackServerContext* context,
                                                                             const v1::WatchInstanceRequest* request) {
  return ServeServerStream<v1::WatchInstanceRequest, v1::WatchInstanceResponse>(
      env_, context, request, *this, "tutti.state.v1.LeaseService/WatchInstance", &LeaseRpc::HandleWatch);
}

Task<absl::Status> LeaseRpc::HandleWatch(CallContext& call, const v1::WatchInstanceRequest& request,
                                         StreamWriter<v1::WatchInstanceResponse>& writer) {
  auto news = hub_.WatchInstance(request.instance().name(), *call.executor);
  std::stop_callback on_stop(call.stop, [news] { news->Close(); });
  for (;;) {
    auto item = co_await news->Pop();
    if (!item.has_value()) co_return absl::CancelledError("the watcher has gone, or another took its place");
    v1::WatchInstanceResponse out;
    out.set_runs_claimable(item->runs_claimable);
    out.set_cancel_run_id(item->cancel_run_id);
    if (!co_await writer.Write(out)) co_return absl::CancelledError("the watcher has gone");
  }
}

}  // namespace tutti::state_manager
