#include "services/state-manager/store/leases.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

#define TUTTI_OPEN "status IN ('PENDING', 'RUNNING')"
#define TUTTI_NO_LIVING_OWNER                                                  \
  "NOT EXISTS (SELECT 1 FROM instances WHERE instances.name = runs.owner AND " \
  "instances.incarnation = runs.owner_incarnation AND instances.expire_time > $1)"

// Enough to compare with any configured bound, not enough to stall a writer.
constexpr int64_t kMostCounted = 200000;
constexpr int64_t kMostClaimed = 1000;
// An answer stays below the message limit; the rest comes with the next claim.
constexpr size_t kClaimBytes = size_t{1} << 20;

absl::Status NotRegistered(const v1::InstanceRef& instance) {
  return Error(absl::StatusCode::kFailedPrecondition, "INSTANCE_UNKNOWN",
               absl::StrCat("instance ", instance.name(), " is not registered or has expired; register again"));
}

}  // namespace

absl::Status Leases::RegisterInstance(Transaction& tx, const v1::RegisterInstanceRequest& request,
                                      v1::RegisterInstanceResponse&) const {
  TUTTI_RETURN_IF_ERROR(CheckText("instance.name", request.instance().name(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckText("instance.incarnation", request.instance().incarnation(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckDuration("lease_duration", request.lease_duration(), 1, 60));
  const int64_t lease = ToMicros(request.lease_duration());
  tx.Announce({News::Kind::kClaimable, "", ""});
  return tx
      .Prepare(
          "INSERT INTO instances (name, incarnation, lease_duration, expire_time) VALUES ($1, $2, $3, $4) ON "
          "CONFLICT (name) DO UPDATE SET incarnation = $2, lease_duration = $3, expire_time = $4")
      .BindAll(request.instance().name(), request.instance().incarnation(), lease, tx.NowMicros() + lease)
      .Run();
}

absl::Status Leases::Rejoin(Transaction& tx, const v1::RegisterInstanceRequest& request,
                            v1::RegisterInstanceResponse&) const {
  const int64_t lease = ToMicros(request.lease_duration()), now = tx.NowMicros();
  Statement join = tx.Prepare(
      "INSERT INTO instances (name, incarnation, lease_duration, expire_time) VALUES ($1, $2, $3, $4) ON CONFLICT "
      "(name) "
      "DO UPDATE SET lease_duration = $3, expire_time = $4, incarnation = $2 WHERE instances.incarnation = $2 OR "
      "instances.expire_time <= $5");
  join.BindAll(request.instance().name(), request.instance().incarnation(), lease, now + lease, now);
  TUTTI_RETURN_IF_ERROR(join.Run());
  return join.Changes() > 0 ? absl::OkStatus() : NotRegistered(request.instance());
}

absl::StatusOr<int64_t> Leases::CountFree(Transaction& tx, int64_t most) {
  Statement free = tx.Prepare("SELECT count(*) FROM (SELECT 1 FROM runs WHERE " TUTTI_OPEN " AND " TUTTI_NO_LIVING_OWNER
                              " LIMIT $2) AS counted");
  free.BindAll(tx.NowMicros(), most);
  int64_t count = free.Step() ? free.Int(0) : 0;
  TUTTI_RETURN_IF_ERROR(free.status());
  return count;
}

absl::Status Leases::Heartbeat(Transaction& tx, const v1::HeartbeatRequest& request,
                               v1::HeartbeatResponse& response) const {
  const v1::InstanceRef& instance = request.instance();
  {
    Statement prolong = tx.Prepare(
        "UPDATE instances SET expire_time = $1 + lease_duration WHERE name = $2 AND incarnation = $3 AND expire_time > "
        "$1");
    TUTTI_RETURN_IF_ERROR(prolong.BindAll(tx.NowMicros(), instance.name(), instance.incarnation()).Run());
    if (prolong.Changes() == 0) return NotRegistered(instance);
  }
  TUTTI_ASSIGN_OR_RETURN(int64_t free, CountFree(tx, kMostCounted));
  response.set_claimable_runs(free);
  {
    Statement lease = tx.Prepare("SELECT lease_duration FROM instances WHERE name = $1");
    lease.Bind(instance.name());
    if (lease.Step()) {
      response.mutable_lease_duration()->set_seconds(lease.Int(0) / 1000000);
      response.mutable_lease_duration()->set_nanos(static_cast<int32_t>(lease.Int(0) % 1000000 * 1000));
    }
    TUTTI_RETURN_IF_ERROR(lease.status());
  }
  Statement cancels = tx.Prepare("SELECT run_id FROM runs WHERE " TUTTI_OPEN
                                 " AND cancel_requested = 1 AND owner = $1 AND owner_incarnation = $2 LIMIT 1000");
  cancels.BindAll(instance.name(), instance.incarnation());
  while (cancels.Step()) response.add_cancel_run_ids(cancels.Text(0));
  return cancels.status();
}

absl::Status Leases::ClaimRuns(Transaction& tx, const v1::ClaimRunsRequest& request,
                               v1::ClaimRunsResponse& response) const {
  const v1::InstanceRef& instance = request.instance();
  const int64_t now = tx.NowMicros();
  int64_t living = 0;
  {
    Statement live = tx.Prepare(
        "SELECT count(*), sum(CASE WHEN name = $2 AND incarnation = $3 THEN 1 ELSE 0 END)::bigint FROM instances WHERE "
        "expire_time > $1");
    live.BindAll(now, instance.name(), instance.incarnation());
    bool there = live.Step() && live.Int(1) > 0;
    TUTTI_RETURN_IF_ERROR(live.status());
    if (!there) return NotRegistered(instance);
    living = live.Int(0);
  }
  // Fair: with several engines alive, each takes its share of what is free now; what is left comes with the next claim.
  int64_t most = std::clamp<int64_t>(request.max_runs(), 1, kMostClaimed);
  if (living > 1) {
    TUTTI_ASSIGN_OR_RETURN(int64_t free, CountFree(tx, most * living));
    most = std::min(most, std::max<int64_t>(1, (free + living - 1) / living));
  }
  {
    Statement rows = tx.Prepare(absl::StrCat(
        "SELECT ", Runs::Columns(),
        " FROM runs WHERE " TUTTI_OPEN " AND (" TUTTI_NO_LIVING_OWNER
        " OR (owner = $3 AND owner_incarnation = $4 AND NOT (run_id = ANY($5)))) ORDER BY run_id LIMIT $2 FOR "
        "UPDATE SKIP LOCKED"));
    rows.BindAll(now, most, instance.name(), instance.incarnation());
    rows.BindList({request.held_run_ids().begin(), request.held_run_ids().end()});
    size_t bytes = 0;
    while (rows.Step()) {
      auto read = runs_.FromRow(tx, rows, /*with_payloads=*/true);
      TUTTI_RETURN_IF_ERROR(tx.failure());
      // One that cannot be read (its key is missing, its data damaged) must not keep the others from being worked on.
      if (!read.ok()) continue;
      v1::StoredRun run = *std::move(read);
      bytes += run.ByteSizeLong();
      if (response.runs_size() > 0 && bytes > kClaimBytes) break;
      run.set_lease_epoch(run.lease_epoch() + 1);
      *response.add_runs() = std::move(run);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  std::vector<std::string> taken;
  for (const auto& run : response.runs()) taken.push_back(run.run_id());
  if (taken.empty()) return absl::OkStatus();
  Statement take = tx.Prepare(
      "UPDATE runs SET owner = $1, owner_incarnation = $2, lease_epoch = lease_epoch + 1, last_writer_seq = 0 WHERE "
      "run_id = ANY($3)");
  take.BindAll(instance.name(), instance.incarnation());
  return take.BindList(taken).Run();
}

absl::Status Leases::ReleaseInstance(Transaction& tx, const v1::ReleaseInstanceRequest& request,
                                     v1::ReleaseInstanceResponse&) const {
  tx.Announce({News::Kind::kClaimable, "", ""});
  return tx.Prepare("DELETE FROM instances WHERE name = $1 AND incarnation = $2")
      .BindAll(request.instance().name(), request.instance().incarnation())
      .Run();
}

}  // namespace tutti::state_manager
