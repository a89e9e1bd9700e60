// Schedules in the store: read, and written again only when nobody wrote in between.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "services/workflow-engine/adapters/state_client.h"
#include "tutti/workflow/v1/schedule_service.pb.h"

namespace tutti::engine {

struct StoredSchedule {
  tutti::workflow::v1::Schedule schedule;
  int64_t version = 0;  // 0: not stored yet
  absl::Time now;       // the store's, when it was read
  int strikes = 0;      // engines in a row that died over it; of claims only
};

class ScheduleClient {
 public:
  explicit ScheduleClient(StateClient& state) : state_(state) {}

  // NOT_FOUND: there is none of this name.
  Task<absl::StatusOr<StoredSchedule>> Get(CallContext& call, std::string name);
  struct Page {
    std::vector<tutti::workflow::v1::Schedule> schedules;
    bool has_more = false;
    absl::Time now;
  };
  Task<absl::StatusOr<Page>> List(CallContext& call, int page_size, std::string after_name);
  // ABORTED: another wrote it since it was read. `audit_action` is what a caller did; empty: it moved on by itself.
  Task<absl::StatusOr<StoredSchedule>> Put(CallContext& call, StoredSchedule stored, std::string audit_action);

  // False: there is nothing to write. `next_version` is what the written one will have.
  using Edit = std::function<absl::StatusOr<bool>(tutti::workflow::v1::Schedule& schedule, absl::Time now,
                                                  int64_t next_version)>;
  // Reads, edits and writes, again when another wrote in between.
  Task<absl::StatusOr<StoredSchedule>> Change(CallContext& call, std::string name, std::string audit_action, Edit edit);

  struct Claimed {
    std::vector<StoredSchedule> schedules;
    absl::Duration next_in = absl::InfiniteDuration();
  };
  Task<absl::StatusOr<Claimed>> ClaimDue(CallContext& call, int limit, absl::Duration claim,
                                         state::InstanceRef instance);
  Task<absl::Status> Delete(CallContext& call, std::string name);

 private:
  StateClient& state_;
};

}  // namespace tutti::engine
