// The runs' rows and the usage table.
#include "runtime/json/json.h"
#include "runtime/status/macros.h"
#include "services/state-manager/adapters/sqlite_rows.h"
#include "services/state-manager/adapters/sqlite_store_access.h"

namespace tutti::state_manager {
namespace {

absl::Status NotFound(const std::string& run_id) {
  return Error(absl::StatusCode::kNotFound, "RUN_NOT_FOUND",
               absl::StrCat("run ", run_id, " does not exist; `tutti runs list` shows those that do"))
      .Metadata("run_id", run_id);
}

// OK with `found` false when there is none.
absl::Status LoadRun(SqliteDb& db, const std::string& run_id, bool* found, v1::StoredRun* out) {
  Statement row = db.Prepare("SELECT " TUTTI_RUN_COLUMNS " FROM runs WHERE run_id = ?");
  row.Bind(run_id);
  *found = row.Step();
  if (*found) *out = RunFromRow(row, /*with_payloads=*/true);
  return row.status();
}

bool IsLive(SqliteDb& db, const v1::InstanceRef& instance, int64_t now) {
  Statement row = db.Prepare("SELECT 1 FROM instances WHERE name = ? AND incarnation = ? AND expire_time > ?");
  row.Bind(instance.name()).Bind(instance.incarnation()).Bind(now);
  return row.Step();
}

}  // namespace

Task<absl::StatusOr<v1::CreateRunResponse>> SqliteStore::CreateRun(Executor& executor, v1::CreateRunRequest request) {
  auto apply = [&](SqliteDb& db, News& news, absl::StatusOr<v1::CreateRunResponse>& answer) -> absl::Status {
    answer = v1::CreateRunResponse();
    const v1::StoredRun& run = request.run();
    {
      // The run's own id is known when a channel has repeated the request after a lost answer.
      Statement known =
          db.Prepare("SELECT " TUTTI_RUN_COLUMNS " FROM runs WHERE run_id = ?1 UNION ALL SELECT " TUTTI_RUN_COLUMNS
                     " FROM runs WHERE request_id = ?2 AND ?2 <> '' LIMIT 1");
      known.Bind(run.run_id()).Bind(run.request_id());
      if (known.Step()) {
        *answer->mutable_run() = RunFromRow(known, /*with_payloads=*/true);
        answer->set_created(answer->run().run_id() == run.run_id());
        return absl::OkStatus();
      }
      TUTTI_RETURN_IF_ERROR(known.status());
    }
    bool owned = request.has_owner();
    if (owned && !IsLive(db, request.owner(), NowMicros())) {
      answer = Error(absl::StatusCode::kFailedPrecondition, "INSTANCE_UNKNOWN",
                     absl::StrCat("instance ", request.owner().name(), " is not registered or has expired"));
      return absl::OkStatus();
    }
    Json labels = Json::object();
    for (const auto& [key, value] : run.labels()) labels[key] = value;
    Statement insert = db.Prepare(
        "INSERT INTO runs (run_id, workflow, workflow_version, spec, input, create_time, labels, traceparent, "
        "request_id, "
        "owner, owner_incarnation, lease_epoch) VALUES (?,?,?,?,?,?,?,?,nullif(?,''),?,?,?)");
    insert.Bind(run.run_id()).Bind(run.workflow()).Bind(run.workflow_version()).BindBlob(run.spec().data());
    insert.BindBlob(run.input().data()).Bind(NowMicros()).Bind(DumpJson(labels)).Bind(run.traceparent());
    insert.Bind(run.request_id()).Bind(request.owner().name()).Bind(request.owner().incarnation()).Bind(owned ? 1 : 0);
    TUTTI_RETURN_IF_ERROR(insert.Run());
    bool found = false;
    TUTTI_RETURN_IF_ERROR(LoadRun(db, run.run_id(), &found, answer->mutable_run()));
    answer->set_created(true);
    if (!owned) news.claimable = true;
    return absl::OkStatus();
  };
  auto answer = co_await Write<v1::CreateRunResponse>(executor, apply);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::GetRunResponse>> SqliteStore::GetRun(Executor& executor, v1::GetRunRequest request) {
  auto query = [&](SqliteDb& db) -> absl::StatusOr<v1::GetRunResponse> {
    v1::GetRunResponse out;
    bool found = false;
    TUTTI_RETURN_IF_ERROR(LoadRun(db, request.run_id(), &found, out.mutable_run()));
    if (!found) return NotFound(request.run_id());
    return out;
  };
  auto answer = co_await Read<v1::GetRunResponse>(executor, query);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::ListRunsResponse>> SqliteStore::ListRuns(Executor& executor, v1::ListRunsRequest request) {
  auto query = [&](SqliteDb& db) -> absl::StatusOr<v1::ListRunsResponse> {
    // Every condition is a bound parameter that may be switched off, so that one statement serves all. Labels: a JSON
    // object whose every entry must be in the row's.
    Json labels = Json::object();
    for (const auto& [key, value] : request.labels()) labels[key] = value;
    int outcome = -1, started = -1;
    if (request.state() == "PENDING") outcome = 0, started = 0;
    if (request.state() == "RUNNING") outcome = 0, started = 1;
    if (request.state() == "SUCCEEDED") outcome = v1::OUTCOME_SUCCEEDED;
    if (request.state() == "FAILED") outcome = v1::OUTCOME_FAILED;
    if (request.state() == "CANCELLED") outcome = v1::OUTCOME_CANCELLED;
    Statement rows = db.Prepare(
        "SELECT " TUTTI_RUN_COLUMNS
        " FROM runs WHERE (?1 = '' OR run_id < ?1) AND (?2 < 0 OR outcome = ?2) AND (?3 < 0 OR started = ?3) "
        "AND (?4 = '' OR workflow = ?4) AND create_time >= ?5 AND (?6 = 0 OR create_time < ?6) "
        "AND NOT EXISTS (SELECT 1 FROM json_each(?7) AS want WHERE NOT EXISTS (SELECT 1 FROM json_each(runs.labels) AS "
        "has "
        "WHERE has.key = want.key AND has.value = want.value)) ORDER BY run_id DESC LIMIT ?8");
    rows.Bind(request.before_run_id()).Bind(outcome).Bind(started).Bind(request.workflow());
    rows.Bind(ToMicros(request.created_after())).Bind(ToMicros(request.created_before())).Bind(DumpJson(labels));
    rows.Bind(request.page_size() + 1);
    v1::ListRunsResponse out;
    while (rows.Step()) {
      if (out.runs_size() == request.page_size()) {
        out.set_has_more(true);
        break;
      }
      *out.add_runs() = RunFromRow(rows, /*with_payloads=*/false);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    return out;
  };
  auto answer = co_await Read<v1::ListRunsResponse>(executor, query);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::RequestCancelResponse>> SqliteStore::RequestCancel(Executor& executor,
                                                                           v1::RequestCancelRequest request) {
  auto apply = [&](SqliteDb& db, News& news, absl::StatusOr<v1::RequestCancelResponse>& answer) -> absl::Status {
    answer = v1::RequestCancelResponse();
    bool found = false;
    TUTTI_RETURN_IF_ERROR(LoadRun(db, request.run_id(), &found, answer->mutable_run()));
    if (!found) {
      answer = NotFound(request.run_id());
      return absl::OkStatus();
    }
    const v1::StoredRun& run = answer->run();
    if (run.outcome() != v1::OUTCOME_UNSPECIFIED || run.cancel_requested()) return absl::OkStatus();
    int64_t seq = 0;
    std::string owner;
    {
      Statement row = db.Prepare("SELECT last_seq, owner FROM runs WHERE run_id = ?");
      row.Bind(request.run_id());
      if (row.Step()) seq = row.Int(0) + 1, owner = row.Text(1);
      TUTTI_RETURN_IF_ERROR(row.status());
    }
    v1::JournalEntry entry;
    entry.set_seq(seq);
    entry.set_progress_percent(run.progress_percent());
    SetMicros(NowMicros(), entry.mutable_time());
    entry.mutable_cancel_requested()->set_reason(request.reason());
    Statement insert = db.Prepare("INSERT INTO journal VALUES (?,?,?,'cancel_requested','',?)");
    insert.Bind(request.run_id()).Bind(seq).Bind(ToMicros(entry.time())).BindBlob(entry.SerializeAsString());
    TUTTI_RETURN_IF_ERROR(insert.Run());
    Statement update = db.Prepare("UPDATE runs SET cancel_requested = 1, last_seq = ? WHERE run_id = ?");
    update.Bind(seq).Bind(request.run_id());
    TUTTI_RETURN_IF_ERROR(update.Run());
    answer->mutable_run()->set_cancel_requested(true);
    news.appended.push_back(request.run_id());
    news.cancels.emplace_back(owner, request.run_id());
    return absl::OkStatus();
  };
  auto answer = co_await Write<v1::RequestCancelResponse>(executor, apply);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::ListUsageResponse>> SqliteStore::ListUsage(Executor& executor, v1::ListUsageRequest request) {
  auto query = [&](SqliteDb& db) -> absl::StatusOr<v1::ListUsageResponse> {
#define TUTTI_USAGE_SUMS                                                                                            \
  ", sum(calls), sum(input_tokens), sum(output_tokens), sum(cost_nano_units), max(currency_code) FROM usage WHERE " \
  "(?1 = '' OR run_id = ?1) AND time >= ?2 GROUP BY 1 ORDER BY 5 DESC, 3 + 4 DESC, 1 LIMIT ?3"
    const char* sql = nullptr;
    if (request.group_by() == "run") sql = "SELECT run_id" TUTTI_USAGE_SUMS;
    if (request.group_by() == "step") sql = "SELECT step_path" TUTTI_USAGE_SUMS;
    if (request.group_by() == "agent") sql = "SELECT agent" TUTTI_USAGE_SUMS;
    if (request.group_by() == "model") sql = "SELECT provider || '/' || model" TUTTI_USAGE_SUMS;
#undef TUTTI_USAGE_SUMS
    if (sql == nullptr) {
      return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_GROUPING",
                   absl::StrCat("group_by must be run, step, agent or model, not \"", request.group_by(), "\""))
          .Violation("group_by", "must be run, step, agent or model");
    }
    Statement rows = db.Prepare(sql);
    rows.Bind(request.run_id()).Bind(ToMicros(request.start_time())).Bind(request.page_size());
    v1::ListUsageResponse out;
    while (rows.Step()) {
      auto* row = out.add_rows();
      row->set_key(rows.Text(0));
      row->mutable_totals()->set_calls(rows.Int(1));
      row->mutable_totals()->set_input_tokens(rows.Int(2));
      row->mutable_totals()->set_output_tokens(rows.Int(3));
      row->mutable_totals()->set_cost_nano_units(rows.Int(4));
      row->mutable_totals()->set_currency_code(rows.Text(5));
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    return out;
  };
  auto answer = co_await Read<v1::ListUsageResponse>(executor, query);
  co_return std::move(answer);
}

}  // namespace tutti::state_manager
