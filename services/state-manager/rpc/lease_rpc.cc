#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {

TUTTI_WRITE_METHOD(LeaseRpc, LeaseService, RegisterInstance, "leases")
TUTTI_WRITE_METHOD(LeaseRpc, LeaseService, Heartbeat, "leases")
TUTTI_WRITE_METHOD(LeaseRpc, LeaseService, ClaimRuns, "leases")
TUTTI_WRITE_METHOD(LeaseRpc, LeaseService, ReleaseInstance, "leases")

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
