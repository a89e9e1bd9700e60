// Schedules, and which of them are due by the database's clock.
#pragma once

#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/payloads.h"
#include "tutti/state/v1/schedule_store_service.pb.h"

namespace tutti::state_manager {

class Schedules {
 public:
  explicit Schedules(const Payloads& payloads) : payloads_(payloads) {}

  absl::Status PutSchedule(Transaction& tx, const tutti::state::v1::PutScheduleRequest& request,
                           tutti::state::v1::PutScheduleResponse& response) const;
  absl::Status GetSchedule(Transaction& tx, const tutti::state::v1::GetScheduleRequest& request,
                           tutti::state::v1::GetScheduleResponse& response) const;
  absl::Status ListSchedules(Transaction& tx, const tutti::state::v1::ListSchedulesRequest& request,
                             tutti::state::v1::ListSchedulesResponse& response) const;
  absl::Status DeleteSchedule(Transaction& tx, const tutti::state::v1::DeleteScheduleRequest& request,
                              tutti::state::v1::DeleteScheduleResponse& response) const;
  absl::Status ClaimDueSchedules(Transaction& tx, const tutti::state::v1::ClaimDueSchedulesRequest& request,
                                 tutti::state::v1::ClaimDueSchedulesResponse& response) const;
  // Fills in `now` and `next_in`; true when something is due. A read.
  absl::StatusOr<bool> LookAhead(Transaction& tx, tutti::state::v1::ClaimDueSchedulesResponse& response) const;

 private:
  // Pairs a claimed schedule with the cell of its definition.
  using Claimed = std::vector<std::pair<tutti::state::v1::StoredSchedule, std::string>>;
  // Leaves one suspect among `due`, a schedule whose claimers died again and again, and no other schedule beside it.
  static absl::Status LeaveOneSuspect(Transaction& tx, int64_t now, Claimed& due);
  // Without its definition; `cell` is what that is kept as.
  static void FromRow(const Statement& row, tutti::state::v1::StoredSchedule* out, std::string* cell);
  absl::Status LoadDefinition(Transaction& tx, absl::string_view cell, tutti::state::v1::StoredSchedule* out) const;
  const Payloads& payloads_;
};

}  // namespace tutti::state_manager
