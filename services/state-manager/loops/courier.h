// Carries what one database of a store has for the others or itself, from its outbox; any number of replicas may do so
// at once.
#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "runtime/async/scope.h"
#include "runtime/telemetry/log.h"
#include "services/state-manager/adapters/database_metrics.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/store/shards.h"
#include "services/state-manager/store/state_store.h"

namespace tutti::state_manager {

class Courier {
 public:
  Courier(const Shards& shards, size_t from, const StateStore& store, DatabaseMetrics& metrics, WatchHub& hub,
          TimerService& timers, Executor& executor, Logger& log)
      : shards_(shards),
        from_(from),
        store_(store),
        metrics_(metrics),
        timers_(timers),
        executor_(executor),
        log_(log),
        wake_up_(hub.Watch(News::Kind::kOutbox, "", executor)) {}
  ~Courier() { Stop(); }

  void Start() {
    scope_.Spawn(executor_, Loop());
    scope_.Spawn(executor_, LookNowAndThen());
  }
  void Stop() {
    stop_.request_stop();
    wake_up_->Close();
    scope_.CloseAndWait();
  }

 private:
  using Messages = std::vector<Outbox::Message>;
  Task<void> Loop();
  // At what another replica posted and did not come to deliver, what could not be delivered, and signals that have
  // waited for their grace.
  Task<void> LookNowAndThen();
  // Those after `after`, which becomes the last of them. True: there may be more.
  Task<absl::StatusOr<bool>> Round(size_t target, std::string& after);
  // Those of each lane are a write of their own. What did not get through stays, and holds up no other.
  Task<absl::Status> DeliverTo(size_t target, Messages messages);
  // The message stays, and is tried again later or set aside.
  Task<absl::Status> NoteRefusal(Outbox::Message message, absl::Status why);

  const Shards& shards_;
  const size_t from_;
  const StateStore& store_;
  DatabaseMetrics& metrics_;
  TimerService& timers_;
  Executor& executor_;
  Logger& log_;
  std::shared_ptr<WakeUp> wake_up_;  // when a message was posted, and now and then
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::state_manager
