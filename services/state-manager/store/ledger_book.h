// A part of the ledger in hand: budgets and reservations that a transaction has locked, changed in memory, and then
// writes. Refusals come before anything is written.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "services/state-manager/store/ledger.h"

namespace tutti::state_manager {

struct BudgetRow {
  std::string scope, currency;
  int64_t limit_nano_units = -1, limit_tokens = -1, limit_calls = -1;
  int64_t window = 0, window_start = 0;
  v1::Amount spent, reserved;
  int64_t create_time = 0, update_time = 0;
  bool changed = false;

  v1::Budget ToProto() const;
};

// The columns of BudgetFromRow.
extern const char kBudgetColumns[];
// With `now`, a window that is over is closed.
BudgetRow BudgetFromRow(const Statement& row, int64_t now);

struct ReservationRow {
  v1::Reservation proto;
  std::vector<std::string> budgets;  // what it is held against
  bool is_new = false, changed = false, renewed = false;
};

class LedgerBook {
 public:
  explicit LedgerBook(Transaction& tx) : tx_(tx) {}

  // Loads and locks the reservations named; those that do not exist are left out.
  absl::Status LoadReservations(const std::vector<std::string>& ids);
  // Loads and locks, in one order, the budgets on these scopes, and those that loaded reservations are held against.
  absl::Status LoadBudgets(const std::vector<std::string>& scopes);
  ReservationRow* Find(const std::string& id);

  // RESOURCE_EXHAUSTED: a limit would be passed. A known id changes nothing.
  absl::Status Reserve(const v1::Reservation& reservation, const std::vector<std::string>& fronts);
  // Makes a promised reservation last as long as it says. One that is no longer held is held anew whatever the limits
  // say, for its caller has begun to spend it; one that has ended stays so.
  void Keep(const v1::Reservation& reservation, const std::vector<std::string>& fronts);
  // NOT_FOUND: no such reservation.
  absl::Status Settle(const v1::Settlement& settlement);
  absl::Status End(ReservationRow& row, v1::ReservationState state);

  absl::Status Write();

 private:
  void Hold(const v1::Reservation& reservation, std::vector<std::string> budgets);
  absl::Status WriteReservation(ReservationRow& row);

  Transaction& tx_;
  std::map<std::string, BudgetRow> budgets_;
  std::map<std::string, ReservationRow> reservations_;
};

}  // namespace tutti::state_manager
