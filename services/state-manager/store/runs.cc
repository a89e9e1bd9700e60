#include "services/state-manager/store/runs.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/substitute.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/rows.h"
#include "services/state-manager/store/shards.h"

namespace tutti::state_manager {
namespace {

#define TUTTI_RUN_COLUMNS                                                                                              \
  "run_id, tenant, workflow, workflow_version, pattern, status, spec, input, output, error, create_time, start_time, " \
  "end_time, labels, progress_percent, traceparent, cancel_requested, request_id, lease_epoch, calls, input_tokens, "  \
  "output_tokens, cost_nano_units, waiting, wake_time, paused, priority, parent_run_id, forked_from, inbox, "          \
  "last_seq, "                                                                                                         \
  "strikes"

constexpr int64_t kMostEntriesRemoved = 5000;

std::string OwnerOf(absl::string_view run_id) { return absl::StrCat("runs/", run_id); }

v1::Outcome OutcomeOf(absl::string_view status) {
  if (status == "SUCCEEDED") return v1::OUTCOME_SUCCEEDED;
  if (status == "FAILED") return v1::OUTCOME_FAILED;
  if (status == "CANCELLED") return v1::OUTCOME_CANCELLED;
  return v1::OUTCOME_UNSPECIFIED;
}

bool IsLive(Transaction& tx, const v1::InstanceRef& instance) {
  Statement row = tx.Prepare("SELECT 1 FROM instances WHERE name = $1 AND incarnation = $2 AND expire_time > $3");
  row.BindAll(instance.name(), instance.incarnation(), tx.NowMicros());
  return row.Step();
}

}  // namespace

const char* Runs::Columns() { return TUTTI_RUN_COLUMNS; }

absl::StatusOr<v1::StoredRun> Runs::FromRow(Transaction& tx, const Statement& row, bool with_payloads) const {
  v1::StoredRun run;
  run.set_run_id(row.Text(0));
  const std::string owner = OwnerOf(run.run_id());
  run.set_tenant(row.Text(1));
  run.set_workflow(row.Text(2));
  run.set_workflow_version(row.Int(3));
  run.set_pattern(row.Text(4));
  run.set_outcome(OutcomeOf(row.Text(5)));
  run.set_started(row.Int(11) != 0);
  if (with_payloads) {
    TUTTI_ASSIGN_OR_RETURN(*run.mutable_spec()->mutable_data(), payloads_.Get(tx, owner, "spec", row.Bytes(6)));
    run.mutable_spec()->set_media_type("application/x-protobuf");
    TUTTI_ASSIGN_OR_RETURN(*run.mutable_input()->mutable_data(), payloads_.Get(tx, owner, "input", row.Bytes(7)));
    run.mutable_input()->set_media_type("application/json");
    if (!row.IsNull(8)) {
      TUTTI_ASSIGN_OR_RETURN(*run.mutable_output()->mutable_data(), payloads_.Get(tx, owner, "output", row.Bytes(8)));
      run.mutable_output()->set_media_type("application/json");
    }
  }
  if (!row.IsNull(9)) {
    TUTTI_ASSIGN_OR_RETURN(std::string error, payloads_.Get(tx, owner, "error", row.Bytes(9)));
    run.mutable_error()->ParseFromString(error);
  }
  SetMicros(row.Int(10), run.mutable_create_time());
  if (row.Int(11) != 0) SetMicros(row.Int(11), run.mutable_start_time());
  if (row.Int(12) != 0) SetMicros(row.Int(12), run.mutable_end_time());
  FromJsonText(row.Text(13), run.mutable_labels());
  run.set_progress_percent(static_cast<int>(row.Int(14)));
  run.set_traceparent(row.Text(15));
  run.set_cancel_requested(row.Int(16) != 0);
  if (!row.IsNull(17)) run.set_request_id(row.Text(17));
  run.set_lease_epoch(row.Int(18));
  auto* usage = run.mutable_usage();
  usage->set_calls(row.Int(19));
  usage->set_input_tokens(row.Int(20));
  usage->set_output_tokens(row.Int(21));
  usage->set_cost_nano_units(row.Int(22));
  usage->set_currency_code("USD");
  run.set_waiting(row.Int(23) != 0);
  if (row.Int(24) != 0) SetMicros(row.Int(24), run.mutable_wake_time());
  run.set_paused(row.Int(25) != 0);
  run.set_priority(static_cast<int>(row.Int(26)));
  run.set_parent_run_id(row.Text(27));
  run.set_forked_from(row.Text(28));
  run.set_inbox(row.Int(29));
  run.set_last_seq(row.Int(30));
  run.set_strikes(static_cast<int32_t>(row.Int(31)));
  return run;
}

absl::StatusOr<v1::StoredRun> Runs::Load(Transaction& tx, const std::string& run_id) const {
  Statement row = tx.Prepare("SELECT " TUTTI_RUN_COLUMNS " FROM runs WHERE run_id = $1");
  row.Bind(run_id);
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    return RunNotFound(run_id);
  }
  return FromRow(tx, row, /*with_payloads=*/true);
}

absl::Status Runs::WhyNotCreated(Transaction& tx, const v1::CreateRunRequest& request,
                                 v1::CreateRunResponse& response) const {
  const v1::StoredRun& run = request.run();
  {
    // It was created before. The run's own id is known when a channel has repeated the request after a lost answer.
    Statement row =
        tx.Prepare("SELECT " TUTTI_RUN_COLUMNS
                   " FROM runs WHERE run_id = $1 OR (tenant = $2 AND request_id = $3 AND $3 <> '') LIMIT 1");
    row.BindAll(run.run_id(), run.tenant(), run.request_id());
    if (row.Step()) {
      TUTTI_ASSIGN_OR_RETURN(*response.mutable_run(), FromRow(tx, row, /*with_payloads=*/true));
      // Also the caller's own, of an earlier try whose answer was lost: it may have begun since, or ended. Who is to
      // work on it claims it.
      response.set_created(false);
      return response.run().run_id() == run.run_id() ? absl::OkStatus() : Payloads::Forget(tx, OwnerOf(run.run_id()));
    }
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  // It is not there: what was put for it belongs to nobody.
  TUTTI_RETURN_IF_ERROR(Payloads::Forget(tx, OwnerOf(run.run_id())));
  if (request.has_owner() && !IsLive(tx, request.owner())) {
    return Error(absl::StatusCode::kFailedPrecondition, "INSTANCE_UNKNOWN",
                 absl::StrCat("instance ", request.owner().name(), " is not registered or has expired"));
  }
  Statement latest = tx.Prepare("SELECT max(version) FROM workflows WHERE name = $1");
  latest.Bind(run.workflow());
  bool changed = latest.Step() && latest.Int(0) > run.workflow_version();
  TUTTI_RETURN_IF_ERROR(latest.status());
  if (request.check_latest() && changed) {
    return Error(absl::StatusCode::kFailedPrecondition, "WORKFLOW_CHANGED",
                 absl::StrCat("workflow ", run.workflow(), " has a newer version than ", run.workflow_version()));
  }
  // What stood in the way has gone meanwhile.
  return Error(absl::StatusCode::kUnavailable, "RUN_NOT_CREATED",
               absl::StrCat("run ", run.run_id(), " could not be created at this moment; try again"))
      .RetryAfter(absl::Milliseconds(100));
}

absl::StatusOr<bool> Runs::InsertIf(Transaction& tx, const v1::CreateRunRequest& request, int64_t create_time,
                                    bool unconditionally) const {
  const v1::StoredRun& run = request.run();
  const std::string owner = OwnerOf(run.run_id());
  TUTTI_ASSIGN_OR_RETURN(std::string spec, payloads_.Put(tx, owner, "spec", run.spec().data()));
  TUTTI_ASSIGN_OR_RETURN(std::string input, payloads_.Put(tx, owner, "input", run.input().data()));
  // With its conditions, as one statement: they hold nearly always. (An owner that goes at this moment is as one that
  // goes in the next: the run is claimed by another.)
  Statement insert = tx.Prepare(
      "INSERT INTO runs (run_id, tenant, workflow, workflow_version, pattern, status, spec, input, create_time, "
      "labels, traceparent, request_id, owner, owner_incarnation, lease_epoch, priority, parent_run_id, forked_from) "
      "SELECT $1::text, $2::text, $3::text, $4::bigint, $5::text, 'PENDING', $6::bytea, $7::bytea, $8::bigint, "
      "$9::jsonb, $10::text, $11::text, $12::text, $13::text, $14::bigint, $15::bigint, $16::text, $17::text WHERE "
      "$19::bigint = 1 OR (($14::bigint = 0 OR EXISTS (SELECT 1 FROM instances WHERE name = $12 AND incarnation = $13 "
      "AND expire_time > $8)) AND ($18::bigint = 0 OR NOT EXISTS (SELECT 1 FROM workflows WHERE name = $3 AND version "
      "> $4))) ON CONFLICT DO NOTHING");
  insert.BindAll(run.run_id(), run.tenant(), run.workflow(), run.workflow_version(), run.pattern(), SqlArg::Bytes(spec),
                 SqlArg::Bytes(input), create_time, ToJsonText(run.labels()), run.traceparent(),
                 SqlArg::TextOrNull(run.request_id()), request.owner().name(), request.owner().incarnation(),
                 request.has_owner() ? 1 : 0, run.priority(), run.parent_run_id(), run.forked_from(),
                 request.check_latest(), unconditionally);
  TUTTI_RETURN_IF_ERROR(insert.Run());
  return insert.Changes() > 0;
}

void Runs::AnswerCreated(const v1::CreateRunRequest& request, int64_t create_time, v1::CreateRunResponse& response) {
  *response.mutable_run() = request.run();
  SetMicros(create_time, response.mutable_run()->mutable_create_time());
  response.mutable_run()->set_lease_epoch(request.has_owner() ? 1 : 0);
  response.mutable_run()->mutable_usage()->set_currency_code("USD");
  response.set_created(true);
}

absl::Status Runs::CreateRun(Transaction& tx, const v1::CreateRunRequest& request,
                             v1::CreateRunResponse& response) const {
  const int64_t now = tx.NowMicros();
  TUTTI_ASSIGN_OR_RETURN(bool inserted, InsertIf(tx, request, now, /*unconditionally=*/false));
  if (!inserted) return WhyNotCreated(tx, request, response);
  AnswerCreated(request, now, response);
  if (!request.has_owner()) tx.Announce({News::Kind::kClaimable, "", ""});
  return absl::OkStatus();
}

absl::Status Runs::CreateAll(Transaction& tx, const std::vector<ToCreate>& all) const {
  if (tx.sqlite()) {
    for (const ToCreate& one : all) {
      *one.answer = CreateRun(tx, *one.request, *one.response);
      TUTTI_RETURN_IF_ERROR(tx.failure());
    }
    return absl::OkStatus();
  }
  TUTTI_ASSIGN_OR_RETURN(NewRows rows, RowsOf(tx, all));
  absl::flat_hash_map<std::string, int64_t> created;
  {
    Statement insert = tx.Prepare(NewRows::Sql());
    rows.BindTo(insert);
    while (insert.Step()) created[insert.Text(0)] = insert.Int(1);
    TUTTI_RETURN_IF_ERROR(insert.status());
  }
  return AnswerAll(tx, all, std::move(created));
}

// As InsertIf, of all at once: with services and the database on few cores a statement is two switches between them.
std::string Runs::NewRows::Parts(int first) {
  return absl::Substitute(
      "clock AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $$$0::bigint AS now), "
      "created AS (INSERT INTO runs (run_id, tenant, workflow, workflow_version, pattern, status, spec, input, "
      "create_time, labels, traceparent, request_id, owner, owner_incarnation, lease_epoch, priority, parent_run_id, "
      "forked_from) SELECT r.run_id, r.tenant, r.workflow, r.version, r.pattern, 'PENDING', r.spec, r.input, now, "
      "r.labels::jsonb, r.traceparent, NULLIF(r.request_id, ''), r.owner, r.incarnation, r.epoch, r.priority, "
      "r.parent, r.origin FROM clock, (SELECT $1) AS r WHERE (r.epoch = 0 OR EXISTS (SELECT 1 FROM instances AS i "
      "WHERE "
      "i.name = r.owner AND i.incarnation = r.incarnation AND i.expire_time > now)) AND (r.check_latest = 0 OR NOT "
      "EXISTS (SELECT 1 FROM workflows AS w WHERE w.name = r.workflow AND w.version > r.version)) ON CONFLICT DO "
      "NOTHING RETURNING run_id, create_time)",
      first, [first] {
        constexpr std::pair<const char*, const char*> kColumns[kParameters - 1] = {
            {"text", "run_id"},        {"text", "tenant"},     {"text", "workflow"}, {"bigint", "version"},
            {"text", "pattern"},       {"bytea", "spec"},      {"bytea", "input"},   {"text", "labels"},
            {"text", "traceparent"},   {"text", "request_id"}, {"text", "owner"},    {"text", "incarnation"},
            {"bigint", "epoch"},       {"bigint", "priority"}, {"text", "parent"},   {"text", "origin"},
            {"bigint", "check_latest"}};
        std::string out;
        int parameter = first;
        for (const auto& [type, name] : kColumns) {
          absl::StrAppend(&out, out.empty() ? "" : ", ", "unnest($", ++parameter, "::", type, "[]) AS ", name);
        }
        return out;
      }());
}

const std::string& Runs::NewRows::Sql() {
  static const auto* sql = new std::string(absl::StrCat("WITH ", Parts(1), " SELECT run_id, create_time FROM created"));
  return *sql;
}

void Runs::NewRows::BindTo(Statement& statement) const {
  statement.Bind(clock_shift);
  columns.BindTo(statement);
}

absl::StatusOr<Runs::NewRows> Runs::RowsOf(Transaction& tx, const std::vector<ToCreate>& all) const {
  NewRows rows{tx.ClockShiftMicros(), {}, ColumnRows("tttitbbtttttiitti")};
  absl::flat_hash_set<absl::string_view> seen;
  for (const ToCreate& one : all) {
    const v1::CreateRunRequest& request = *one.request;
    const v1::StoredRun& run = request.run();
    // Only the first of one id: what the statement gives does not tell which of two it stored.
    if (!seen.insert(run.run_id()).second) continue;
    const std::string owner = OwnerOf(run.run_id());
    std::string& spec = rows.cells.emplace_back();
    TUTTI_ASSIGN_OR_RETURN(spec, payloads_.Put(tx, owner, "spec", run.spec().data()));
    std::string& input = rows.cells.emplace_back();
    TUTTI_ASSIGN_OR_RETURN(input, payloads_.Put(tx, owner, "input", run.input().data()));
    const std::string& labels = rows.cells.emplace_back(ToJsonText(run.labels()));
    rows.columns.Add(run.run_id(), run.tenant(), run.workflow(), run.workflow_version(), run.pattern(), spec, input,
                     labels, run.traceparent(), run.request_id(), request.owner().name(), request.owner().incarnation(),
                     int64_t{request.has_owner()}, int64_t{run.priority()}, run.parent_run_id(), run.forked_from(),
                     int64_t{request.check_latest()});
  }
  return rows;
}

absl::Status Runs::AnswerAll(Transaction& tx, const std::vector<ToCreate>& all,
                             absl::flat_hash_map<std::string, int64_t> created) const {
  for (const ToCreate& one : all) {
    // The first of its id. Others find its run there, or are to come again.
    auto it = created.find(one.request->run().run_id());
    if (it == created.end()) {
      *one.answer = WhyNotCreated(tx, *one.request, *one.response);
      TUTTI_RETURN_IF_ERROR(tx.failure());
      continue;
    }
    AnswerCreated(*one.request, it->second, *one.response);
    created.erase(it);
    *one.answer = absl::OkStatus();
    if (!one.request->has_owner()) tx.Announce({News::Kind::kClaimable, "", ""});
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Runs::MayCreate(Transaction& tx, const v1::CreateRunRequest& request) const {
  const v1::StoredRun& run = request.run();
  {
    Statement row = tx.Prepare("SELECT 1 FROM runs WHERE run_id = $1");
    row.Bind(run.run_id());
    if (row.Step()) return false;
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  if (!run.request_id().empty()) {
    Statement row = tx.Prepare("SELECT 1 FROM runs WHERE tenant = $1 AND request_id = $2");
    row.BindAll(run.tenant(), run.request_id());
    if (row.Step()) return false;
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  if (request.check_latest()) {
    Statement row = tx.Prepare("SELECT 1 FROM workflows WHERE name = $1 AND version > $2");
    row.BindAll(run.workflow(), run.workflow_version());
    if (row.Step()) return false;
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  return !request.has_owner() || IsLive(tx, request.owner());
}

absl::Status Runs::Insert(Transaction& tx, const v1::CreateRunRequest& request, int64_t create_time) const {
  TUTTI_ASSIGN_OR_RETURN(bool inserted, InsertIf(tx, request, create_time, /*unconditionally=*/true));
  if (inserted) return absl::OkStatus();
  return Error(absl::StatusCode::kInternal, "STORE_BUG",
               absl::StrCat("run ", request.run().run_id(), " was acknowledged as new and is there already"));
}

absl::Status Runs::GetRun(Transaction& tx, const v1::GetRunRequest& request, v1::GetRunResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_run(), Load(tx, request.run_id()));
  return absl::OkStatus();
}

absl::StatusOr<bool> Runs::HasEnded(Transaction& tx, const std::string& run_id) const {
  Statement row = tx.Prepare("SELECT end_time FROM runs WHERE run_id = $1");
  row.Bind(run_id);
  if (!row.Step()) return row.status().ok() ? RunNotFound(run_id) : row.status();
  return row.Int(0) != 0;
}

absl::Status Runs::ListRuns(Transaction& tx, const v1::ListRunsRequest& request, v1::ListRunsResponse& response) const {
  const int page = std::clamp(request.page_size(), 1, 1000);
  // One statement for each set of conditions that are given, so that each can use its index.
  std::string sql = "SELECT " TUTTI_RUN_COLUMNS " FROM runs WHERE 1 = 1";
  std::vector<SqlArg> args;
  auto where = [&](absl::string_view condition, SqlArg arg) {
    args.push_back(arg);
    absl::StrAppend(&sql, " AND ", condition, "$", args.size());
  };
  if (!request.before_run_id().empty()) where("run_id < ", request.before_run_id());
  if (request.state() == "WAITING") {
    sql += " AND end_time = 0 AND (waiting = 1 OR paused = 1) AND waiting = 1 AND paused = 0";
  } else if (request.state() == "PAUSED") {
    sql += " AND end_time = 0 AND (waiting = 1 OR paused = 1) AND paused = 1";
  } else if (!request.state().empty()) {
    where("status = ", request.state());
    const bool open = request.state() == "PENDING" || request.state() == "RUNNING";
    if (open) sql += " AND end_time = 0 AND waiting = 0 AND paused = 0";  // those are WAITING or PAUSED
  }
  if (!request.workflow().empty()) where("workflow = ", request.workflow());
  if (!request.tenant().empty()) where("tenant = ", request.tenant());
  if (request.has_created_after()) where("create_time >= ", ToMicros(request.created_after()));
  if (request.has_created_before()) where("create_time < ", ToMicros(request.created_before()));
  std::string labels = ToJsonText(request.labels());
  if (!request.labels().empty()) {
    args.push_back(labels);
    if (tx.sqlite()) {
      absl::StrAppend(
          &sql, " AND NOT EXISTS (SELECT 1 FROM json_each($", args.size(),
          ") AS want WHERE NOT EXISTS (SELECT 1 FROM json_each(runs.labels) AS has WHERE has.key = want.key "
          "AND has.value = want.value))");
    } else {
      absl::StrAppend(&sql, " AND labels @> $", args.size());
    }
  }
  args.push_back(static_cast<int64_t>(page) + 1);
  absl::StrAppend(&sql, " ORDER BY run_id DESC LIMIT $", args.size());
  Statement rows = tx.Prepare(sql);
  for (const SqlArg& arg : args) rows.Bind(arg);
  while (rows.Step()) {
    if (response.runs_size() == page) {
      response.set_has_more(true);
      break;
    }
    TUTTI_ASSIGN_OR_RETURN(*response.add_runs(), FromRow(tx, rows, /*with_payloads=*/false));
  }
  return rows.status();
}

absl::Status Runs::ListUsage(Transaction& tx, const v1::ListUsageRequest& request,
                             v1::ListUsageResponse& response) const {
  const char* key = nullptr;
  if (request.group_by() == "run") key = "run_id";
  if (request.group_by() == "step") key = "step_path";
  if (request.group_by() == "agent") key = "agent";
  if (request.group_by() == "model") key = "provider || '/' || model";
  if (key == nullptr) {
    return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_GROUPING",
                 absl::StrCat("group_by must be run, step, agent or model, not \"", request.group_by(), "\""))
        .Violation("group_by", "must be run, step, agent or model");
  }
  // Planned once for both: with a run its index serves, without one the time's.
  Statement rows = tx.Prepare(absl::StrCat(
      "SELECT ", key,
      ", sum(calls)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint, "
      "sum(cost_nano_units)::bigint, max(currency_code) FROM usage WHERE time >= $1 AND ",
      request.run_id().empty() ? "$2 = ''" : "run_id = $2", " GROUP BY 1 ORDER BY 5 DESC, 3 DESC, 1 LIMIT $3"));
  rows.BindAll(ToMicros(request.start_time()), request.run_id(), std::clamp(request.page_size(), 1, 1000));
  while (rows.Step()) {
    auto* row = response.add_rows();
    row->set_key(rows.Text(0));
    row->mutable_totals()->set_calls(rows.Int(1));
    row->mutable_totals()->set_input_tokens(rows.Int(2));
    row->mutable_totals()->set_output_tokens(rows.Int(3));
    row->mutable_totals()->set_cost_nano_units(rows.Int(4));
    row->mutable_totals()->set_currency_code(rows.Text(5));
  }
  return rows.status();
}

absl::StatusOr<std::vector<std::string>> Runs::WhichOpen(Transaction& tx,
                                                         const std::vector<std::string>& run_ids) const {
  std::vector<std::string> out;
  Statement rows = tx.Prepare("SELECT run_id FROM runs WHERE end_time = 0 AND run_id = ANY($1)");
  rows.BindList(run_ids);
  while (rows.Step()) out.push_back(rows.Text(0));
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

std::string Runs::RequestKey(const v1::StoredRun& run) { return absl::StrCat(run.tenant(), "/", run.request_id()); }

absl::StatusOr<std::string> Runs::ClaimRequest(Transaction& tx, const v1::StoredRun& run) const {
  {
    Statement claim = tx.Prepare(
        "INSERT INTO run_requests (tenant, request_id, run_id, use_time) VALUES ($1, $2, $3, $4) ON CONFLICT DO "
        "NOTHING");
    TUTTI_RETURN_IF_ERROR(claim.BindAll(run.tenant(), run.request_id(), run.run_id(), tx.NowMicros()).Run());
    if (claim.Changes() > 0) return run.run_id();
  }
  {
    // A run that has been removed is created anew under its claim: the message of its removal must not take that away.
    Statement use = tx.Prepare("UPDATE run_requests SET use_time = $3 WHERE tenant = $1 AND request_id = $2");
    TUTTI_RETURN_IF_ERROR(use.BindAll(run.tenant(), run.request_id(), tx.NowMicros()).Run());
  }
  Statement owner = tx.Prepare("SELECT run_id FROM run_requests WHERE tenant = $1 AND request_id = $2");
  owner.BindAll(run.tenant(), run.request_id());
  if (owner.Step()) return owner.Text(0);
  TUTTI_RETURN_IF_ERROR(owner.status());
  return absl::AbortedError("the request's claim has just gone");  // tried again
}

absl::StatusOr<int64_t> Runs::RemoveEnded(Transaction& tx, absl::string_view status, int64_t before, int64_t limit,
                                          size_t shards) const {
  // Bounded by rows, not by runs: a batch takes no longer because a run was long.
  std::vector<std::string> ids, owners;
  std::string long_run;
  int64_t entries = 0;
  {
    Statement rows = tx.Prepare(
        "SELECT run_id, last_seq FROM runs WHERE end_time > 0 AND end_time < $1 AND status = $2 ORDER BY end_time "
        "LIMIT $3 "
        "FOR UPDATE SKIP LOCKED");
    rows.BindAll(before, status, limit);
    while (rows.Step()) {
      entries += rows.Int(1);
      if (entries > kMostEntriesRemoved) {
        if (ids.empty()) long_run = rows.Text(0);
        break;
      }
      ids.push_back(rows.Text(0));
      owners.push_back(OwnerOf(ids.back()));
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  if (!long_run.empty()) {
    // A slice of its journal; the run itself goes when little is left.
    for (const char* sql :
         {"DELETE FROM usage WHERE run_id = $1 AND seq > (SELECT last_seq - $2 FROM runs WHERE run_id = $1)",
          "DELETE FROM journal WHERE run_id = $1 AND seq > (SELECT last_seq - $2 FROM runs WHERE run_id = $1)",
          "UPDATE runs SET last_seq = last_seq - $2 WHERE run_id = $1"}) {
      TUTTI_RETURN_IF_ERROR(tx.Prepare(sql).BindAll(long_run, kMostEntriesRemoved / 2).Run());
    }
    return limit;
  }
  if (ids.empty()) return 0;
  if (shards > 1) {
    std::vector<v1::StoredRun> claimed;
    {
      Statement rows =
          tx.Prepare("SELECT tenant, request_id FROM runs WHERE run_id = ANY($1) AND request_id IS NOT NULL");
      rows.BindList(ids);
      while (rows.Step()) {
        claimed.emplace_back().set_tenant(rows.Text(0));
        claimed.back().set_request_id(rows.Text(1));
        SetMicros(tx.NowMicros(), claimed.back().mutable_end_time());
      }
      TUTTI_RETURN_IF_ERROR(rows.status());
    }
    for (const auto& run : claimed) {
      TUTTI_RETURN_IF_ERROR(
          outbox_.Post(tx, ShardOf(RequestKey(run), shards), Outbox::Kind::kForgetRequest, run.SerializeAsString()));
    }
  }
  for (const char* sql : {"DELETE FROM journal WHERE run_id = ANY($1)", "DELETE FROM usage WHERE run_id = ANY($1)",
                          "DELETE FROM snapshots WHERE run_id = ANY($1)", "DELETE FROM runs WHERE run_id = ANY($1)"}) {
    Statement remove = tx.Prepare(sql);
    TUTTI_RETURN_IF_ERROR(remove.BindList(ids).Run());
  }
  Statement references = tx.Prepare("DELETE FROM payload_refs WHERE owner = ANY($1)");
  TUTTI_RETURN_IF_ERROR(references.BindList(owners).Run());
  return entries > kMostEntriesRemoved ? limit : static_cast<int64_t>(ids.size());
}

}  // namespace tutti::state_manager
