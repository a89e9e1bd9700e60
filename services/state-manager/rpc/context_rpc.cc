#include "services/state-manager/rpc/services.h"
#include "services/state-manager/rpc/watching.h"

namespace tutti::state_manager {

TUTTI_WRITE_METHOD(ContextRpc, ContextService, CreateContext, request.context_id())
TUTTI_READ_METHOD(ContextRpc, ContextService, GetContext, false)
TUTTI_READ_METHOD(ContextRpc, ContextService, ListContexts, true)
TUTTI_WRITE_METHOD(ContextRpc, ContextService, UpdateContext, request.context_id())
TUTTI_READ_METHOD(ContextRpc, ContextService, DiffContext, false)
TUTTI_READ_METHOD(ContextRpc, ContextService, ListContextVersions, false)
TUTTI_WRITE_METHOD(ContextRpc, ContextService, SetContextView, request.context_id())
TUTTI_AUDITED_METHOD(ContextRpc, ContextService, DeleteContext, request.context_id(), "contexts.delete", "contexts/",
                     request.context_id())

namespace {
constexpr int kPage = 16;
}

Task<absl::Status> ContextRpc::HandleWatch(CallContext& call, const v1::WatchContextRequest& request,
                                           StreamWriter<v1::WatchContextResponse>& writer) {
  auto wake_up = hub_.Watch(News::Kind::kContext, request.context_id(), *call.executor);
  if (!wake_up) co_return TooManyWatchers("context");
  std::stop_callback on_stop(call.stop, [wake_up] { wake_up->Close(); });
  int64_t after = request.after_version();
  for (;;) {
    // Read first, then wait: what is committed in between has left a wake-up behind.
    auto body = [&area = area_, id = request.context_id(), after](Transaction& tx, std::vector<v1::Context>& out) {
      auto versions = area.VersionsAfter(tx, id, after, kPage);
      if (versions.ok()) out = *std::move(versions);
      return versions.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(std::vector<v1::Context> versions,
                              co_await access_.Read<std::vector<v1::Context>>(*call.executor, absl::InfiniteFuture(),
                                                                              false, std::move(body)));
    for (auto& version : versions) {
      after = version.version();
      v1::WatchContextResponse out;
      *out.mutable_context() = std::move(version);
      absl::Time begin = env_.clock.Now();
      if (!co_await writer.Write(out)) co_return WatcherGone();
      if (env_.clock.Now() - begin > slowest_reader_) co_return TooSlow("after_version", after);
    }
    if (!versions.empty()) continue;
    auto woken = co_await wake_up->Wait();
    if (!woken.has_value()) co_return WatcherGone();
  }
}

}  // namespace tutti::state_manager
