#include "services/state-manager/store/schedules.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

namespace v1 = tutti::state::v1;

#define TUTTI_SCHEDULE_COLUMNS \
  "SELECT name, workflow, paused, next_time, version, create_time, definition FROM schedules "

std::string OwnerOf(absl::string_view name) { return absl::StrCat("schedules/", name); }

absl::Status NotFound(const std::string& name) {
  return Error(absl::StatusCode::kNotFound, "SCHEDULE_NOT_FOUND",
               absl::StrCat("schedule \"", name, "\" does not exist; `tutti schedules list` shows those that do"))
      .Metadata("schedule", name);
}

}  // namespace

absl::Status Schedules::FromRow(Transaction& tx, const Statement& row, v1::StoredSchedule* out) const {
  out->set_name(row.Text(0));
  out->set_workflow(row.Text(1));
  out->set_paused(row.Int(2) != 0);
  if (row.Int(3) > 0) SetMicros(row.Int(3), out->mutable_next_time());
  out->set_version(row.Int(4));
  SetMicros(row.Int(5), out->mutable_create_time());
  out->mutable_definition()->set_media_type("application/x-protobuf");
  TUTTI_ASSIGN_OR_RETURN(*out->mutable_definition()->mutable_data(),
                         payloads_.Get(tx, OwnerOf(out->name()), "definition", row.Bytes(6)));
  return absl::OkStatus();
}

absl::Status Schedules::PutSchedule(Transaction& tx, const v1::PutScheduleRequest& request,
                                    v1::PutScheduleResponse& response) const {
  const v1::StoredSchedule& given = request.schedule();
  TUTTI_RETURN_IF_ERROR(CheckId("schedule.name", given.name()));
  TUTTI_RETURN_IF_ERROR(CheckText("schedule.workflow", given.workflow(), 63, /*required=*/true));
  const std::string owner = OwnerOf(given.name());
  const int64_t next_time = given.has_next_time() ? std::max<int64_t>(1, ToMicros(given.next_time())) : 0;
  const int64_t now = tx.NowMicros();
  int64_t changed = 0;
  if (given.version() == 0) {
    Statement exists = tx.Prepare("SELECT 1 FROM schedules WHERE name = $1");
    exists.Bind(given.name());
    const bool there = exists.Step();
    TUTTI_RETURN_IF_ERROR(exists.status());
    if (!there) {
      TUTTI_ASSIGN_OR_RETURN(std::string cell, payloads_.Put(tx, owner, "definition", given.definition().data()));
      Statement insert = tx.Prepare(
          "INSERT INTO schedules (name, workflow, paused, next_time, claim_time, version, create_time, definition) "
          "VALUES ($1, $2, $3, $4, 0, 1, $5, $6) ON CONFLICT DO NOTHING");
      TUTTI_RETURN_IF_ERROR(
          insert.BindAll(given.name(), given.workflow(), given.paused() ? 1 : 0, next_time, now, SqlArg::Bytes(cell))
              .Run());
      changed = insert.Changes();
    }
  } else {
    {
      Statement lock = tx.Prepare("SELECT version FROM schedules WHERE name = $1 FOR UPDATE");
      lock.Bind(given.name());
      const bool there = lock.Step();
      TUTTI_RETURN_IF_ERROR(lock.status());
      if (!there) return NotFound(given.name());
      changed = lock.Int(0) == given.version() ? 1 : 0;
    }
    if (changed > 0) {
      TUTTI_RETURN_IF_ERROR(Payloads::Forget(tx, owner));
      TUTTI_ASSIGN_OR_RETURN(std::string cell, payloads_.Put(tx, owner, "definition", given.definition().data()));
      TUTTI_RETURN_IF_ERROR(
          tx.Prepare("UPDATE schedules SET workflow = $2, paused = $3, next_time = $4, claim_time = 0, version = "
                     "version + 1, definition = $5 WHERE name = $1")
              .BindAll(given.name(), given.workflow(), given.paused() ? 1 : 0, next_time, SqlArg::Bytes(cell))
              .Run());
    }
  }
  if (changed == 0) {
    return Error(
               absl::StatusCode::kAborted, "SCHEDULE_CHANGED",
               absl::StrCat("schedule \"", given.name(), "\" was changed by another call at the same time; try again"))
        .RetryAfter(absl::Milliseconds(20));
  }
  v1::GetScheduleRequest get;
  get.set_name(given.name());
  v1::GetScheduleResponse stored;
  TUTTI_RETURN_IF_ERROR(GetSchedule(tx, get, stored));
  *response.mutable_schedule() = std::move(*stored.mutable_schedule());
  return absl::OkStatus();
}

absl::Status Schedules::GetSchedule(Transaction& tx, const v1::GetScheduleRequest& request,
                                    v1::GetScheduleResponse& response) const {
  Statement row = tx.Prepare(TUTTI_SCHEDULE_COLUMNS "WHERE name = $1");
  row.Bind(request.name());
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    return NotFound(request.name());
  }
  SetMicros(tx.NowMicros(), response.mutable_now());
  return FromRow(tx, row, response.mutable_schedule());
}

absl::Status Schedules::ListSchedules(Transaction& tx, const v1::ListSchedulesRequest& request,
                                      v1::ListSchedulesResponse& response) const {
  Statement rows = tx.Prepare(TUTTI_SCHEDULE_COLUMNS "WHERE name > $1 ORDER BY name LIMIT $2");
  rows.BindAll(request.after_name(), request.page_size() + 1);
  while (rows.Step()) {
    if (response.schedules_size() == request.page_size()) {
      response.set_has_more(true);
      break;
    }
    TUTTI_RETURN_IF_ERROR(FromRow(tx, rows, response.add_schedules()));
  }
  SetMicros(tx.NowMicros(), response.mutable_now());
  return rows.status();
}

absl::Status Schedules::DeleteSchedule(Transaction& tx, const v1::DeleteScheduleRequest& request,
                                       v1::DeleteScheduleResponse&) const {
  TUTTI_RETURN_IF_ERROR(Payloads::Forget(tx, OwnerOf(request.name())));
  Statement remove = tx.Prepare("DELETE FROM schedules WHERE name = $1");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(request.name()).Run());
  return remove.Changes() > 0 ? absl::OkStatus() : NotFound(request.name());
}

absl::StatusOr<bool> Schedules::LookAhead(Transaction& tx, v1::ClaimDueSchedulesResponse& response) const {
  const int64_t now = tx.NowMicros();
  SetMicros(now, response.mutable_now());
  // Not before another's claim is over, where there is one.
  Statement row = tx.Prepare(
      "SELECT min(CASE WHEN claim_time > next_time THEN claim_time ELSE next_time END) FROM schedules WHERE next_time "
      "> "
      "0");
  const bool there = row.Step() && !row.IsNull(0);
  TUTTI_RETURN_IF_ERROR(row.status());
  if (!there) return false;
  const int64_t in = std::max<int64_t>(0, row.Int(0) - now);
  response.mutable_next_in()->set_seconds(in / 1000000);
  response.mutable_next_in()->set_nanos(static_cast<int32_t>(in % 1000000) * 1000);
  return in == 0;
}

absl::Status Schedules::ClaimDueSchedules(Transaction& tx, const v1::ClaimDueSchedulesRequest& request,
                                          v1::ClaimDueSchedulesResponse& response) const {
  if (request.limit() < 1 || request.limit() > 100) return Invalid("limit", "must be 1 to 100");
  TUTTI_RETURN_IF_ERROR(CheckDuration("claim_duration", request.claim_duration(), 1, 600));
  const int64_t now = tx.NowMicros();
  std::vector<std::string> names;
  {
    Statement rows =
        tx.Prepare(TUTTI_SCHEDULE_COLUMNS
                   "WHERE next_time > 0 AND next_time <= $1 AND claim_time <= $1 ORDER BY next_time LIMIT $2 "
                   "FOR UPDATE SKIP LOCKED");
    rows.BindAll(now, request.limit());
    while (rows.Step()) {
      auto* schedule = response.add_schedules();
      TUTTI_RETURN_IF_ERROR(FromRow(tx, rows, schedule));
      names.push_back(schedule->name());
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  for (const auto& name : names) {
    TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE schedules SET claim_time = $2 WHERE name = $1")
                              .BindAll(name, now + ToMicros(request.claim_duration()))
                              .Run());
  }
  return LookAhead(tx, response).status();
}

}  // namespace tutti::state_manager
