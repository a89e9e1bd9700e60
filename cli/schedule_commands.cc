#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "runtime/json/json.h"
#include "runtime/status/macros.h"
#include "runtime/time/duration_text.h"
#include "runtime/time/proto_time.h"
#include "tutti/workflow/v1/schedule_service.grpc.pb.h"

namespace tutti::cli {
namespace {

namespace v1 = tutti::workflow::v1;
using Stub = v1::ScheduleService::Stub;

absl::Status SetDuration(const std::string& text, const char* flag, google::protobuf::Duration* out) {
  absl::Duration duration;
  if (!ParseDurationText(text, &duration)) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " takes a duration such as 90s, 15m, 36h or 7d, not \"", text, "\""));
  }
  ToProto(duration, out);
  return absl::OkStatus();
}

absl::Status SetTime(const std::string& text, const char* flag, google::protobuf::Timestamp* out) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " takes a time such as 2026-12-24T18:00:00+01:00, not \"", text, "\" (", error, ")"));
  }
  ToProto(time, out);
  return absl::OkStatus();
}

absl::Status BuildCalendar(const ScheduleOptions& options, v1::Calendar* out) {
  for (const auto& line : options.cron) out->add_cron(line);
  out->set_time_zone(options.time_zone);
  if (!options.every.empty()) TUTTI_RETURN_IF_ERROR(SetDuration(options.every, "--every", out->mutable_every()));
  if (!options.offset.empty()) TUTTI_RETURN_IF_ERROR(SetDuration(options.offset, "--offset", out->mutable_offset()));
  if (!options.jitter.empty()) TUTTI_RETURN_IF_ERROR(SetDuration(options.jitter, "--jitter", out->mutable_jitter()));
  if (!options.start.empty()) TUTTI_RETURN_IF_ERROR(SetTime(options.start, "--start", out->mutable_start_time()));
  if (!options.end.empty()) TUTTI_RETURN_IF_ERROR(SetTime(options.end, "--end", out->mutable_end_time()));
  return absl::OkStatus();
}

absl::StatusOr<v1::Schedule> Build(const ScheduleOptions& options) {
  v1::Schedule out;
  out.set_name(options.name);
  out.set_description(options.description);
  out.set_workflow(options.workflow);
  out.set_workflow_version(options.version);
  out.set_pause_on_failure(options.pause_on_failure);
  out.set_paused(options.paused);
  out.set_note(options.note);
  out.set_etag(options.etag);
  TUTTI_RETURN_IF_ERROR(BuildCalendar(options, out.mutable_calendar()));
  if (!options.catchup.empty()) {
    TUTTI_RETURN_IF_ERROR(SetDuration(options.catchup, "--catchup", out.mutable_catchup_window()));
  }
  if (!options.overlap.empty()) {
    std::string name = absl::StrCat("OVERLAP_POLICY_", absl::AsciiStrToUpper(options.overlap));
    for (char& c : name) c = c == '-' ? '_' : c;
    v1::OverlapPolicy policy;
    if (!v1::OverlapPolicy_Parse(name, &policy)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--overlap takes skip, buffer-one, buffer-all, cancel-other, terminate-other or allow-all, not \"",
          options.overlap, "\""));
    }
    out.set_overlap_policy(policy);
  }
  TUTTI_ASSIGN_OR_RETURN(Json input, BuildInput(options.run));
  if (!input.empty()) ToProto(input, out.mutable_input());
  out.set_tenant(options.run.tenant);
  out.set_priority(options.run.priority);
  for (const auto& entry : options.run.labels) {
    TUTTI_ASSIGN_OR_RETURN(auto pair, KeyValue(entry, "--label"));
    (*out.mutable_labels())[pair.first] = pair.second;
  }
  return out;
}

std::string ShowCalendar(const v1::Calendar& calendar) {
  std::vector<std::string> parts(calendar.cron().begin(), calendar.cron().end());
  if (calendar.has_every()) parts.push_back(absl::StrCat("every ", absl::FormatDuration(FromProto(calendar.every()))));
  std::string out = absl::StrJoin(parts, " | ");
  if (!calendar.cron().empty()) {
    absl::StrAppend(&out, " (", calendar.time_zone().empty() ? "UTC" : calendar.time_zone(), ")");
  }
  return out;
}

// As the calendar's zone shows it.
std::string ShowZoned(const google::protobuf::Timestamp& time, const std::string& zone_name) {
  absl::TimeZone zone = absl::UTCTimeZone();
  if (!zone_name.empty()) (void)absl::LoadTimeZone(zone_name, &zone);
  return absl::FormatTime("%a %Y-%m-%d %H:%M:%S %Ez", FromProto(time), zone);
}

int Print(const v1::Schedule& schedule, Format format) {
  if (format != Format::kTable) {
    PrintMessage(schedule, format);
    return kOk;
  }
  const auto& state = schedule.state();
  std::cout << "schedule  " << schedule.name() << (schedule.paused() ? " (paused)" : "");
  if (!schedule.note().empty()) std::cout << ": " << schedule.note();
  std::cout << "\nworkflow  " << schedule.workflow();
  if (schedule.workflow_version() > 0) std::cout << " (version " << schedule.workflow_version() << ")";
  const auto overlap =
      schedule.overlap_policy() == v1::OVERLAP_POLICY_UNSPECIFIED ? v1::OVERLAP_POLICY_SKIP : schedule.overlap_policy();
  std::cout << "\ncalendar  " << ShowCalendar(schedule.calendar()) << "\noverlap   "
            << absl::AsciiStrToLower(ShowEnum(v1::OverlapPolicy_Name(overlap), "OVERLAP_POLICY_")) << "\ndone      "
            << state.started() << " started, " << state.skipped() << " skipped, " << state.missed() << " missed, "
            << state.failed() << " failed, " << state.buffered_size() << " waiting\n";
  for (int i = 0; i < schedule.next_times_size(); ++i) {
    std::cout << (i == 0 ? "next      " : "          ")
              << ShowZoned(schedule.next_times(i), schedule.calendar().time_zone()) << "\n";
  }
  if (state.recent().empty()) return kOk;
  std::vector<Row> rows;
  for (auto it = state.recent().rbegin(); it != state.recent().rend(); ++it) {
    rows.push_back({ShowTime(it->scheduled_time()), it->run_id().empty() ? "-" : it->run_id(),
                    it->has_error()   ? it->error().message()
                    : it->triggered() ? "triggered"
                                      : ""});
  }
  std::cout << "\n";
  PrintTable({"TIME", "RUN", ""}, rows);
  return kOk;
}

template <class Request, class Response>
int CallAndPrint(Client& client, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                 const Request& request, Format format) {
  auto stub = v1::ScheduleService::NewStub(client.channel());
  Response response;
  absl::Status status = client.Call(*stub, method, request, response);
  return status.ok() ? Print(response.schedule(), format) : PrintError(status);
}

}  // namespace

int CreateSchedule(Client& client, const ScheduleOptions& options, Format format) {
  auto schedule = Build(options);
  if (!schedule.ok()) return PrintError(schedule.status());
  v1::CreateScheduleRequest request;
  *request.mutable_schedule() = *schedule;
  return CallAndPrint(client, &Stub::CreateSchedule, request, format);
}

int UpdateSchedule(Client& client, const ScheduleOptions& options, Format format) {
  auto schedule = Build(options);
  if (!schedule.ok()) return PrintError(schedule.status());
  v1::UpdateScheduleRequest request;
  *request.mutable_schedule() = *schedule;
  return CallAndPrint(client, &Stub::UpdateSchedule, request, format);
}

int GetSchedule(Client& client, const std::string& name, Format format) {
  v1::GetScheduleRequest request;
  request.set_name(name);
  return CallAndPrint(client, &Stub::GetSchedule, request, format);
}

int PauseSchedule(Client& client, const std::string& name, const std::string& note, Format format) {
  v1::PauseScheduleRequest request;
  request.set_name(name);
  request.set_note(note);
  return CallAndPrint(client, &Stub::PauseSchedule, request, format);
}

int ResumeSchedule(Client& client, const std::string& name, const std::string& note, Format format) {
  v1::ResumeScheduleRequest request;
  request.set_name(name);
  request.set_note(note);
  return CallAndPrint(client, &Stub::ResumeSchedule, request, format);
}

int ListSchedules(Client& client, Format format) {
  auto stub = v1::ScheduleService::NewStub(client.channel());
  v1::ListSchedulesRequest request;
  request.set_page_size(1000);
  v1::ListSchedulesResponse all;
  do {
    v1::ListSchedulesResponse page;
    absl::Status status = client.Call(*stub, &Stub::ListSchedules, request, page);
    if (!status.ok()) return PrintError(status);
    all.mutable_schedules()->MergeFrom(page.schedules());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (format != Format::kTable) {
    PrintMessage(all, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& schedule : all.schedules()) {
    const auto& state = schedule.state();
    std::string next = schedule.paused() ? "paused" : "never";
    if (!schedule.next_times().empty()) next = ShowZoned(schedule.next_times(0), schedule.calendar().time_zone());
    rows.push_back({schedule.name(), schedule.workflow(), ShowCalendar(schedule.calendar()), next,
                    absl::StrCat(state.started()), state.recent().empty() ? "-" : state.recent().rbegin()->run_id()});
  }
  PrintTable({"SCHEDULE", "WORKFLOW", "CALENDAR", "NEXT", "RUNS", "LATEST"}, rows);
  return kOk;
}

int DeleteSchedule(Client& client, const std::string& name, Format format) {
  auto stub = v1::ScheduleService::NewStub(client.channel());
  v1::DeleteScheduleRequest request;
  request.set_name(name);
  v1::DeleteScheduleResponse response;
  absl::Status status = client.Call(*stub, &Stub::DeleteSchedule, request, response);
  if (!status.ok()) return PrintError(status);
  if (format == Format::kTable) std::cout << "schedule " << name << " deleted; its runs go on\n";
  return kOk;
}

int TriggerSchedule(Client& client, const std::string& name, const std::string& request_id, Format format) {
  auto stub = v1::ScheduleService::NewStub(client.channel());
  v1::TriggerScheduleRequest request;
  request.set_name(name);
  request.set_request_id(request_id);
  v1::TriggerScheduleResponse response;
  absl::Status status = client.Call(*stub, &Stub::TriggerSchedule, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
  } else {
    std::cout << response.run_id() << "\n";
  }
  return kOk;
}

int ScheduleTimes(Client& client, const ScheduleOptions& options, Format format) {
  auto stub = v1::ScheduleService::NewStub(client.channel());
  v1::ListScheduleTimesRequest request;
  std::string zone = options.time_zone;
  absl::Status status;
  if (options.name.empty()) {
    status = BuildCalendar(options, request.mutable_calendar());
  } else {
    v1::GetScheduleRequest get;
    get.set_name(options.name);
    v1::GetScheduleResponse stored;
    status = client.Call(*stub, &Stub::GetSchedule, get, stored);
    zone = stored.schedule().calendar().time_zone();
    request.set_name(options.name);
  }
  request.set_page_size(options.count);
  if (status.ok() && !options.from.empty()) status = SetTime(options.from, "--from", request.mutable_start_time());
  v1::ListScheduleTimesResponse response;
  if (status.ok()) status = client.Call(*stub, &Stub::ListScheduleTimes, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  for (const auto& time : response.times()) std::cout << ShowZoned(time, zone) << "\n";
  return kOk;
}

}  // namespace tutti::cli
