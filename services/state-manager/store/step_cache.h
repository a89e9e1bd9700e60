// Answers of steps that may be given again.
#pragma once

#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/payloads.h"
#include "tutti/state/v1/cache_service.pb.h"

namespace tutti::state_manager {

class StepCache {
 public:
  explicit StepCache(const Payloads& payloads) : payloads_(payloads) {}

  absl::Status GetCacheEntry(Transaction& tx, const tutti::state::v1::GetCacheEntryRequest& request,
                             tutti::state::v1::GetCacheEntryResponse& response) const;
  absl::Status PutCacheEntry(Transaction& tx, const tutti::state::v1::PutCacheEntryRequest& request,
                             tutti::state::v1::PutCacheEntryResponse& response) const;
  // Removes up to `limit` whose time is over; how many.
  absl::StatusOr<int64_t> Expire(Transaction& tx, int64_t limit) const;

 private:
  const Payloads& payloads_;
};

}  // namespace tutti::state_manager
