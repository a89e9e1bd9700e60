// Brings the appends of one stream to their runs' databases. Reservations are the home's: an append to another database
// has its reservation promised there first, under its own id, so that the same append sent again reserves nothing
// twice; what comes after it for the same run waits.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "runtime/sync/mutex.h"
#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/shards.h"

namespace tutti::state_manager {

class AppendRouter : public std::enable_shared_from_this<AppendRouter> {
 public:
  using Done = absl::AnyInvocable<void(v1::AppendResponse)>;
  AppendRouter(const Shards& shards, Journal& journal, const Ledger& ledger)
      : shards_(shards), journal_(journal), ledger_(ledger) {}

  // As Journal::Append. Bounded by the databases' queues and, behind a reservation, by kMostHeld.
  void Append(v1::AppendRequest request, Done done);

 private:
  struct Waiting {
    v1::AppendRequest request;
    Done done;
  };
  struct Call {
    Waiting append;
    bool current = false;
    absl::Status refusal;
  };
  void Send(Waiting append);
  void Reserve(Waiting append);
  void ReserveAtHome(std::shared_ptr<Call> call);
  // The reservation of a run's append has been dealt with: what waited behind it goes on.
  void GoOn(const std::string& run_id);

  const Shards& shards_;
  Journal& journal_;
  const Ledger& ledger_;
  Mutex mutex_;
  // Of runs with a reservation under way: what came after.
  absl::flat_hash_map<std::string, std::deque<Waiting>> held_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::state_manager
