#include "services/state-manager/store/leases.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

#define TUTTI_OPEN "end_time = 0"
#define TUTTI_TO_WORK_ON TUTTI_OPEN " AND waiting = 0"
#define TUTTI_NO_LIVING_OWNER                                                  \
  "NOT EXISTS (SELECT 1 FROM instances WHERE instances.name = runs.owner AND " \
  "instances.incarnation = runs.owner_incarnation AND instances.expire_time > $1)"

// Enough to compare with any configured bound, not enough to stall a writer.
constexpr int64_t kMostClaimed = 1000;
// A run created for an engine after that engine had counted up what it holds is not lost: a claim and a creation may
// overtake each other for as long.
constexpr absl::Duration kOnItsWay = absl::Seconds(5);
constexpr size_t kMostPassedOver = 10000;
// An answer stays below the message limit; the rest comes with the next claim.
constexpr size_t kClaimBytes = size_t{1} << 20;

absl::Status NotRegistered(const v1::InstanceRef& instance) {
  return Error(absl::StatusCode::kFailedPrecondition, "INSTANCE_UNKNOWN",
               absl::StrCat("instance ", instance.name(), " is not registered or has expired; register again"));
}

}  // namespace

absl::Status Leases::RegisterInstance(Transaction& tx, const v1::RegisterInstanceRequest& request,
                                      v1::RegisterInstanceResponse& response) const {
  TUTTI_RETURN_IF_ERROR(CheckText("instance.name", request.instance().name(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckText("instance.incarnation", request.instance().incarnation(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckDuration("lease_duration", request.lease_duration(), 1, 60));
  const int64_t lease = ToMicros(request.lease_duration());
  tx.Announce({News::Kind::kClaimable, "", ""});
  Statement join = tx.Prepare(
      "INSERT INTO instances (name, incarnation, lease_duration, expire_time) VALUES ($1, $2, $3, $4) ON "
      "CONFLICT (name) DO UPDATE SET incarnation = $2, lease_duration = $3, expire_time = $4");
  join.BindAll(request.instance().name(), request.instance().incarnation(), lease, tx.NowMicros() + lease);
  TUTTI_RETURN_IF_ERROR(join.Run());
  return SetRank(tx, request.instance().name(), *response.mutable_rank());
}

absl::Status Leases::SetRank(Transaction& tx, const std::string& name, v1::EngineRank& rank) {
  Statement living =
      tx.Prepare("SELECT count(*), count(CASE WHEN name < $1 THEN 1 END) FROM instances WHERE expire_time > $2");
  living.BindAll(name, tx.NowMicros());
  if (living.Step()) {
    rank.set_engines(static_cast<int32_t>(living.Int(0)));
    rank.set_rank(static_cast<int32_t>(living.Int(1)));
  }
  return living.status();
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

absl::StatusOr<int64_t> Leases::RemoveExpired(Transaction& tx, int64_t limit) const {
  constexpr int64_t kDay = int64_t{24} * 3600 * 1000000;
  Statement remove = tx.Prepare(
      "DELETE FROM instances WHERE name IN (SELECT name FROM instances WHERE expire_time < $1 LIMIT $2) AND "
      "expire_time < $1");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(tx.NowMicros() - kDay, limit).Run());
  return remove.Changes();
}

absl::StatusOr<std::map<std::string, int64_t>> Leases::CountFree(Transaction& tx, int64_t most) {
  Statement free = tx.Prepare("SELECT tenant, count(*) FROM (SELECT tenant FROM runs WHERE " TUTTI_TO_WORK_ON
                              " AND " TUTTI_NO_LIVING_OWNER " LIMIT $2) AS counted GROUP BY tenant");
  free.BindAll(tx.NowMicros(), most);
  std::map<std::string, int64_t> counts;
  while (free.Step()) counts[free.Text(0)] = free.Int(1);
  TUTTI_RETURN_IF_ERROR(free.status());
  return counts;
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
  TUTTI_RETURN_IF_ERROR(cancels.status());
  Statement inboxes = tx.Prepare("SELECT run_id, inbox FROM runs WHERE " TUTTI_OPEN
                                 " AND inbox > 0 AND owner = $1 AND owner_incarnation = $2 LIMIT 100000");
  inboxes.BindAll(instance.name(), instance.incarnation());
  while (inboxes.Step()) (*response.mutable_inboxes())[inboxes.Text(0)] = inboxes.Int(1);
  TUTTI_RETURN_IF_ERROR(inboxes.status());
  return SetRank(tx, instance.name(), *response.mutable_rank());
}

absl::StatusOr<std::vector<std::string>> Leases::TenantsWithWork(Transaction& tx) {
  // From one tenant to the next in the index, without looking at their runs.
  Statement rows = tx.Prepare("WITH RECURSIVE t(tenant) AS (SELECT min(tenant) FROM runs WHERE " TUTTI_TO_WORK_ON
                              " UNION ALL SELECT (SELECT min(tenant) FROM runs WHERE " TUTTI_TO_WORK_ON
                              " AND tenant > t.tenant) FROM t WHERE t.tenant IS NOT NULL) SELECT tenant FROM t WHERE "
                              "tenant IS NOT NULL LIMIT 10000");
  std::vector<std::string> out;
  while (rows.Step()) out.push_back(rows.Text(0));
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::Status Leases::ClaimOf(Transaction& tx, const v1::ClaimRunsRequest& request, const std::string& tenant,
                             int64_t now, int64_t most, size_t& bytes, v1::ClaimRunsResponse& response) const {
  const std::string sql =
      absl::StrCat("SELECT ", Runs::Columns(),
                   " FROM runs WHERE " TUTTI_TO_WORK_ON " AND tenant = $6 AND (" TUTTI_NO_LIVING_OWNER
                   " OR (owner = $3 AND owner_incarnation = $4 AND (lease_epoch > 1 OR create_time <= $7))) AND NOT "
                   "(run_id = ANY($5)) ORDER BY priority DESC, run_id LIMIT $2 "
                   "FOR UPDATE SKIP LOCKED");
  std::vector<std::string> held(request.held_run_ids().begin(), request.held_run_ids().end());
  for (const auto& run : response.runs()) held.push_back(run.run_id());
  // One that cannot be read (its key is missing, its data damaged) must not keep the others from being worked on.
  for (int64_t unreadable = most; unreadable > 0 && most > 0;) {
    unreadable = 0;
    Statement rows = tx.Prepare(sql);
    rows.BindAll(now, most, request.instance().name(), request.instance().incarnation());
    rows.BindList(held);
    rows.Bind(tenant);
    rows.Bind(now - absl::ToInt64Microseconds(kOnItsWay));
    while (rows.Step()) {
      auto read = runs_.FromRow(tx, rows, /*with_payloads=*/true);
      TUTTI_RETURN_IF_ERROR(tx.failure());
      if (!read.ok()) {
        held.push_back(rows.Text(0));
        ++unreadable;
        continue;
      }
      v1::StoredRun run = *std::move(read);
      bytes += run.ByteSizeLong();
      if (response.runs_size() > 0 && bytes > kClaimBytes) return absl::OkStatus();
      run.set_lease_epoch(run.lease_epoch() + 1);
      *response.add_runs() = std::move(run);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    // As many more are looked at, up to a bound: unread ones are no reason to read the whole table with each claim.
    if (held.size() > kMostPassedOver) break;
    most = unreadable;
  }
  return absl::OkStatus();
}

absl::StatusOr<Leases::Woken> Leases::WakeDue(Transaction& tx, int64_t limit) const {
  Woken out;
  Statement wake = tx.Prepare(
      "UPDATE runs SET waiting = 0, wake_time = 0 WHERE run_id IN (SELECT run_id FROM runs WHERE waiting = 1 AND "
      "wake_time > 0 AND wake_time <= $1 ORDER BY wake_time LIMIT $2)");
  TUTTI_RETURN_IF_ERROR(wake.BindAll(tx.NowMicros(), limit).Run());
  out.runs = wake.Changes();
  if (out.runs > 0) tx.Announce({News::Kind::kClaimable, "", ""});
  TUTTI_ASSIGN_OR_RETURN(out.next, NextWake(tx));
  return out;
}

absl::StatusOr<int64_t> Leases::NextWake(Transaction& tx) const {
  Statement row = tx.Prepare("SELECT min(wake_time) FROM runs WHERE waiting = 1 AND wake_time > 0");
  int64_t next = row.Step() && !row.IsNull(0) ? row.Int(0) : 0;
  TUTTI_RETURN_IF_ERROR(row.status());
  return next == 0 ? int64_t{0} : std::max<int64_t>(1, next - tx.NowMicros());
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
    TUTTI_ASSIGN_OR_RETURN(auto counts, CountFree(tx, most * living));
    int64_t free = 0;
    for (const auto& [tenant, runs] : counts) free += runs;
    most = std::min(most, std::max<int64_t>(1, (free + living - 1) / living));
  }
  TUTTI_ASSIGN_OR_RETURN(std::vector<std::string> tenants, TenantsWithWork(tx));
  // A share for each tenant, beginning with another one each time, so that one tenant's flood does not starve another;
  // then what is left, for whoever has more.
  const auto count = static_cast<int64_t>(tenants.size());
  const int64_t share = count == 0 ? 0 : std::max<int64_t>(1, most / count);
  const auto first = count == 0 ? 0 : static_cast<size_t>(now % count);
  size_t bytes = 0;
  for (int pass = 0; pass < (count > 1 ? 2 : 1); ++pass) {
    if (pass == 1 && response.runs().empty()) break;  // nobody had any
    for (size_t i = 0; i < tenants.size() && response.runs_size() < most && bytes <= kClaimBytes; ++i) {
      int64_t room = most - response.runs_size();
      if (pass == 0 && count > 1) room = std::min(room, share);
      TUTTI_RETURN_IF_ERROR(ClaimOf(tx, request, tenants[(first + i) % tenants.size()], now, room, bytes, response));
    }
  }
  std::vector<std::string> taken;
  for (const auto& run : response.runs()) taken.push_back(run.run_id());
  if (taken.empty()) return absl::OkStatus();
  // A death counts when the run has made no progress under the dead engine. After the first one only a death during
  // the walk counts: an engine takes up one suspect after the other (services/workflow-engine/domain/trial.h).
  Statement take = tx.Prepare(
      "UPDATE runs SET owner = $1, owner_incarnation = $2, lease_epoch = lease_epoch + 1, last_writer_seq = 0, strikes "
      "= CASE WHEN owner = '' OR EXISTS (SELECT 1 FROM instances WHERE expire_time > $3 AND "
      "substr(instances.incarnation, 1, 26) = substr(runs.owner_incarnation, 1, 26)) OR EXISTS (SELECT 1 FROM journal "
      "WHERE journal.run_id = runs.run_id AND seq > claimed_seq AND kind NOT IN ('run_started', 'step_started', "
      "'signal_received')) THEN 0 WHEN strikes = 0 OR EXISTS (SELECT 1 FROM journal WHERE journal.run_id = runs.run_id "
      "AND seq > claimed_seq AND kind = 'run_started') THEN strikes + 1 ELSE strikes END, claimed_seq = last_seq WHERE "
      "run_id = ANY($4)");
  take.BindAll(instance.name(), instance.incarnation(), now);
  TUTTI_RETURN_IF_ERROR(take.BindList(taken).Run());
  Statement rows = tx.Prepare("SELECT run_id, strikes FROM runs WHERE strikes > 0 AND run_id = ANY($1)");
  rows.BindList(taken);
  std::map<std::string, int64_t> strikes;
  while (rows.Step()) strikes[rows.Text(0)] = rows.Int(1);
  TUTTI_RETURN_IF_ERROR(rows.status());
  for (auto& run : *response.mutable_runs()) {
    auto it = strikes.find(run.run_id());
    run.set_strikes(it == strikes.end() ? 0 : static_cast<int32_t>(it->second));
  }
  return absl::OkStatus();
}

absl::Status Leases::ReleaseInstance(Transaction& tx, const v1::ReleaseInstanceRequest& request,
                                     v1::ReleaseInstanceResponse&) const {
  tx.Announce({News::Kind::kClaimable, "", ""});
  // Given back in good order: whoever takes these runs up next does not count a death of their engine.
  TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE runs SET owner = '', owner_incarnation = '' WHERE " TUTTI_TO_WORK_ON
                                   " AND owner = $1 AND owner_incarnation = $2")
                            .BindAll(request.instance().name(), request.instance().incarnation())
                            .Run());
  TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE schedules SET claim_time = 0, claimer = '' WHERE claimer = $1")
                            .BindAll(request.instance().incarnation())
                            .Run());
  return tx.Prepare("DELETE FROM instances WHERE name = $1 AND incarnation = $2")
      .BindAll(request.instance().name(), request.instance().incarnation())
      .Run();
}

}  // namespace tutti::state_manager
