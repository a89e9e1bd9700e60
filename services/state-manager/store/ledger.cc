#include "services/state-manager/store/ledger.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/store/ledger_book.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMaxPairs = 6;
constexpr int64_t kDay = 86400;
// Far from the end of 64 bits: a hundred million units of a currency, and sums of many of them.
constexpr int64_t kMostAmount = int64_t{100} * 1000 * 1000 * 1000 * 1000 * 1000;
constexpr int kReportPage = 10000;
constexpr int kMaxReportRows = 1000;
constexpr size_t kMostGroups = 100000;

absl::Status NoBudget(absl::string_view scope) {
  return Error(absl::StatusCode::kNotFound, "BUDGET_NOT_FOUND", absl::StrCat("there is no budget on ", scope))
      .Metadata("scope", scope);
}

absl::Status CheckAmount(absl::string_view field, const v1::Amount& amount) {
  auto check = [&](absl::string_view name, int64_t value) {
    if (value >= 0 && value <= kMostAmount) return absl::OkStatus();
    return Invalid(absl::StrCat(field, ".", name), absl::StrCat("is ", value, "; 0 to ", kMostAmount));
  };
  TUTTI_RETURN_IF_ERROR(check("nano_units", amount.nano_units()));
  TUTTI_RETURN_IF_ERROR(check("tokens", amount.tokens()));
  return check("calls", amount.calls());
}

absl::Status CheckCurrency(absl::string_view field, absl::string_view code) {
  bool good = code.size() == 3;
  for (char c : code) good &= c >= 'A' && c <= 'Z';
  return good ? absl::OkStatus() : Invalid(field, "must be an ISO 4217 code, for example USD");
}

// Defaults in, mistakes out.
absl::Status Complete(v1::Reservation& reservation) {
  TUTTI_RETURN_IF_ERROR(CheckText("reservation.reservation_id", reservation.reservation_id(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckText("reservation.run_id", reservation.run_id(), 200));
  TUTTI_RETURN_IF_ERROR(CheckAmount("reservation.amount", reservation.amount()));
  TUTTI_RETURN_IF_ERROR(CheckLabels("reservation.labels", reservation.labels(), 16));
  if (reservation.currency_code().empty()) reservation.set_currency_code("USD");
  TUTTI_RETURN_IF_ERROR(CheckCurrency("reservation.currency_code", reservation.currency_code()));
  if (!reservation.has_ttl()) reservation.mutable_ttl()->set_seconds(3600);
  return CheckDuration("reservation.ttl", reservation.ttl(), 1, 31 * kDay);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ScopeFronts(const std::string& scope) {
  std::vector<std::string> parts = absl::StrSplit(scope, '/');
  if (scope.empty() || parts.size() % 2 != 0 || parts.size() > 2 * kMaxPairs) {
    return Invalid("scope", absl::StrCat("\"", scope,
                                         "\" is not 1 to 6 pairs of a kind and a name, for example "
                                         "tenants/acme/projects/web"));
  }
  std::vector<std::string> out;
  std::string front;
  for (size_t i = 0; i < parts.size(); ++i) {
    TUTTI_RETURN_IF_ERROR(CheckText("scope", parts[i], 200, /*required=*/true));
    absl::StrAppend(&front, i > 0 ? "/" : "", parts[i]);
    if (i % 2 == 1) out.push_back(front);
  }
  return out;
}

absl::Status Ledger::SetBudget(Transaction& tx, const v1::SetBudgetRequest& request,
                               v1::SetBudgetResponse& response) const {
  const v1::Budget& budget = request.budget();
  TUTTI_ASSIGN_OR_RETURN(auto fronts, ScopeFronts(budget.scope()));
  std::string currency = budget.currency_code().empty() ? "USD" : budget.currency_code();
  TUTTI_RETURN_IF_ERROR(CheckCurrency("budget.currency_code", currency));
  v1::Amount limits;
  limits.set_nano_units(budget.limit_nano_units());
  limits.set_tokens(budget.limit_tokens());
  limits.set_calls(budget.limit_calls());
  TUTTI_RETURN_IF_ERROR(CheckAmount("budget.limit", limits));
  if (budget.has_window()) TUTTI_RETURN_IF_ERROR(CheckDuration("budget.window", budget.window(), 1, 366 * kDay));
  const int64_t now = tx.NowMicros();
  const int64_t window = ToMicros(budget.window());
  {
    Statement old = tx.Prepare(absl::StrCat(kBudgetColumns, "WHERE scope = $1 FOR UPDATE"));
    old.Bind(budget.scope());
    if (old.Step()) {
      BudgetRow row = BudgetFromRow(old, now);
      bool used = row.spent.nano_units() > 0 || row.reserved.nano_units() > 0;
      if (used && row.currency != currency) {
        return Error(absl::StatusCode::kFailedPrecondition, "CURRENCY_FIXED",
                     absl::StrCat("the budget of ", row.scope, " has already spent ", row.currency,
                                  "; its currency cannot change to ", currency));
      }
    }
    TUTTI_RETURN_IF_ERROR(old.status());
  }
  {
    Statement put = tx.Prepare(
        "INSERT INTO budgets (scope, currency_code, limit_nano_units, limit_tokens, limit_calls, window_micros, "
        "window_start, spent_nano_units, spent_tokens, spent_calls, reserved_nano_units, reserved_tokens, "
        "reserved_calls, "
        "create_time, update_time) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, 0, 0, 0, $8, $8) ON CONFLICT (scope) "
        "DO "
        "UPDATE SET currency_code = $2, limit_nano_units = $3, limit_tokens = $4, limit_calls = $5, window_micros = "
        "$6, "
        "update_time = $8");
    put.BindAll(budget.scope(), currency, budget.has_limit_nano_units() ? budget.limit_nano_units() : int64_t{-1},
                budget.has_limit_tokens() ? budget.limit_tokens() : int64_t{-1},
                budget.has_limit_calls() ? budget.limit_calls() : int64_t{-1}, window,
                window > 0 ? now - now % window : now, now);
    TUTTI_RETURN_IF_ERROR(put.Run());
  }
  v1::GetBudgetRequest get;
  get.set_scope(budget.scope());
  v1::GetBudgetResponse got;
  TUTTI_RETURN_IF_ERROR(GetBudget(tx, get, got));
  *response.mutable_budget() = got.budget();
  return absl::OkStatus();
}

absl::Status Ledger::GetBudget(Transaction& tx, const v1::GetBudgetRequest& request,
                               v1::GetBudgetResponse& response) const {
  Statement row = tx.Prepare(absl::StrCat(kBudgetColumns, "WHERE scope = $1"));
  row.Bind(request.scope());
  if (!row.Step()) return row.status().ok() ? NoBudget(request.scope()) : row.status();
  *response.mutable_budget() = BudgetFromRow(row, tx.NowMicros()).ToProto();
  return absl::OkStatus();
}

absl::Status Ledger::ListBudgets(Transaction& tx, const v1::ListBudgetsRequest& request,
                                 v1::ListBudgetsResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  TUTTI_ASSIGN_OR_RETURN(std::string after, DecodePageToken(request.page_token(), request.scope()));
  // '0' is the character after '/': the scope's children sort between.
  Statement rows = tx.Prepare(absl::StrCat(
      kBudgetColumns,
      "WHERE scope > $1 AND ($2 = '' OR scope = $2 OR (scope > $3 AND scope < $4)) ORDER BY scope LIMIT $5"));
  rows.BindAll(after, request.scope(), absl::StrCat(request.scope(), "/"), absl::StrCat(request.scope(), "0"),
               page + 1);
  const int64_t now = tx.NowMicros();
  while (rows.Step()) {
    if (response.budgets_size() == page) {
      response.set_next_page_token(EncodePageToken(response.budgets().rbegin()->scope(), request.scope()));
      break;
    }
    *response.add_budgets() = BudgetFromRow(rows, now).ToProto();
  }
  return rows.status();
}

absl::Status Ledger::Check(const v1::Settlement& settlement) {
  TUTTI_RETURN_IF_ERROR(CheckText("settlement.reservation_id", settlement.reservation_id(), 200, /*required=*/true));
  return CheckAmount("settlement.spent", settlement.spent());
}

absl::Status Ledger::DeleteBudget(Transaction& tx, const v1::DeleteBudgetRequest& request,
                                  v1::DeleteBudgetResponse&) const {
  Statement remove = tx.Prepare("DELETE FROM budgets WHERE scope = $1");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(request.scope()).Run());
  return remove.Changes() > 0 ? absl::OkStatus() : NoBudget(request.scope());
}

absl::Status Ledger::Apply(Transaction& tx, const std::string& run_id,
                           const google::protobuf::RepeatedPtrField<v1::Reservation>& reserve,
                           const google::protobuf::RepeatedPtrField<v1::Settlement>& settle) const {
  if (reserve.empty() && settle.empty()) return absl::OkStatus();
  std::vector<std::string> ids, scopes;
  std::vector<v1::Reservation> reservations;
  std::vector<std::vector<std::string>> fronts;
  for (const auto& given : reserve) {
    v1::Reservation reservation = given;
    if (reservation.run_id().empty()) reservation.set_run_id(run_id);
    TUTTI_RETURN_IF_ERROR(Complete(reservation));
    TUTTI_ASSIGN_OR_RETURN(fronts.emplace_back(), ScopeFronts(reservation.scope()));
    scopes.insert(scopes.end(), fronts.back().begin(), fronts.back().end());
    ids.push_back(reservation.reservation_id());
    reservations.push_back(std::move(reservation));
  }
  for (const auto& settlement : settle) {
    TUTTI_RETURN_IF_ERROR(Check(settlement));
    ids.push_back(settlement.reservation_id());
  }
  LedgerBook book(tx);
  TUTTI_RETURN_IF_ERROR(book.LoadReservations(ids));
  TUTTI_RETURN_IF_ERROR(book.LoadBudgets(scopes));
  for (const auto& settlement : settle) TUTTI_RETURN_IF_ERROR(book.Settle(settlement));
  for (size_t i = 0; i < reservations.size(); ++i) TUTTI_RETURN_IF_ERROR(book.Reserve(reservations[i], fronts[i]));
  return book.Write();
}

absl::Status Ledger::Promise(Transaction& tx, const std::string& run_id,
                             const google::protobuf::RepeatedPtrField<v1::Reservation>& reserve,
                             const google::protobuf::RepeatedPtrField<v1::Settlement>& settle) const {
  google::protobuf::RepeatedPtrField<v1::Reservation> promised = reserve;
  for (auto& reservation : promised) {
    TUTTI_RETURN_IF_ERROR(Complete(reservation));
    auto& ttl = *reservation.mutable_ttl();
    if (ttl.seconds() < kPromise) continue;
    ttl.set_seconds(kPromise);
    ttl.clear_nanos();
  }
  return Apply(tx, run_id, promised, settle);
}

absl::Status Ledger::Keep(Transaction& tx, const v1::Reservation& given) const {
  v1::Reservation reservation = given;
  TUTTI_RETURN_IF_ERROR(Complete(reservation));
  TUTTI_ASSIGN_OR_RETURN(auto fronts, ScopeFronts(reservation.scope()));
  LedgerBook book(tx);
  TUTTI_RETURN_IF_ERROR(book.LoadReservations({reservation.reservation_id()}));
  TUTTI_RETURN_IF_ERROR(book.LoadBudgets(fronts));
  book.Keep(reservation, fronts);
  return book.Write();
}

absl::Status Ledger::Reserve(Transaction& tx, const v1::ReserveRequest& request, v1::ReserveResponse& response) const {
  v1::Reservation reservation = request.reservation();
  TUTTI_RETURN_IF_ERROR(Complete(reservation));
  TUTTI_ASSIGN_OR_RETURN(auto fronts, ScopeFronts(reservation.scope()));
  LedgerBook book(tx);
  TUTTI_RETURN_IF_ERROR(book.LoadReservations({reservation.reservation_id()}));
  TUTTI_RETURN_IF_ERROR(book.LoadBudgets(fronts));
  TUTTI_RETURN_IF_ERROR(book.Reserve(reservation, fronts));
  TUTTI_RETURN_IF_ERROR(book.Write());
  *response.mutable_reservation() = book.Find(reservation.reservation_id())->proto;
  return absl::OkStatus();
}

absl::Status Ledger::Settle(Transaction& tx, const v1::SettleRequest& request, v1::SettleResponse& response) const {
  TUTTI_RETURN_IF_ERROR(Check(request.settlement()));
  const std::string& id = request.settlement().reservation_id();
  LedgerBook book(tx);
  TUTTI_RETURN_IF_ERROR(book.LoadReservations({id}));
  TUTTI_RETURN_IF_ERROR(book.LoadBudgets({}));
  TUTTI_RETURN_IF_ERROR(book.Settle(request.settlement()));
  TUTTI_RETURN_IF_ERROR(book.Write());
  *response.mutable_reservation() = book.Find(id)->proto;
  return absl::OkStatus();
}

absl::Status Ledger::Release(Transaction& tx, const v1::ReleaseRequest& request, v1::ReleaseResponse& response) const {
  const std::string& id = request.reservation_id();
  LedgerBook book(tx);
  TUTTI_RETURN_IF_ERROR(book.LoadReservations({id}));
  ReservationRow* row = book.Find(id);
  if (row == nullptr) {
    return Error(absl::StatusCode::kNotFound, "RESERVATION_NOT_FOUND",
                 absl::StrCat("reservation ", id, " does not exist"))
        .Metadata("reservation_id", id);
  }
  if (row->proto.state() == v1::RESERVATION_STATE_HELD) {
    TUTTI_RETURN_IF_ERROR(book.LoadBudgets({}));
    TUTTI_RETURN_IF_ERROR(book.End(*row, v1::RESERVATION_STATE_RELEASED));
    TUTTI_RETURN_IF_ERROR(book.Write());
  }
  *response.mutable_reservation() = row->proto;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Ledger::Expire(Transaction& tx, int64_t limit) const {
  std::vector<std::string> ids;
  {
    Statement rows = tx.Prepare(
        "SELECT reservation_id FROM reservations WHERE state = 'HELD' AND expire_time <= $1 ORDER BY expire_time LIMIT "
        "$2 "
        "FOR UPDATE SKIP LOCKED");
    rows.BindAll(tx.NowMicros(), limit);
    while (rows.Step()) ids.push_back(rows.Text(0));
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  if (ids.empty()) return 0;
  LedgerBook book(tx);
  TUTTI_RETURN_IF_ERROR(book.LoadReservations(ids));
  TUTTI_RETURN_IF_ERROR(book.LoadBudgets({}));
  for (const auto& id : ids) TUTTI_RETURN_IF_ERROR(book.End(*book.Find(id), v1::RESERVATION_STATE_EXPIRED));
  TUTTI_RETURN_IF_ERROR(book.Write());
  return static_cast<int64_t>(ids.size());
}

absl::StatusOr<int64_t> Ledger::RemoveEnded(Transaction& tx, int64_t before, int64_t limit) const {
  Statement remove = tx.Prepare(
      "DELETE FROM reservations WHERE reservation_id IN (SELECT reservation_id FROM reservations WHERE end_time > 0 "
      "AND "
      "end_time < $1 LIMIT $2)");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(before, limit).Run());
  return remove.Changes();
}

absl::Status Ledger::ReportSpending(Transaction& tx, const v1::ReportSpendingRequest& request,
                                    v1::ReportSpendingResponse& response) const {
  if (request.level() < 0 || request.level() > static_cast<int>(kMaxPairs)) {
    return Invalid("level", absl::StrCat("is ", request.level(), "; 0 to ", kMaxPairs));
  }
  if (!request.scope().empty()) TUTTI_RETURN_IF_ERROR(ScopeFronts(request.scope()).status());
  if (request.page_size() < 0) return Invalid("page_size", "must not be negative");
  const int page_size = request.page_size() == 0 ? kMaxReportRows : std::min(request.page_size(), kMaxReportRows);
  v1::ReportSpendingRequest question = request;
  question.clear_page_token();
  question.clear_page_size();
  const std::string bound_to = question.SerializeAsString();
  TUTTI_ASSIGN_OR_RETURN(std::string cursor, DecodePageToken(request.page_token(), bound_to));
  int from = 0;
  if (!cursor.empty() && (!absl::SimpleAtoi(cursor, &from) || from < 0)) {
    return Invalid("page_token", "is not one of ours");
  }
  const int64_t begin = ToMicros(request.start_time());
  const int64_t end = request.has_end_time() ? ToMicros(request.end_time()) : std::numeric_limits<int64_t>::max();
  std::map<std::pair<std::string, std::string>, v1::ReportSpendingResponse::Row> groups;
  std::string last;
  for (bool more = true; more;) {
    Statement rows = tx.Prepare(
        "SELECT reservation_id, scope, currency_code, spent_nano_units, spent_tokens, spent_calls, labels FROM "
        "reservations WHERE reservation_id > $1 AND state = 'SETTLED' AND end_time >= $2 AND end_time < $3 AND ($4 = "
        "'' "
        "OR scope = $4 OR (scope > $5 AND scope < $6)) ORDER BY reservation_id LIMIT $7");
    rows.BindAll(last, begin, end, request.scope(), absl::StrCat(request.scope(), "/"),
                 absl::StrCat(request.scope(), "0"), kReportPage);
    int count = 0;
    while (rows.Step()) {
      ++count;
      last = rows.Text(0);
      std::string key;
      if (!request.label().empty()) {
        StringMap labels;
        FromJsonText(rows.Text(6), &labels);
        if (auto it = labels.find(request.label()); it != labels.end()) key = it->second;
      } else if (request.level() > 0) {
        std::vector<std::string> parts = absl::StrSplit(rows.Text(1), '/');
        parts.resize(std::min<size_t>(parts.size(), 2 * static_cast<size_t>(request.level())));
        key = absl::StrJoin(parts, "/");
      }
      auto& row = groups[{key, rows.Text(2)}];
      if (groups.size() > kMostGroups) {
        return Error(absl::StatusCode::kFailedPrecondition, "TOO_MANY_GROUPS",
                     absl::StrCat("more than ", kMostGroups,
                                  " groups; ask for a shorter time, a narrower scope or a smaller level"));
      }
      row.set_key(key);
      row.set_currency_code(rows.Text(2));
      row.mutable_spent()->set_nano_units(row.spent().nano_units() + rows.Int(3));
      row.mutable_spent()->set_tokens(row.spent().tokens() + rows.Int(4));
      row.mutable_spent()->set_calls(row.spent().calls() + rows.Int(5));
      row.set_reservations(row.reservations() + 1);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    more = count == kReportPage;
  }
  auto& all = *response.mutable_rows();
  for (auto& [key, row] : groups) *response.add_rows() = std::move(row);
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.spent().nano_units() != b.spent().nano_units() ? a.spent().nano_units() > b.spent().nano_units()
                                                            : a.key() < b.key();
  });
  from = std::min(from, all.size());
  if (all.size() - from > page_size) {
    response.set_next_page_token(EncodePageToken(absl::StrCat(from + page_size), bound_to));
    all.DeleteSubrange(from + page_size, all.size() - from - page_size);
  }
  all.DeleteSubrange(0, from);
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
