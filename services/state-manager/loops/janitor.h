// The state-manager's own work: snapshots of long runs, the memory index, and everything whose time is over, in small
// batches between the callers' writes.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "runtime/async/scope.h"
#include "runtime/telemetry/log.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/store/shards.h"
#include "services/state-manager/store/state_store.h"

namespace tutti::state_manager {

class Janitor {
 public:
  struct Options {
    // Of runs by status, and of reservations; zero is for ever.
    absl::Duration keep_succeeded, keep_failed, keep_cancelled, keep_reservations;
    absl::Duration tick = absl::Seconds(1);
    // Every so many ticks everything is swept.
    int sweep_every = 10;
    // Called with each sweep; reads keys again.
    std::function<absl::StatusOr<Keys>()> load_keys;
    // What older keys wrote is written anew with the active one.
    bool reencrypt = false;
    // Called with each tick; copies metrics.
    std::function<void()> on_tick;
  };
  // One for each database: of the shards, number `shard`.
  Janitor(Options options, const Shards& shards, size_t shard, StateStore& store, WatchHub& hub, TimerService& timers,
          Executor& executor, Logger& log)
      : options_(std::move(options)),
        shards_(shards),
        shard_(shard),
        access_(shards.at(shard)),
        store_(store),
        hub_(hub),
        timers_(timers),
        executor_(executor),
        log_(log) {}
  ~Janitor() { Stop(); }

  void Start() { scope_.Spawn(executor_, Loop()); }
  void Stop() {
    stop_.request_stop();
    scope_.CloseAndWait();
  }
  // One sweep of everything; also for tests.
  Task<absl::Status> Sweep();
  Task<absl::Status> MakeSnapshots();
  // Some slices of a pass over everything; passes follow each other until one finds nothing to write anew, which names
  // the keys that are no longer needed.
  Task<absl::Status> Reencrypt();

 private:
  // Runs `batch` (how many it removed, of at most kBatch) until little is left.
  Task<absl::Status> InBatches(std::function<absl::StatusOr<int64_t>(Transaction&, int64_t)> batch);
  Task<void> Loop();
  Task<absl::Status> CollectPayloads();
  // Working memories are in the home database, the runs they end with in all.
  Task<absl::Status> ExpireWorking();
  Task<void> ReloadKeys();

  const Options options_;
  const Shards& shards_;
  const size_t shard_;
  Access& access_;
  StateStore& store_;
  WatchHub& hub_;
  TimerService& timers_;
  Executor& executor_;
  Logger& log_;
  int sweeps_ = 0;
  Reencryption::Cursor reencryption_;
  std::string reencrypted_for_;  // the active key of the last complete pass
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::state_manager
