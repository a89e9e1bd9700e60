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

// Of definitions in one answer, which may go over one more.
constexpr size_t kMostBytes = size_t{2} << 20;
// Deaths of claimers after which a schedule is claimed alone, so that the next death tells.
constexpr int32_t kSuspect = 2;
constexpr int64_t kSuspectsWait = int64_t{2} * 1000000;
constexpr int64_t kUnreadable = int64_t{60} * 1000000;

#define TUTTI_SCHEDULE_COLUMNS \
  "SELECT name, workflow, paused, next_time, version, create_time, definition FROM schedules "

std::string OwnerOf(absl::string_view name) { return absl::StrCat("schedules/", name); }

absl::Status NotFound(const std::string& name) {
  return Error(absl::StatusCode::kNotFound, "SCHEDULE_NOT_FOUND",
               absl::StrCat("schedule \"", name, "\" does not exist; `tutti schedules list` shows those that do"))
      .Metadata("schedule", name);
}

}  // namespace

void Schedules::FromRow(const Statement& row, v1::StoredSchedule* out, std::string* cell) {
  out->set_name(row.Text(0));
  out->set_workflow(row.Text(1));
  out->set_paused(row.Int(2) != 0);
  if (row.Int(3) > 0) SetMicros(row.Int(3), out->mutable_next_time());
  out->set_version(row.Int(4));
  SetMicros(row.Int(5), out->mutable_create_time());
  *cell = row.Bytes(6);
}

absl::Status Schedules::LoadDefinition(Transaction& tx, absl::string_view cell, v1::StoredSchedule* out) const {
  out->mutable_definition()->set_media_type("application/x-protobuf");
  TUTTI_ASSIGN_OR_RETURN(*out->mutable_definition()->mutable_data(),
                         payloads_.Get(tx, OwnerOf(out->name()), "definition", cell));
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
      // Versions begin at the time, so that a schedule of the same name that is made anew has none of the old ones.
      Statement insert = tx.Prepare(
          "INSERT INTO schedules (name, workflow, paused, next_time, claim_time, version, create_time, definition) "
          "VALUES ($1, $2, $3, $4, 0, $5, $5, $6) ON CONFLICT DO NOTHING");
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
          tx.Prepare("UPDATE schedules SET workflow = $2, paused = $3, next_time = $4, claim_time = CASE WHEN "
                     "$6::bigint = 1 THEN claim_time ELSE 0 END, strikes = 0, version = version + 1, definition = $5 "
                     "WHERE name = $1")
              .BindAll(given.name(), given.workflow(), given.paused() ? 1 : 0, next_time, SqlArg::Bytes(cell),
                       request.audit_action().empty() ? 0 : 1)
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
  std::string cell;
  {
    Statement row = tx.Prepare(TUTTI_SCHEDULE_COLUMNS "WHERE name = $1");
    row.Bind(request.name());
    if (!row.Step()) {
      TUTTI_RETURN_IF_ERROR(row.status());
      return NotFound(request.name());
    }
    FromRow(row, response.mutable_schedule(), &cell);
  }
  SetMicros(tx.NowMicros(), response.mutable_now());
  return LoadDefinition(tx, cell, response.mutable_schedule());
}

absl::Status Schedules::ListSchedules(Transaction& tx, const v1::ListSchedulesRequest& request,
                                      v1::ListSchedulesResponse& response) const {
  std::vector<std::string> cells;
  {
    Statement rows = tx.Prepare(TUTTI_SCHEDULE_COLUMNS "WHERE name > $1 ORDER BY name LIMIT $2");
    rows.BindAll(request.after_name(), request.page_size() + 1);
    while (rows.Step()) {
      if (response.schedules_size() == request.page_size()) {
        response.set_has_more(true);
        break;
      }
      FromRow(rows, response.add_schedules(), &cells.emplace_back());
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  SetMicros(tx.NowMicros(), response.mutable_now());
  size_t bytes = 0;
  for (int i = 0; i < response.schedules_size(); ++i) {
    if (i > 0 && bytes > kMostBytes) {  // the next page goes on there
      response.mutable_schedules()->DeleteSubrange(i, response.schedules_size() - i);
      response.set_has_more(true);
      break;
    }
    TUTTI_RETURN_IF_ERROR(LoadDefinition(tx, cells[static_cast<size_t>(i)], response.mutable_schedules(i)));
    bytes += response.schedules(i).definition().data().size();
  }
  return absl::OkStatus();
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
  auto first = [&](const char* sql) -> absl::StatusOr<int64_t> {
    Statement row = tx.Prepare(sql);
    row.Bind(now);
    const int64_t out = row.Step() && !row.IsNull(0) ? row.Int(0) : 0;
    TUTTI_RETURN_IF_ERROR(row.status());
    return out;
  };
  TUTTI_ASSIGN_OR_RETURN(int64_t due,
                         first("SELECT next_time FROM schedules WHERE next_time > 0 AND next_time <= $1 AND "
                               "claim_time <= $1 LIMIT 1"));
  // Those that others have claimed are found when their claims are over.
  TUTTI_ASSIGN_OR_RETURN(int64_t next,
                         first("SELECT min(next_time) FROM schedules WHERE next_time > 0 AND next_time > $1"));
  if (due == 0 && next == 0) return false;
  const int64_t in = due > 0 ? 0 : next - now;
  response.mutable_next_in()->set_seconds(in / 1000000);
  response.mutable_next_in()->set_nanos(static_cast<int32_t>(in % 1000000) * 1000);
  return due > 0;
}

absl::Status Schedules::LeaveOneSuspect(Transaction& tx, int64_t now, Claimed& due) {
  auto suspect = [](const auto& claimed) { return claimed.first.strikes() >= kSuspect; };
  const auto first = std::find_if(due.begin(), due.end(), suspect);
  if (first == due.end()) return absl::OkStatus();
  bool tried = false;  // another suspect, by an engine that lives
  {
    Statement row = tx.Prepare("SELECT 1 FROM schedules WHERE claim_time > $1 AND claimer <> '' AND strikes >= $2");
    row.BindAll(now, kSuspect);
    tried = row.Step();
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  Claimed left;
  for (auto& claimed : due) {
    const bool chosen = !tried && claimed.first.name() == first->first.name();
    if (chosen || (tried && !suspect(claimed))) {
      left.push_back(std::move(claimed));
    } else if (suspect(claimed)) {
      TUTTI_RETURN_IF_ERROR(
          tx.Prepare("UPDATE schedules SET claim_time = $2, strikes = $3, claimer = '' WHERE name = $1")
              .BindAll(claimed.first.name(), now + kSuspectsWait, claimed.first.strikes())
              .Run());
    }
  }
  due = std::move(left);
  return absl::OkStatus();
}

absl::Status Schedules::ClaimDueSchedules(Transaction& tx, const v1::ClaimDueSchedulesRequest& request,
                                          v1::ClaimDueSchedulesResponse& response) const {
  if (request.limit() < 1 || request.limit() > 100) return Invalid("limit", "must be 1 to 100");
  TUTTI_RETURN_IF_ERROR(CheckDuration("claim_duration", request.claim_duration(), 1, 600));
  const int64_t now = tx.NowMicros();
  Claimed due;
  {
    Statement rows = tx.Prepare(
        "SELECT name, workflow, paused, next_time, version, create_time, definition, CASE WHEN claim_time = 0 THEN 0 "
        "WHEN claimer = '' THEN strikes WHEN EXISTS (SELECT 1 FROM instances WHERE expire_time > $1 AND "
        "substr(instances.incarnation, 1, 26) = substr(schedules.claimer, 1, 26)) THEN 0 ELSE strikes + 1 END FROM "
        "schedules WHERE next_time > 0 AND next_time <= $1 AND claim_time <= $1 ORDER BY next_time LIMIT $2 FOR UPDATE "
        "SKIP LOCKED");
    rows.BindAll(now, request.limit());
    while (rows.Step()) {
      auto& [schedule, cell] = due.emplace_back();
      FromRow(rows, &schedule, &cell);
      schedule.set_strikes(static_cast<int32_t>(rows.Int(7)));
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  TUTTI_RETURN_IF_ERROR(LeaveOneSuspect(tx, now, due));
  size_t bytes = 0;
  for (auto& [schedule, cell] : due) {
    if (bytes > kMostBytes) break;  // the rest comes with the next claim
    // One that cannot be read (a key is missing, say) does not keep the others from their work; it is looked at again.
    const bool readable = LoadDefinition(tx, cell, &schedule).ok();
    const int64_t until = now + (readable ? ToMicros(request.claim_duration()) : kUnreadable);
    TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE schedules SET claim_time = $2, strikes = $3, claimer = $4 WHERE name = $1")
                              .BindAll(schedule.name(), until, schedule.strikes(), request.instance().incarnation())
                              .Run());
    if (!readable) continue;
    bytes += schedule.definition().data().size();
    *response.add_schedules() = std::move(schedule);
  }
  return LookAhead(tx, response).status();
}

}  // namespace tutti::state_manager
