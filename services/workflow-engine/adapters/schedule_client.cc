#include "services/workflow-engine/adapters/schedule_client.h"

#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/schedule.h"

namespace tutti::engine {
namespace {

namespace v1 = tutti::workflow::v1;

constexpr int kTries = 10;

v1::Schedule Read(const state::StoredSchedule& stored) {
  v1::Schedule out;
  out.ParseFromString(stored.definition().data());
  *out.mutable_create_time() = stored.create_time();
  return out;
}

}  // namespace

Task<absl::StatusOr<StoredSchedule>> ScheduleClient::Get(CallContext& call, std::string name) {
  state::GetScheduleRequest request;
  request.set_name(name);
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetScheduleResponse response, co_await state_.GetSchedule(call, request));
  StoredSchedule out{Read(response.schedule()), response.schedule().version(), FromProto(response.now())};
  co_return out;
}

Task<absl::StatusOr<ScheduleClient::Page>> ScheduleClient::List(CallContext& call, int page_size,
                                                                std::string after_name) {
  state::ListSchedulesRequest request;
  request.set_page_size(page_size);
  request.set_after_name(after_name);
  TUTTI_CO_ASSIGN_OR_RETURN(state::ListSchedulesResponse response, co_await state_.ListSchedules(call, request));
  Page out;
  for (const auto& stored : response.schedules()) out.schedules.push_back(Read(stored));
  out.has_more = response.has_more();
  out.now = FromProto(response.now());
  co_return out;
}

Task<absl::StatusOr<StoredSchedule>> ScheduleClient::Put(CallContext& call, StoredSchedule stored,
                                                         std::string audit_action) {
  v1::Schedule& schedule = stored.schedule;
  schedule.clear_next_times();
  state::PutScheduleRequest request;
  request.set_audit_action(audit_action);
  auto& row = *request.mutable_schedule();
  row.set_name(schedule.name());
  row.set_version(stored.version);
  row.set_workflow(schedule.workflow());
  row.set_paused(schedule.paused());
  row.mutable_definition()->set_media_type("application/x-protobuf");
  row.mutable_definition()->set_data(schedule.SerializeAsString());
  if (stored.version == 0) {
    // At once: its times are reckoned from the moment it is stored, by the store's clock.
    if (!schedule.paused()) row.mutable_next_time()->set_seconds(1);
  } else if (!schedule.paused()) {  // whatever has become of its calendar, it can be paused
    TUTTI_CO_ASSIGN_OR_RETURN(CalendarTimes times, TimesOf(schedule));
    const absl::Time next = NextLook(schedule, times, stored.now);
    if (next != absl::InfiniteFuture()) ToProto(next, row.mutable_next_time());
  }
  TUTTI_CO_ASSIGN_OR_RETURN(state::PutScheduleResponse response, co_await state_.PutSchedule(call, request));
  StoredSchedule out{Read(response.schedule()), response.schedule().version(), stored.now};
  co_return out;
}

Task<absl::StatusOr<StoredSchedule>> ScheduleClient::Change(CallContext& call, std::string name,
                                                            std::string audit_action, Edit edit) {
  absl::Status last;
  for (int i = 0; i < kTries; ++i) {
    TUTTI_CO_ASSIGN_OR_RETURN(StoredSchedule stored, co_await Get(call, name));
    absl::StatusOr<bool> write = edit(stored.schedule, stored.now, stored.version + 1);
    if (!write.ok()) co_return write.status();
    if (!*write) co_return stored;
    auto written = co_await Put(call, stored, audit_action);
    if (written.ok() || ReasonOf(written.status()) != "SCHEDULE_CHANGED") co_return written;
    last = written.status();
  }
  co_return last;
}

Task<absl::StatusOr<ScheduleClient::Claimed>> ScheduleClient::ClaimDue(CallContext& call, int limit,
                                                                       absl::Duration claim,
                                                                       state::InstanceRef instance) {
  state::ClaimDueSchedulesRequest request;
  request.set_limit(limit);
  *request.mutable_instance() = std::move(instance);
  ToProto(claim, request.mutable_claim_duration());
  TUTTI_CO_ASSIGN_OR_RETURN(state::ClaimDueSchedulesResponse response,
                            co_await state_.ClaimDueSchedules(call, request));
  Claimed out;
  for (const auto& stored : response.schedules()) {
    out.schedules.push_back({Read(stored), stored.version(), FromProto(response.now()), stored.strikes()});
  }
  if (response.has_next_in()) out.next_in = FromProto(response.next_in());
  co_return out;
}

Task<absl::Status> ScheduleClient::Delete(CallContext& call, std::string name) {
  state::DeleteScheduleRequest request;
  request.set_name(name);
  auto response = co_await state_.DeleteSchedule(call, request);
  co_return response.status();
}

}  // namespace tutti::engine
