#include "services/state-manager/store/ledger_book.h"

#include <algorithm>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr char kReservationColumns[] =
    "SELECT reservation_id, scope, budgets, run_id, state, currency_code, held_nano_units, held_tokens, held_calls, "
    "spent_nano_units, spent_tokens, spent_calls, labels, create_time, expire_time, end_time FROM reservations ";

int64_t Saturated(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

void Add(v1::Amount& to, const v1::Amount& amount) {
  to.set_nano_units(Saturated(to.nano_units(), amount.nano_units()));
  to.set_tokens(Saturated(to.tokens(), amount.tokens()));
  to.set_calls(Saturated(to.calls(), amount.calls()));
}

void Subtract(v1::Amount& from, const v1::Amount& amount) {
  from.set_nano_units(std::max<int64_t>(0, from.nano_units() - amount.nano_units()));
  from.set_tokens(std::max<int64_t>(0, from.tokens() - amount.tokens()));
  from.set_calls(std::max<int64_t>(0, from.calls() - amount.calls()));
}

absl::string_view StateName(v1::ReservationState state) {
  switch (state) {
    case v1::RESERVATION_STATE_SETTLED:
      return "SETTLED";
    case v1::RESERVATION_STATE_RELEASED:
      return "RELEASED";
    case v1::RESERVATION_STATE_EXPIRED:
      return "EXPIRED";
    default:
      return "HELD";
  }
}

v1::ReservationState StateOf(absl::string_view name) {
  for (auto state : {v1::RESERVATION_STATE_SETTLED, v1::RESERVATION_STATE_RELEASED, v1::RESERVATION_STATE_EXPIRED}) {
    if (name == StateName(state)) return state;
  }
  return v1::RESERVATION_STATE_HELD;
}

ReservationRow ReservationFromRow(const Statement& row) {
  ReservationRow out;
  auto& r = out.proto;
  r.set_reservation_id(row.Text(0));
  r.set_scope(row.Text(1));
  Json budgets = Json::parse(row.Text(2), nullptr, false);
  for (const auto& scope : budgets) out.budgets.push_back(scope.get<std::string>());
  r.set_run_id(row.Text(3));
  r.set_state(StateOf(row.Text(4)));
  r.set_currency_code(row.Text(5));
  r.mutable_amount()->set_nano_units(row.Int(6));
  r.mutable_amount()->set_tokens(row.Int(7));
  r.mutable_amount()->set_calls(row.Int(8));
  r.mutable_spent()->set_nano_units(row.Int(9));
  r.mutable_spent()->set_tokens(row.Int(10));
  r.mutable_spent()->set_calls(row.Int(11));
  FromJsonText(row.Text(12), r.mutable_labels());
  SetMicros(row.Int(13), r.mutable_create_time());
  SetMicros(row.Int(14), r.mutable_expire_time());
  if (row.Int(15) != 0) SetMicros(row.Int(15), r.mutable_end_time());
  return out;
}

absl::Status Exceeded(const BudgetRow& budget, absl::string_view what, int64_t limit, int64_t spent, int64_t reserved,
                      int64_t wanted) {
  std::string text = absl::StrCat("the budget of ", budget.scope, " allows ", limit, " ", what, "; ", spent,
                                  " are spent, ", reserved, " reserved, ", wanted, " more were asked for");
  Error error(absl::StatusCode::kResourceExhausted, "BUDGET_EXCEEDED", text);
  error.Metadata("scope", budget.scope).Metadata("limited", what).Quota(budget.scope, text);
  return error;
}

absl::Status CheckLimits(const BudgetRow& budget, const v1::Reservation& reservation) {
  const v1::Amount& amount = reservation.amount();
  if (budget.limit_nano_units >= 0 && amount.nano_units() > 0 && reservation.currency_code() != budget.currency) {
    return Invalid("currency_code", absl::StrCat("is ", reservation.currency_code(), "; the budget of ", budget.scope,
                                                 " is in ", budget.currency));
  }
  auto check = [&](absl::string_view what, int64_t limit, int64_t spent, int64_t reserved, int64_t wanted) {
    bool fits = limit < 0 || wanted == 0 || Saturated(Saturated(spent, reserved), wanted) <= limit;
    return fits ? absl::OkStatus() : Exceeded(budget, what, limit, spent, reserved, wanted);
  };
  TUTTI_RETURN_IF_ERROR(check(absl::StrCat("nano-units of ", budget.currency), budget.limit_nano_units,
                              budget.spent.nano_units(), budget.reserved.nano_units(), amount.nano_units()));
  TUTTI_RETURN_IF_ERROR(
      check("tokens", budget.limit_tokens, budget.spent.tokens(), budget.reserved.tokens(), amount.tokens()));
  return check("calls", budget.limit_calls, budget.spent.calls(), budget.reserved.calls(), amount.calls());
}

// What of it a budget counts: money in its own currency only.
v1::Amount Counted(const BudgetRow& budget, const v1::Reservation& reservation, v1::Amount amount) {
  if (reservation.currency_code() != budget.currency) amount.clear_nano_units();
  return amount;
}

}  // namespace

const char kBudgetColumns[] =
    "SELECT scope, currency_code, limit_nano_units, limit_tokens, limit_calls, window_micros, window_start, "
    "spent_nano_units, spent_tokens, spent_calls, reserved_nano_units, reserved_tokens, reserved_calls, create_time, "
    "update_time FROM budgets ";

BudgetRow BudgetFromRow(const Statement& row, int64_t now) {
  BudgetRow out;
  out.scope = row.Text(0);
  out.currency = row.Text(1);
  out.limit_nano_units = row.Int(2);
  out.limit_tokens = row.Int(3);
  out.limit_calls = row.Int(4);
  out.window = row.Int(5);
  out.window_start = row.Int(6);
  out.spent.set_nano_units(row.Int(7));
  out.spent.set_tokens(row.Int(8));
  out.spent.set_calls(row.Int(9));
  out.reserved.set_nano_units(row.Int(10));
  out.reserved.set_tokens(row.Int(11));
  out.reserved.set_calls(row.Int(12));
  out.create_time = row.Int(13);
  out.update_time = row.Int(14);
  if (out.window > 0) {
    int64_t start = now - now % out.window;
    if (start > out.window_start) {
      out.window_start = start;
      out.spent.Clear();
    }
  }
  return out;
}

v1::Budget BudgetRow::ToProto() const {
  v1::Budget out;
  out.set_scope(scope);
  out.set_currency_code(currency);
  if (limit_nano_units >= 0) out.set_limit_nano_units(limit_nano_units);
  if (limit_tokens >= 0) out.set_limit_tokens(limit_tokens);
  if (limit_calls >= 0) out.set_limit_calls(limit_calls);
  if (window > 0) {
    out.mutable_window()->set_seconds(window / 1000000);
    out.mutable_window()->set_nanos(static_cast<int32_t>(window % 1000000) * 1000);
    SetMicros(window_start, out.mutable_window_start_time());
  }
  *out.mutable_spent() = spent;
  *out.mutable_reserved() = reserved;
  SetMicros(create_time, out.mutable_create_time());
  SetMicros(update_time, out.mutable_update_time());
  return out;
}

absl::Status LedgerBook::LoadReservations(const std::vector<std::string>& ids) {
  Statement rows = tx_.Prepare(
      absl::StrCat(kReservationColumns, "WHERE reservation_id = ANY($1) ORDER BY reservation_id FOR UPDATE"));
  rows.BindList(ids);
  while (rows.Step()) {
    ReservationRow row = ReservationFromRow(rows);
    reservations_[row.proto.reservation_id()] = std::move(row);
  }
  return rows.status();
}

absl::Status LedgerBook::LoadBudgets(const std::vector<std::string>& scopes) {
  std::set<std::string> wanted(scopes.begin(), scopes.end());
  for (const auto& [id, row] : reservations_) wanted.insert(row.budgets.begin(), row.budgets.end());
  if (wanted.empty()) return absl::OkStatus();
  const int64_t now = tx_.NowMicros();
  Statement rows = tx_.Prepare(absl::StrCat(kBudgetColumns, "WHERE scope = ANY($1) ORDER BY scope FOR UPDATE"));
  rows.BindList({wanted.begin(), wanted.end()});
  while (rows.Step()) {
    BudgetRow row = BudgetFromRow(rows, now);
    budgets_[row.scope] = std::move(row);
  }
  return rows.status();
}

ReservationRow* LedgerBook::Find(const std::string& id) {
  auto it = reservations_.find(id);
  return it == reservations_.end() ? nullptr : &it->second;
}

absl::Status LedgerBook::Reserve(const v1::Reservation& reservation, const std::vector<std::string>& fronts) {
  ReservationRow* known = Find(reservation.reservation_id());
  if (known != nullptr && known->proto.state() != v1::RESERVATION_STATE_EXPIRED) return absl::OkStatus();
  // What an expired one held has been given back, perhaps to others: it is held anew, if there is still room.
  std::vector<std::string> budgets;
  for (const auto& scope : fronts) {
    auto budget = budgets_.find(scope);
    if (budget == budgets_.end()) continue;
    TUTTI_RETURN_IF_ERROR(CheckLimits(budget->second, reservation));
    budgets.push_back(scope);
  }
  Hold(reservation, std::move(budgets));
  return absl::OkStatus();
}

void LedgerBook::Keep(const v1::Reservation& reservation, const std::vector<std::string>& fronts) {
  ReservationRow* known = Find(reservation.reservation_id());
  if (known != nullptr && known->proto.state() == v1::RESERVATION_STATE_HELD) {
    const int64_t until = tx_.NowMicros() + ToMicros(reservation.ttl());
    if (until <= ToMicros(known->proto.expire_time())) return;
    SetMicros(until, known->proto.mutable_expire_time());
    known->changed = known->renewed = true;
    return;
  }
  if (known != nullptr && known->proto.state() != v1::RESERVATION_STATE_EXPIRED) return;
  std::vector<std::string> budgets;
  for (const auto& scope : fronts) {
    if (budgets_.contains(scope)) budgets.push_back(scope);
  }
  Hold(reservation, std::move(budgets));
}

void LedgerBook::Hold(const v1::Reservation& reservation, std::vector<std::string> budgets) {
  const bool known = Find(reservation.reservation_id()) != nullptr;
  ReservationRow row;
  row.budgets = std::move(budgets);
  for (const auto& scope : row.budgets) {
    Add(budgets_[scope].reserved, Counted(budgets_[scope], reservation, reservation.amount()));
    budgets_[scope].changed = true;
  }
  row.proto = reservation;
  row.proto.clear_spent();
  row.proto.clear_end_time();
  row.proto.set_state(v1::RESERVATION_STATE_HELD);
  // A transaction's time is that of its beginning: one that waited for a budget to be set is not older than that
  // budget, or else End would take it for one that was never held.
  int64_t now = tx_.NowMicros();
  for (const auto& scope : row.budgets) now = std::max(now, budgets_[scope].create_time);
  SetMicros(now, row.proto.mutable_create_time());
  SetMicros(now + ToMicros(reservation.ttl()), row.proto.mutable_expire_time());
  row.is_new = !known;
  row.changed = row.renewed = known;
  reservations_[reservation.reservation_id()] = std::move(row);
}

absl::Status LedgerBook::Settle(const v1::Settlement& settlement) {
  ReservationRow* row = Find(settlement.reservation_id());
  if (row == nullptr) {
    return Error(absl::StatusCode::kNotFound, "RESERVATION_NOT_FOUND",
                 absl::StrCat("reservation ", settlement.reservation_id(), " does not exist"))
        .Metadata("reservation_id", settlement.reservation_id());
  }
  if (row->proto.state() == v1::RESERVATION_STATE_SETTLED) return absl::OkStatus();
  *row->proto.mutable_spent() = settlement.spent();
  return End(*row, v1::RESERVATION_STATE_SETTLED);
}

absl::Status LedgerBook::End(ReservationRow& row, v1::ReservationState state) {
  for (const auto& scope : row.budgets) {
    bool held = row.proto.state() == v1::RESERVATION_STATE_HELD;
    auto budget = budgets_.find(scope);
    if (budget == budgets_.end()) continue;  // deleted since
    // A budget that was set after the reservation has never held it.
    held &= budget->second.create_time <= ToMicros(row.proto.create_time());
    if (held) Subtract(budget->second.reserved, Counted(budget->second, row.proto, row.proto.amount()));
    if (state == v1::RESERVATION_STATE_SETTLED) {
      Add(budget->second.spent, Counted(budget->second, row.proto, row.proto.spent()));
    }
    budget->second.changed = true;
  }
  row.proto.set_state(state);
  SetMicros(tx_.NowMicros(), row.proto.mutable_end_time());
  row.changed = true;
  return absl::OkStatus();
}

absl::Status LedgerBook::WriteReservation(ReservationRow& row) {
  const v1::Reservation& r = row.proto;
  if (row.renewed) {
    Json budgets = row.budgets;
    TUTTI_RETURN_IF_ERROR(tx_.Prepare("UPDATE reservations SET budgets = $2, held_nano_units = $3, held_tokens = $4, "
                                      "held_calls = $5, create_time = $6, expire_time = $7 WHERE reservation_id = $1")
                              .BindAll(r.reservation_id(), DumpJson(budgets), r.amount().nano_units(),
                                       r.amount().tokens(), r.amount().calls(), ToMicros(r.create_time()),
                                       ToMicros(r.expire_time()))
                              .Run());
  }
  if (!row.is_new) {
    return tx_
        .Prepare(
            "UPDATE reservations SET state = $2, spent_nano_units = $3, spent_tokens = $4, spent_calls = $5, "
            "end_time = $6 WHERE reservation_id = $1")
        .BindAll(r.reservation_id(), StateName(r.state()), r.spent().nano_units(), r.spent().tokens(),
                 r.spent().calls(), ToMicros(r.end_time()))
        .Run();
  }
  Json budgets = row.budgets;
  Statement insert = tx_.Prepare(
      "INSERT INTO reservations (reservation_id, scope, budgets, run_id, state, currency_code, held_nano_units, "
      "held_tokens, held_calls, spent_nano_units, spent_tokens, spent_calls, labels, create_time, expire_time, "
      "end_time) "
      "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING");
  insert.BindAll(r.reservation_id(), r.scope(), DumpJson(budgets), r.run_id(), StateName(r.state()), r.currency_code(),
                 r.amount().nano_units(), r.amount().tokens(), r.amount().calls(), r.spent().nano_units(),
                 r.spent().tokens(), r.spent().calls(), ToJsonText(r.labels()), ToMicros(r.create_time()),
                 ToMicros(r.expire_time()), ToMicros(r.end_time()));
  TUTTI_RETURN_IF_ERROR(insert.Run());
  if (insert.Changes() > 0) return absl::OkStatus();
  return Error(
             absl::StatusCode::kAborted, "RESERVATION_RACED",
             absl::StrCat("reservation ", r.reservation_id(), " was made by another call at the same time; try again"))
      .RetryAfter(absl::Milliseconds(20));
}

absl::Status LedgerBook::Write() {
  // New ones first: one that another call has made meanwhile is found out before anything else is written.
  for (bool is_new : {true, false}) {
    for (auto& [id, row] : reservations_) {
      if (row.is_new == is_new && (row.is_new || row.changed)) TUTTI_RETURN_IF_ERROR(WriteReservation(row));
    }
  }
  for (auto& [scope, budget] : budgets_) {
    if (!budget.changed) continue;
    TUTTI_RETURN_IF_ERROR(
        tx_.Prepare("UPDATE budgets SET window_start = $2, spent_nano_units = $3, spent_tokens = $4, spent_calls = $5, "
                    "reserved_nano_units = $6, reserved_tokens = $7, reserved_calls = $8 WHERE scope = $1")
            .BindAll(scope, budget.window_start, budget.spent.nano_units(), budget.spent.tokens(), budget.spent.calls(),
                     budget.reserved.nano_units(), budget.reserved.tokens(), budget.reserved.calls())
            .Run());
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
