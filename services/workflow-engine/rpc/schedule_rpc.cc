#include "services/workflow-engine/rpc/schedule_rpc.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/rpc/server_calls.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/digest.h"
#include "runtime/text/page_token.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/schedule.h"

namespace tutti::engine {
namespace {

namespace v1 = tutti::workflow::v1;

constexpr int kTimesShown = 5;
constexpr int kMostTimes = 200;

// What the caller says of it.
v1::Schedule Given(v1::Schedule schedule) {
  schedule.clear_create_time();
  schedule.clear_update_time();
  schedule.clear_etag();
  schedule.clear_next_times();
  schedule.clear_state();
  return schedule;
}

v1::Schedule Shown(v1::Schedule schedule, absl::Time now, int count = kTimesShown) {
  auto times = TimesOf(schedule);
  if (!times.ok() || schedule.paused()) return schedule;
  absl::Time time = std::max(times->PassedUntil(now), DoneUntil(schedule));
  for (int i = 0; i < count; ++i) {
    const CalendarTimes::Occurrence next = times->Next(time);
    if (next.time == absl::InfiniteFuture()) break;
    ToProto(next.due, schedule.add_next_times());
    time = next.time;
  }
  return schedule;
}

}  // namespace

ScheduleRpc::ScheduleRpc(ServerEnv& env, ScheduleClient& schedules, StartRun start, CheckStart check)
    : env_(env), schedules_(schedules), start_(std::move(start)), check_(std::move(check)) {}
ScheduleRpc::~ScheduleRpc() = default;

void ScheduleRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.workflow.v1.ScheduleService/CreateSchedule", *this, &ScheduleRpc::HandleCreateSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/GetSchedule", *this, &ScheduleRpc::HandleGetSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/ListSchedules", *this, &ScheduleRpc::HandleListSchedules);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/UpdateSchedule", *this, &ScheduleRpc::HandleUpdateSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/DeleteSchedule", *this, &ScheduleRpc::HandleDeleteSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/PauseSchedule", *this, &ScheduleRpc::HandlePauseSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/ResumeSchedule", *this, &ScheduleRpc::HandleResumeSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/TriggerSchedule", *this, &ScheduleRpc::HandleTriggerSchedule);
  local.Add(env_, "tutti.workflow.v1.ScheduleService/ListScheduleTimes", *this, &ScheduleRpc::HandleListScheduleTimes);
}

#define TUTTI_SCHEDULE_METHOD(Name)                                                                 \
  Task<absl::Status> ScheduleRpc::Handle##Name(CallContext& call, const v1::Name##Request& request, \
                                               v1::Name##Response& response)

TUTTI_SCHEDULE_METHOD(CreateSchedule) {
  TUTTI_CO_RETURN_IF_ERROR(CheckSchedule(request.schedule(), env_.clock.Now()));
  const v1::StartRunRequest start = StartOf(request.schedule(), env_.clock.Now());
  TUTTI_CO_RETURN_IF_ERROR(co_await check_(call, start));
  StoredSchedule fresh;
  fresh.schedule = Given(request.schedule());
  fresh.schedule.set_etag(absl::StrCat("n", absl::ToUnixMicros(env_.clock.Now())));
  ToProto(env_.clock.Now(), fresh.schedule.mutable_update_time());
  auto written = co_await schedules_.Put(call, fresh, "schedules.create");
  if (written.ok()) {
    *response.mutable_schedule() = Shown(written->schedule, env_.clock.Now());
    co_return absl::OkStatus();
  }
  if (ReasonOf(written.status()) != "SCHEDULE_CHANGED") co_return written.status();
  TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule there, co_await schedules_.Get(call, request.schedule().name()));
  // Sent again, also after it was paused.
  v1::Schedule stored = Given(there.schedule), given = Given(request.schedule());
  for (auto* schedule : {&stored, &given}) {
    schedule->clear_paused();
    schedule->clear_note();
  }
  if (!google::protobuf::util::MessageDifferencer::Equals(stored, given)) {
    co_return Error(absl::StatusCode::kAlreadyExists, "SCHEDULE_EXISTS",
                    absl::StrCat("schedule \"", request.schedule().name(),
                                 "\" exists and is another one; update it, or take another name"))
        .Metadata("schedule", request.schedule().name());
  }
  *response.mutable_schedule() = Shown(there.schedule, there.now);
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(GetSchedule) {
  TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored, co_await schedules_.Get(call, request.name()));
  *response.mutable_schedule() = Shown(std::move(stored.schedule), stored.now);
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(ListSchedules) {
  TUTTI_CO_ASSIGN_OR_RETURN(int page_size, PageSize(request.page_size()));
  TUTTI_CO_ASSIGN_OR_RETURN(std::string after, DecodePageToken(request.page_token(), "schedules"));
  TUTTI_CO_ASSIGN_OR_RETURN(ScheduleClient::Page page, co_await schedules_.List(call, page_size, after));
  for (auto& schedule : page.schedules) {
    schedule.clear_input();
    *response.add_schedules() = Shown(std::move(schedule), page.now, /*count=*/1);
  }
  if (page.has_more) {
    response.set_next_page_token(EncodePageToken(response.schedules().rbegin()->name(), "schedules"));
  }
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(UpdateSchedule) {
  TUTTI_CO_RETURN_IF_ERROR(CheckSchedule(request.schedule(), env_.clock.Now()));
  const v1::StartRunRequest start = StartOf(request.schedule(), env_.clock.Now());
  TUTTI_CO_RETURN_IF_ERROR(co_await check_(call, start));
  auto edit = [&](v1::Schedule& schedule, absl::Time now, int64_t next_version) -> absl::StatusOr<bool> {
    const std::string& etag = request.schedule().etag();
    if (!etag.empty() && etag != schedule.etag()) {
      return Error(absl::StatusCode::kAborted, "ETAG_MISMATCH",
                   absl::StrCat("schedule \"", schedule.name(), "\" has changed since it was read (etag ",
                                schedule.etag(), "); read it again"))
          .Metadata("etag", schedule.etag());
    }
    v1::Schedule next = Given(request.schedule());
    *next.mutable_state() = schedule.state();
    *next.mutable_create_time() = schedule.create_time();
    ChangeSchedule(schedule, now, &next);
    ToProto(now, next.mutable_update_time());
    next.set_etag(absl::StrCat(next_version));
    schedule = std::move(next);
    return true;
  };
  TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored,
                            co_await schedules_.Change(call, request.schedule().name(), "schedules.update", edit));
  *response.mutable_schedule() = Shown(std::move(stored.schedule), stored.now);
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(DeleteSchedule) {
  absl::Status status = co_await schedules_.Delete(call, request.name());
  co_return status;
}

namespace {

ScheduleClient::Edit SetPaused(bool paused, std::string note) {
  return [paused, note](v1::Schedule& schedule, absl::Time now, int64_t next_version) -> absl::StatusOr<bool> {
    if (schedule.paused() == paused) return false;
    v1::Schedule before = schedule;
    schedule.set_paused(paused);
    schedule.set_note(note);
    ChangeSchedule(before, now, &schedule);
    ToProto(now, schedule.mutable_update_time());
    schedule.set_etag(absl::StrCat(next_version));
    return true;
  };
}

absl::Status CheckNote(const std::string& note) {
  if (note.size() <= 1000) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", "note: must have at most 1000 characters")
      .Violation("note", "must have at most 1000 characters");
}

}  // namespace

TUTTI_SCHEDULE_METHOD(PauseSchedule) {
  TUTTI_CO_RETURN_IF_ERROR(CheckNote(request.note()));
  ScheduleClient::Edit edit = SetPaused(true, request.note());
  TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored,
                            co_await schedules_.Change(call, request.name(), "schedules.pause", edit));
  *response.mutable_schedule() = Shown(std::move(stored.schedule), stored.now);
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(ResumeSchedule) {
  TUTTI_CO_RETURN_IF_ERROR(CheckNote(request.note()));
  ScheduleClient::Edit edit = SetPaused(false, request.note());
  TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored,
                            co_await schedules_.Change(call, request.name(), "schedules.resume", edit));
  *response.mutable_schedule() = Shown(std::move(stored.schedule), stored.now);
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(TriggerSchedule) {
  if (request.request_id().size() > 36) {
    co_return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", "request_id: must have at most 36 characters")
        .Violation("request_id", "must have at most 36 characters");
  }
  TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored, co_await schedules_.Get(call, request.name()));
  v1::StartRunRequest start = StartOf(stored.schedule, stored.now);
  if (!request.request_id().empty()) {
    // Of this schedule: the same id for another one, or for a run of its own, is another request.
    start.set_request_id(
        absl::StrCat("t-", HexDigest(absl::StrCat(request.name(), "/", stored.schedule.create_time().seconds(), "/",
                                                  stored.schedule.create_time().nanos(), "/", request.request_id()))));
  }
  TUTTI_CO_ASSIGN_OR_RETURN(state::CreateRunResponse created, co_await start_(call, start));
  response.set_run_id(created.run().run_id());
  auto note = [&](v1::Schedule& schedule, absl::Time now, int64_t) -> absl::StatusOr<bool> {
    for (const auto& action : schedule.state().recent()) {
      if (action.run_id() == response.run_id()) return false;
    }
    v1::ScheduleState::Action action;
    ToProto(now, action.mutable_scheduled_time());
    action.set_run_id(response.run_id());
    action.set_triggered(true);
    AddAction(std::move(action), schedule.mutable_state());
    return true;
  };
  // The run has begun: that it is not in the schedule's list would be no reason to say it had not.
  auto noted = co_await schedules_.Change(call, request.name(), "schedules.trigger", note);
  (void)noted;
  co_return absl::OkStatus();
}

TUTTI_SCHEDULE_METHOD(ListScheduleTimes) {
  const int count = request.page_size() == 0 ? 10 : request.page_size();
  if (count < 1 || count > kMostTimes) {
    co_return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", "page_size: must be 1 to 200")
        .Violation("page_size", "must be 1 to 200");
  }
  if (request.has_start_time()) TUTTI_CO_RETURN_IF_ERROR(CheckTime(request.start_time(), "start_time"));
  absl::Time from = env_.clock.Now();
  absl::StatusOr<CalendarTimes> times = absl::UnknownError("");
  if (request.has_name()) {
    TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored, co_await schedules_.Get(call, request.name()));
    from = stored.now;
    times = TimesOf(stored.schedule);
  } else {
    times = CalendarTimes::Create(request.calendar(), "", "calendar");
  }
  if (!times.ok()) co_return times.status();
  from = times->PassedUntil(from);
  if (request.has_start_time()) from = FromProto(request.start_time()) - absl::Nanoseconds(1);
  for (int i = 0; i < count; ++i) {
    const CalendarTimes::Occurrence next = times->Next(from);
    if (next.time == absl::InfiniteFuture()) break;
    ToProto(next.due, response.add_times());
    from = next.time;
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::engine
