#include "services/state-manager/loops/janitor.h"

#include "runtime/async/sleep.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {
// Small enough that a writer behind it waits some milliseconds.
constexpr int64_t kBatch = 100;
}  // namespace

Task<void> Janitor::Loop() {
  for (int tick = 1; co_await Sleep(timers_, executor_, options_.tick, stop_.get_token()); ++tick) {
    if (options_.on_tick) options_.on_tick();
    absl::Status snapshots = co_await MakeSnapshots();
    if (!snapshots.ok()) log_.Warning("snapshots failed", {{"error", snapshots.message()}});
    if (tick % options_.sweep_every != 0) continue;
    absl::Status swept = co_await Sweep();
    if (!swept.ok()) log_.Warning("sweep failed", {{"error", swept.message()}});
    // News between replicas may be lost without a trace: the slow poll.
    hub_.OnNewsLost();
    ReloadKeys();
  }
}

Task<absl::Status> Janitor::MakeSnapshots() {
  for (const std::string& run_id : store_.journal.TakeLongRuns()) {
    if (stop_.stop_requested()) break;
    auto build = [&journal = store_.journal, run_id](Transaction& tx, Journal::SnapshotCell& out) {
      auto built = journal.BuildSnapshot(tx, run_id);
      if (built.ok()) out = *std::move(built);
      return built.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(
        Journal::SnapshotCell snapshot,
        co_await access_.Read<Journal::SnapshotCell>(executor_, absl::InfiniteFuture(), false, std::move(build)));
    if (snapshot.seq == 0) continue;
    auto keep = [&journal = store_.journal, run_id, snapshot](Transaction& tx, int&) {
      return journal.StoreSnapshot(tx, run_id, snapshot);
    };
    auto stored = co_await access_.Write<int>(executor_, absl::InfiniteFuture(), LaneOf(run_id), std::move(keep));
    TUTTI_CO_RETURN_IF_ERROR(stored.status());
  }
  // The index's own work, on a reader's thread, a slice at a time.
  for (bool more = true; more && !stop_.stop_requested();) {
    auto slice = [&memories = store_.memories](Transaction&, bool& out) {
      out = memories.MaintainIndex();
      return absl::OkStatus();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(more,
                              co_await access_.Read<bool>(executor_, absl::InfiniteFuture(), false, std::move(slice)));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Janitor::InBatches(std::function<absl::StatusOr<int64_t>(Transaction&, int64_t)> batch) {
  for (;;) {
    auto body = [batch](Transaction& tx, int64_t& out) {
      auto removed = batch(tx, kBatch);
      if (removed.ok()) out = *removed;
      return removed.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(int64_t removed, co_await access_.Write<int64_t>(executor_, absl::InfiniteFuture(),
                                                                               LaneOf("ledger"), std::move(body)));
    if (removed < kBatch) co_return absl::OkStatus();
    // Between the batches the writers come first.
    if (!co_await Sleep(timers_, executor_, absl::Milliseconds(20), stop_.get_token())) co_return absl::OkStatus();
  }
}

Task<absl::Status> Janitor::Sweep() {
  std::vector<std::function<absl::StatusOr<int64_t>(Transaction&, int64_t)>> work;
  work.push_back([this](Transaction& tx, int64_t limit) { return store_.ledger.Expire(tx, limit); });
  work.push_back([this](Transaction& tx, int64_t limit) { return store_.memories.Expire(tx, limit); });
  work.push_back([this](Transaction& tx, int64_t limit) { return store_.sessions.RemoveEnded(tx, limit); });
  const std::pair<const char*, absl::Duration> kept[] = {
      {"SUCCEEDED", options_.keep_succeeded}, {"FAILED", options_.keep_failed}, {"CANCELLED", options_.keep_cancelled}};
  for (const auto& [status, keep] : kept) {
    if (keep <= absl::ZeroDuration()) continue;
    work.push_back([this, status = status, keep = keep](Transaction& tx, int64_t limit) {
      return store_.runs.RemoveEnded(tx, status, tx.NowMicros() - absl::ToInt64Microseconds(keep), limit);
    });
  }
  if (options_.keep_reservations > absl::ZeroDuration()) {
    work.push_back([this](Transaction& tx, int64_t limit) {
      return store_.ledger.RemoveEnded(tx, tx.NowMicros() - absl::ToInt64Microseconds(options_.keep_reservations),
                                       limit);
    });
  }
  work.push_back([](Transaction& tx, int64_t limit) { return Payloads::Collect(tx, limit); });
  work.push_back([this](Transaction& tx, int64_t) -> absl::StatusOr<int64_t> {
    TUTTI_RETURN_IF_ERROR(store_.memories.TrimChanges(tx));
    return 0;
  });
  for (auto& batch : work) {
    if (stop_.stop_requested()) break;
    absl::Status status = co_await InBatches(std::move(batch));
    TUTTI_CO_RETURN_IF_ERROR(status);
  }
  auto sync = [&memories = store_.memories](Transaction& tx, int&) { return memories.SyncIndexIfLoaded(tx); };
  auto synced = co_await access_.Read<int>(executor_, absl::InfiniteFuture(), false, std::move(sync));
  co_return synced.status();
}

void Janitor::ReloadKeys() {
  if (!options_.load_keys) return;
  auto keys = options_.load_keys();
  if (keys.ok()) {
    // A key that data still needs does not go because its file did: what is missing is reported when it is met.
    if (keys->active != store_.keys.Get()->active) log_.Info("encryption key changed", {{"active", keys->active}});
    store_.keys.Set(*std::move(keys));
  } else {
    log_.Warning("encryption keys not reloaded", {{"error", keys.status().message()}});
  }
}

}  // namespace tutti::state_manager
