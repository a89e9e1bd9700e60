#include "services/state-manager/loops/janitor.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/scrubbing.h"

namespace tutti::state_manager {
namespace {
// Small enough that a writer behind it waits some milliseconds.
constexpr int64_t kBatch = 100;
// Of re-encryption: rows of a slice, and slices between which the tick's other work waits.
constexpr int64_t kSlice = 200;
constexpr int kSlicesPerTick = 50;
constexpr int kScrubEvery = 60;  // sweeps
}  // namespace

Task<void> Janitor::Loop() {
  for (int tick = 1; co_await Sleep(timers_, executor_, options_.tick, stop_.get_token()); ++tick) {
    if (options_.on_tick) options_.on_tick();
    absl::Status snapshots = co_await MakeSnapshots();
    if (!snapshots.ok()) log_.Warning("snapshots failed", {{"error", snapshots.message()}});
    if (options_.reencrypt) {
      absl::Status done = co_await Reencrypt();
      if (!done.ok()) log_.Warning("re-encryption waits for the next tick", {{"error", done.message()}});
    }
    if (tick % options_.sweep_every != 0) continue;
    absl::Status swept = co_await Sweep();
    if (!swept.ok()) log_.Warning("sweep failed", {{"error", swept.message()}});
    // News between replicas may be lost without a trace: the slow poll.
    hub_.OnNewsLost();
    co_await ReloadKeys();
  }
}

Task<absl::Status> Janitor::Reencrypt() {
  const std::string active = store_.keys.Get()->active;
  if (active.empty() || active == reencrypted_for_) co_return absl::OkStatus();
  struct Slice {
    Reencryption::Cursor cursor;
    std::vector<Reencryption::Change> changes;
  };
  for (int i = 0; i < kSlicesPerTick && !reencryption_.done(); ++i) {
    if (stop_.stop_requested()) co_return absl::OkStatus();
    auto find = [&reencryption = store_.reencryption, cursor = reencryption_](Transaction& tx, Slice& out) {
      out.cursor = cursor;
      auto changes = reencryption.Find(tx, out.cursor, kSlice);
      if (changes.ok()) out.changes = *std::move(changes);
      return changes.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(Slice slice, co_await access_.Read<Slice>(executor_, absl::InfiniteFuture(),
                                                                        /*allow_stale=*/false, std::move(find)));
    if (!slice.changes.empty()) {
      auto replace = [&reencryption = store_.reencryption, changes = std::move(slice.changes)](Transaction& tx, int&) {
        return reencryption.Replace(tx, changes);
      };
      auto replaced =
          co_await access_.Write<int>(executor_, absl::InfiniteFuture(), LaneOf("reencryption"), std::move(replace));
      TUTTI_CO_RETURN_IF_ERROR(replaced.status());
    }
    reencryption_ = slice.cursor;
  }
  if (!reencryption_.done()) co_return absl::OkStatus();  // on with the next tick
  const Reencryption::Cursor pass = std::exchange(reencryption_, {});
  if (pass.found > 0) {
    absl::Status scrubbed = co_await ScrubMemories(access_, executor_, absl::InfiniteFuture(), store_.memories);
    TUTTI_CO_RETURN_IF_ERROR(scrubbed);
    log_.Info("cells encrypted anew", {{"cells", absl::StrCat(pass.found)}, {"key", active}});
    co_return absl::OkStatus();  // once more: a replica may have written with an older key meanwhile
  }
  if (pass.unreadable > 0) {
    reencrypted_for_ = active;
    log_.Error("cells cannot be opened; no encryption key is retired while there are any",
               {{"cells", absl::StrCat(pass.unreadable)}, {"first", pass.first_unreadable}});
    co_return absl::OkStatus();
  }
  using Ids = std::vector<std::string>;
  auto retire = [&reencryption = store_.reencryption](Transaction& tx, Ids& out) {
    auto ids = reencryption.Retire(tx);
    if (ids.ok()) out = *std::move(ids);
    return ids.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(
      Ids retired, co_await access_.Write<Ids>(executor_, absl::InfiniteFuture(), LaneOf("keys"), std::move(retire)));
  for (const auto& id : retired) {
    log_.Info("an encryption key is no longer needed by this database", {{"key", id}, {"active", active}});
  }
  reencrypted_for_ = active;
  co_return absl::OkStatus();
}

Task<absl::Status> Janitor::MakeSnapshots() {
  for (const std::string& run_id : store_.journal.TakeLongRuns(shard_, shards_.size())) {
    if (stop_.stop_requested()) break;
    auto build = [&journal = store_.journal, run_id](Transaction& tx, Journal::SnapshotCell& out) {
      auto built = journal.BuildSnapshot(tx, run_id);
      if (built.ok()) out = *std::move(built);
      return built.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(
        Journal::SnapshotCell snapshot,
        co_await access_.Read<Journal::SnapshotCell>(executor_, absl::InfiniteFuture(), false, std::move(build)));
    if (snapshot.seq == 0) {
      store_.journal.ForgetRemembered(run_id);  // noted by what was remembered from before its last snapshot
      continue;
    }
    auto keep = [&journal = store_.journal, run_id, snapshot](Transaction& tx, int&) {
      return journal.StoreSnapshot(tx, run_id, snapshot);
    };
    auto stored = co_await access_.Write<int>(executor_, absl::InfiniteFuture(), LaneOf(run_id), std::move(keep));
    TUTTI_CO_RETURN_IF_ERROR(stored.status());
    store_.journal.ForgetRemembered(run_id);
  }
  if (shard_ != 0) co_return absl::OkStatus();  // memories are at home
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
  work.push_back([this](Transaction& tx, int64_t limit) { return store_.step_cache.Expire(tx, limit); });
  const std::pair<const char*, absl::Duration> kept[] = {
      {"SUCCEEDED", options_.keep_succeeded}, {"FAILED", options_.keep_failed}, {"CANCELLED", options_.keep_cancelled}};
  for (const auto& [status, keep] : kept) {
    if (keep <= absl::ZeroDuration()) continue;
    work.push_back([this, status = status, keep = keep](Transaction& tx, int64_t limit) {
      return store_.runs.RemoveEnded(tx, status, tx.NowMicros() - absl::ToInt64Microseconds(keep), limit,
                                     shards_.size());
    });
  }
  if (options_.keep_reservations > absl::ZeroDuration()) {
    work.push_back([this](Transaction& tx, int64_t limit) {
      return store_.ledger.RemoveEnded(tx, tx.NowMicros() - absl::ToInt64Microseconds(options_.keep_reservations),
                                       limit);
    });
  }
  work.push_back([this](Transaction& tx, int64_t limit) { return store_.memories.TrimChanges(tx, limit); });
  work.push_back([this](Transaction& tx, int64_t limit) { return store_.leases.RemoveExpired(tx, limit); });
  if (shards_.spread()) {
    work.push_back([this](Transaction& tx, int64_t limit) { return store_.deliveries.Trim(tx, limit); });
  }
  for (auto& batch : work) {
    if (stop_.stop_requested()) break;
    absl::Status status = co_await InBatches(std::move(batch));
    TUTTI_CO_RETURN_IF_ERROR(status);
  }
  if (shards_.spread() && shard_ == 0) {
    absl::Status expired = co_await ExpireWorking();
    TUTTI_CO_RETURN_IF_ERROR(expired);
  }
  absl::Status collected = co_await CollectPayloads();
  TUTTI_CO_RETURN_IF_ERROR(collected);
  if (shard_ != 0) co_return absl::OkStatus();
  // What was deleted one by one, replaced, or has expired. Merging the whole index each time would cost too much.
  if (++sweeps_ % kScrubEvery == 0 && store_.memories.unscrubbed()) {
    absl::Status scrubbed = co_await ScrubMemories(access_, executor_, absl::InfiniteFuture(), store_.memories);
    TUTTI_CO_RETURN_IF_ERROR(scrubbed);
  }
  auto sync = [&memories = store_.memories](Transaction& tx, int&) { return memories.SyncIndexIfLoaded(tx); };
  auto synced = co_await access_.Read<int>(executor_, absl::InfiniteFuture(), false, std::move(sync));
  co_return synced.status();
}

Task<absl::Status> Janitor::ExpireWorking() {
  using Ids = std::vector<std::string>;
  std::string after;
  for (size_t found = kBatch; found == kBatch && !stop_.stop_requested();) {
    auto list = [this, after](Transaction& tx, Ids& out) {
      auto ids = store_.memories.WorkingRuns(tx, after, kBatch);
      if (ids.ok()) out = *std::move(ids);
      return ids.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(Ids page, co_await access_.Read<Ids>(executor_, absl::InfiniteFuture(),
                                                                   /*allow_stale=*/false, std::move(list)));
    found = page.size();
    if (page.empty()) break;
    after = page.back();
    std::vector<Ids> by_shard(shards_.size());
    for (const auto& id : page) by_shard[shards_.IndexOf(id)].push_back(id);
    Ids gone;
    for (size_t i = 0; i < by_shard.size(); ++i) {
      if (by_shard[i].empty()) continue;
      auto look = [this, ids = by_shard[i]](Transaction& tx, Ids& out) {
        auto open = store_.runs.WhichOpen(tx, ids);
        if (open.ok()) out = *std::move(open);
        return open.status();
      };
      auto open =
          co_await shards_.at(i).Read<Ids>(executor_, absl::InfiniteFuture(), /*allow_stale=*/false, std::move(look));
      if (!open.ok()) continue;  // away: its runs are not known to have ended
      std::set<std::string> alive(open->begin(), open->end());
      for (auto& id : by_shard[i]) {
        if (!alive.contains(id)) gone.push_back(id);
      }
    }
    if (gone.empty()) continue;
    absl::Status forgotten = co_await InBatches(
        [this, gone](Transaction& tx, int64_t limit) { return store_.memories.ForgetWorking(tx, gone, limit); });
    TUTTI_CO_RETURN_IF_ERROR(forgotten);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Janitor::CollectPayloads() {
  using Hashes = std::vector<std::string>;
  std::string after;
  for (size_t found = kBatch; found == kBatch && !stop_.stop_requested();) {
    auto find = [after](Transaction& tx, Hashes& out) {
      auto unused = Payloads::FindUnused(tx, after, kBatch);
      if (unused.ok()) out = *std::move(unused);
      return unused.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(Hashes unused,
                              co_await access_.Read<Hashes>(executor_, absl::InfiniteFuture(), false, std::move(find)));
    found = unused.size();
    if (unused.empty()) break;
    after = unused.back();
    auto remove = [unused](Transaction& tx, int&) { return Payloads::Remove(tx, unused).status(); };
    auto removed =
        co_await access_.Write<int>(executor_, absl::InfiniteFuture(), LaneOf("payloads"), std::move(remove));
    TUTTI_CO_RETURN_IF_ERROR(removed.status());
  }
  co_return absl::OkStatus();
}

Task<void> Janitor::ReloadKeys() {
  if (!options_.load_keys || shard_ != 0) co_return;
  auto loaded = options_.load_keys();
  absl::Status status = loaded.status();
  if (status.ok()) {
    Keys keys = *std::move(loaded);
    auto before = store_.keys.Get();
    if (keys.by_id == before->by_id && keys.active == before->active) co_return;
    for (const auto& [id, key] : before->by_id) {
      // Data may still need a key whose file has gone; it goes with a restart that names what it can do without.
      auto [now, added] = keys.by_id.emplace(id, key);
      if (!added && now->second != key) {
        status = absl::FailedPreconditionError(
            absl::StrCat("key ", id, " has other bytes than before; give a new key a new id"));
      }
    }
    if (status.ok()) {
      // Against what the database says of them, before anything is written with them.
      auto ring = std::make_shared<KeyRing>(keys);
      for (size_t i = 0; i < shards_.size() && status.ok(); ++i) {
        auto check = [ring](Transaction& tx, int&) { return CheckKeys(tx, *ring); };
        auto checked =
            co_await shards_.at(i).Write<int>(executor_, absl::InfiniteFuture(), LaneOf("keys"), std::move(check));
        status = checked.status();
      }
    }
    if (status.ok()) {
      log_.Info("encryption keys reloaded", {{"active", keys.active}});
      store_.keys.Set(std::move(keys));
      co_return;
    }
  }
  log_.Warning("encryption keys not reloaded", {{"error", status.message()}});
}

}  // namespace tutti::state_manager
