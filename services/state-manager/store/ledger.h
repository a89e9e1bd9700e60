// Budgets, reservations and what was spent. However many callers race, over any number of replicas, what is held and
// spent never passes a limit: the budgets on a scope and above it are locked in one order, checked together, and
// written with the reservation.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <map>
#include <string>
#include <vector>

#include "services/state-manager/ports/database.h"
#include "tutti/state/v1/budget_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Ledger {
 public:
  absl::Status SetBudget(Transaction& tx, const v1::SetBudgetRequest& request, v1::SetBudgetResponse& response) const;
  absl::Status GetBudget(Transaction& tx, const v1::GetBudgetRequest& request, v1::GetBudgetResponse& response) const;
  absl::Status ListBudgets(Transaction& tx, const v1::ListBudgetsRequest& request,
                           v1::ListBudgetsResponse& response) const;
  absl::Status DeleteBudget(Transaction& tx, const v1::DeleteBudgetRequest& request,
                            v1::DeleteBudgetResponse& response) const;
  absl::Status Reserve(Transaction& tx, const v1::ReserveRequest& request, v1::ReserveResponse& response) const;
  absl::Status Settle(Transaction& tx, const v1::SettleRequest& request, v1::SettleResponse& response) const;
  absl::Status Release(Transaction& tx, const v1::ReleaseRequest& request, v1::ReleaseResponse& response) const;
  absl::Status ReportSpending(Transaction& tx, const v1::ReportSpendingRequest& request,
                              v1::ReportSpendingResponse& response) const;

  // Reservations and settlements of a journal append: all, or an error and nothing.
  absl::Status Apply(Transaction& tx, const std::string& run_id,
                     const google::protobuf::RepeatedPtrField<v1::Reservation>& reserve,
                     const google::protobuf::RepeatedPtrField<v1::Settlement>& settle) const;
  // The same for an append to another database, before it: what it reserves is held for kPromise, and from the moment
  // that the entry is committed, which Keep is told by a message that is committed with it, for as long as it says.
  absl::Status Promise(Transaction& tx, const std::string& run_id,
                       const google::protobuf::RepeatedPtrField<v1::Reservation>& reserve,
                       const google::protobuf::RepeatedPtrField<v1::Settlement>& settle) const;
  absl::Status Keep(Transaction& tx, const v1::Reservation& reservation) const;
  static constexpr int kPromise = 60;  // seconds
  static absl::Status Check(const v1::Settlement& settlement);
  // Gives back up to `limit` reservations whose time is over; how many.
  absl::StatusOr<int64_t> Expire(Transaction& tx, int64_t limit) const;
  // Removes up to `limit` reservations that ended before `before`; how many.
  absl::StatusOr<int64_t> RemoveEnded(Transaction& tx, int64_t before, int64_t limit) const;
};

// The scope and every front of it, the longest last. INVALID_ARGUMENT: not 1 to 6 pairs of kind/name.
absl::StatusOr<std::vector<std::string>> ScopeFronts(const std::string& scope);

}  // namespace tutti::state_manager
