// Instances and leases. A run is free when it has not ended and its owner is no living incarnation.
#pragma once

#include <map>
#include <string>

#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/runs.h"
#include "tutti/state/v1/lease_service.pb.h"

namespace tutti::state_manager {

class Leases {
 public:
  explicit Leases(const Runs& runs) : runs_(runs) {}

  absl::Status RegisterInstance(Transaction& tx, const v1::RegisterInstanceRequest& request,
                                v1::RegisterInstanceResponse& response) const;
  absl::Status Heartbeat(Transaction& tx, const v1::HeartbeatRequest& request, v1::HeartbeatResponse& response) const;
  // After a time in which the database was away: as RegisterInstance, unless another incarnation has the name now
  // (FAILED_PRECONDITION).
  absl::Status Rejoin(Transaction& tx, const v1::RegisterInstanceRequest& request,
                      v1::RegisterInstanceResponse& response) const;
  absl::Status ClaimRuns(Transaction& tx, const v1::ClaimRunsRequest& request, v1::ClaimRunsResponse& response) const;
  absl::Status ReleaseInstance(Transaction& tx, const v1::ReleaseInstanceRequest& request,
                               v1::ReleaseInstanceResponse& response) const;
  // Waiting runs whose time has come go on: up to `limit` of them.
  struct Woken {
    int64_t runs = 0;
    int64_t next = 0;  // microseconds until the next one's time; 0: nobody waits for a time
  };
  absl::StatusOr<Woken> WakeDue(Transaction& tx, int64_t limit) const;
  // As Woken::next; 1 when it is over.
  absl::StatusOr<int64_t> NextWake(Transaction& tx) const;

  // Removes engines whose leases ended a day ago; how many.
  absl::StatusOr<int64_t> RemoveExpired(Transaction& tx, int64_t limit) const;
  // Runs without a living owner, by tenant, counted up to a bound.
  static absl::StatusOr<std::map<std::string, int64_t>> CountFree(Transaction& tx, int64_t most);

 private:
  static absl::Status SetRank(Transaction& tx, const std::string& name, v1::EngineRank& rank);
  // Tenants with runs that are not waiting and have not ended.
  static absl::StatusOr<std::vector<std::string>> TenantsWithWork(Transaction& tx);
  // Adds up to `most` free runs of one tenant, those of highest priority first, then the oldest.
  absl::Status ClaimOf(Transaction& tx, const v1::ClaimRunsRequest& request, const std::string& tenant, int64_t now,
                       int64_t most, size_t& bytes, v1::ClaimRunsResponse& response) const;
  const Runs& runs_;
};

}  // namespace tutti::state_manager
