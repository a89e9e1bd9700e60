// Carries what one database of a store has for the others, from its outbox; any number of replicas may do so at once.
#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "runtime/async/scope.h"
#include "runtime/telemetry/log.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/store/outbox.h"
#include "services/state-manager/store/shards.h"

namespace tutti::state_manager {

class Courier {
 public:
  Courier(const Shards& shards, size_t from, const Outbox& outbox, WatchHub& hub, Executor& executor, Logger& log)
      : shards_(shards),
        from_(from),
        outbox_(outbox),
        executor_(executor),
        log_(log),
        wake_up_(hub.Watch(News::Kind::kOutbox, "", executor)) {}
  ~Courier() { Stop(); }

  void Start() { scope_.Spawn(executor_, Loop()); }
  void Stop() {
    stop_.request_stop();
    wake_up_->Close();
    scope_.CloseAndWait();
  }

 private:
  Task<void> Loop();
  // True: there may be more.
  Task<absl::StatusOr<bool>> Round(size_t target);
  Task<absl::Status> DeliverTo(size_t target, std::vector<Outbox::Message> messages);

  const Shards& shards_;
  const size_t from_;
  const Outbox& outbox_;
  Executor& executor_;
  Logger& log_;
  std::shared_ptr<WakeUp> wake_up_;  // when a message was posted anywhere, and now and then
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::state_manager
