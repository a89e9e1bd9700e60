// Instances and leases. A run is free when it has not ended and its owner is no living incarnation.
#include "runtime/json/json.h"
#include "runtime/status/macros.h"
#include "services/state-manager/adapters/sqlite_rows.h"
#include "services/state-manager/adapters/sqlite_store_access.h"

namespace tutti::state_manager {
namespace {

#define TUTTI_NO_LIVING_OWNER                                                  \
  "NOT EXISTS (SELECT 1 FROM instances WHERE instances.name = runs.owner AND " \
  "instances.incarnation = runs.owner_incarnation AND instances.expire_time > ?1)"

// Enough to compare with any configured bound, not enough to stall the writer.
#define TUTTI_MOST_COUNTED "200000"

absl::Status NotRegistered(const v1::InstanceRef& instance) {
  return Error(absl::StatusCode::kFailedPrecondition, "INSTANCE_UNKNOWN",
               absl::StrCat("instance ", instance.name(), " is not registered or has expired; register again"));
}

}  // namespace

Task<absl::StatusOr<v1::RegisterInstanceResponse>> SqliteStore::RegisterInstance(Executor& executor,
                                                                                 v1::RegisterInstanceRequest request) {
  auto apply = [&](SqliteDb& db, News& news, absl::StatusOr<v1::RegisterInstanceResponse>&) -> absl::Status {
    int64_t lease = request.lease_duration().seconds() * 1000000 + request.lease_duration().nanos() / 1000;
    Statement put = db.Prepare("INSERT OR REPLACE INTO instances VALUES (?,?,?,?)");
    put.Bind(request.instance().name()).Bind(request.instance().incarnation()).Bind(lease).Bind(NowMicros() + lease);
    news.claimable = true;
    return put.Run();
  };
  auto answer = co_await Write<v1::RegisterInstanceResponse>(executor, apply);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::HeartbeatResponse>> SqliteStore::Heartbeat(Executor& executor, v1::HeartbeatRequest request) {
  auto apply = [&](SqliteDb& db, News&, absl::StatusOr<v1::HeartbeatResponse>& answer) -> absl::Status {
    answer = v1::HeartbeatResponse();
    int64_t now = NowMicros();
    Statement prolong = db.Prepare(
        "UPDATE instances SET expire_time = ? + lease_duration WHERE name = ? AND incarnation = ? AND expire_time > ?");
    prolong.Bind(now).Bind(request.instance().name()).Bind(request.instance().incarnation()).Bind(now);
    TUTTI_RETURN_IF_ERROR(prolong.Run());
    if (db.changes() == 0) {
      answer = NotRegistered(request.instance());
      return absl::OkStatus();
    }
    Statement free = db.Prepare("SELECT count(*) FROM (SELECT 1 FROM runs WHERE outcome = 0 AND " TUTTI_NO_LIVING_OWNER
                                " LIMIT " TUTTI_MOST_COUNTED ")");
    free.Bind(now);
    if (free.Step()) answer->set_claimable_runs(free.Int(0));
    TUTTI_RETURN_IF_ERROR(free.status());
    Statement cancels = db.Prepare(
        "SELECT run_id FROM runs WHERE outcome = 0 AND cancel_requested = 1 AND owner = ? AND owner_incarnation = ? "
        "LIMIT 1000");
    cancels.Bind(request.instance().name()).Bind(request.instance().incarnation());
    while (cancels.Step()) answer->add_cancel_run_ids(cancels.Text(0));
    return cancels.status();
  };
  auto answer = co_await Write<v1::HeartbeatResponse>(executor, apply);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::ClaimRunsResponse>> SqliteStore::ClaimRuns(Executor& executor, v1::ClaimRunsRequest request) {
  auto apply = [&](SqliteDb& db, News&, absl::StatusOr<v1::ClaimRunsResponse>& answer) -> absl::Status {
    answer = v1::ClaimRunsResponse();
    int64_t now = NowMicros();
    {
      Statement live = db.Prepare("SELECT 1 FROM instances WHERE name = ? AND incarnation = ? AND expire_time > ?");
      live.Bind(request.instance().name()).Bind(request.instance().incarnation()).Bind(now);
      if (!live.Step()) {
        TUTTI_RETURN_IF_ERROR(live.status());
        answer = NotRegistered(request.instance());
        return absl::OkStatus();
      }
    }
    {
      Json held = Json::array();
      for (const auto& id : request.held_run_ids()) held.push_back(id);
      Statement rows =
          db.Prepare("SELECT " TUTTI_RUN_COLUMNS " FROM runs WHERE outcome = 0 AND (" TUTTI_NO_LIVING_OWNER
                     " OR (owner = ?3 AND owner_incarnation = ?4 AND run_id NOT IN (SELECT value FROM json_each(?5)))) "
                     "ORDER BY run_id LIMIT ?2");
      rows.Bind(now).Bind(request.max_runs()).Bind(request.instance().name()).Bind(request.instance().incarnation());
      rows.Bind(DumpJson(held));
      size_t bytes = 0;
      while (rows.Step()) {
        v1::StoredRun run = RunFromRow(rows, /*with_payloads=*/true);
        bytes += run.ByteSizeLong();
        // The rest with the next claim: an answer stays below the message limit.
        if (answer->runs_size() > 0 && bytes > (1 << 20)) break;
        run.set_lease_epoch(run.lease_epoch() + 1);
        *answer->add_runs() = std::move(run);
      }
      TUTTI_RETURN_IF_ERROR(rows.status());
    }
    for (const auto& run : answer->runs()) {
      Statement take = db.Prepare(
          "UPDATE runs SET owner = ?, owner_incarnation = ?, lease_epoch = ?, last_writer_seq = 0 WHERE run_id = ?");
      take.Bind(request.instance().name())
          .Bind(request.instance().incarnation())
          .Bind(run.lease_epoch())
          .Bind(run.run_id());
      TUTTI_RETURN_IF_ERROR(take.Run());
    }
    return absl::OkStatus();
  };
  auto answer = co_await Write<v1::ClaimRunsResponse>(executor, apply);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::ReleaseInstanceResponse>> SqliteStore::ReleaseInstance(Executor& executor,
                                                                               v1::ReleaseInstanceRequest request) {
  auto apply = [&](SqliteDb& db, News& news, absl::StatusOr<v1::ReleaseInstanceResponse>&) -> absl::Status {
    Statement remove = db.Prepare("DELETE FROM instances WHERE name = ? AND incarnation = ?");
    remove.Bind(request.instance().name()).Bind(request.instance().incarnation());
    news.claimable = true;
    return remove.Run();
  };
  auto answer = co_await Write<v1::ReleaseInstanceResponse>(executor, apply);
  co_return std::move(answer);
}

}  // namespace tutti::state_manager
