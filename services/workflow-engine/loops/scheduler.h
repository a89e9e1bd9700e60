// Starts the runs of schedules when their times are due. Any number of engines do: one claims a schedule for a while,
// and a run's request_id is made of the schedule and the time, so that whoever dies or is late starts nothing twice.
#pragma once

#include <functional>

#include "runtime/process/service_server.h"
#include "services/workflow-engine/adapters/schedule_client.h"
#include "services/workflow-engine/adapters/state_client.h"
#include "services/workflow-engine/domain/schedule.h"
#include "tutti/workflow/v1/run_service.pb.h"

namespace prometheus {
template <class T>
class Family;
class Counter;
}  // namespace prometheus

namespace tutti::engine {

class Scheduler {
 public:
  using StartRun = std::function<Task<absl::StatusOr<state::CreateRunResponse>>(
      CallContext& call, const tutti::workflow::v1::StartRunRequest& request)>;
  // Returns this engine, as its leases name it now.
  using Instance = std::function<state::InstanceRef()>;
  Scheduler(Instance instance, ServiceServer& serving, StateClient& state, ScheduleClient& schedules, StartRun start);
  ~Scheduler() { Stop(); }

  void Start();
  void Stop();

 private:
  Task<void> Loop();
  Task<absl::Status> Keep(StoredSchedule stored);
  // Forgets the runs that have ended; pauses the schedule when one failed, and it wants that.
  Task<absl::Status> LookAtRunning(CallContext& call, tutti::workflow::v1::Schedule& schedule, int64_t version);
  // Starts what waits and what is due; the schedule's state is what was done, also when something fails.
  Task<absl::Status> KeepTimes(CallContext& call, tutti::workflow::v1::Schedule& schedule, const CalendarTimes& times,
                               absl::Time now);
  Task<absl::Status> ActOn(CallContext& call, tutti::workflow::v1::Schedule& schedule, absl::Time time);
  Task<absl::Status> StartOne(CallContext& call, tutti::workflow::v1::Schedule& schedule, absl::Time time);
  // Writes what was done; a caller's change in between stands.
  Task<absl::Status> Write(CallContext& call, StoredSchedule stored, std::string state_before, bool paused_itself);
  void Count(const char* outcome, int64_t by = 1);

  const Instance instance_;
  ServiceServer& serving_;
  StateClient& state_;
  ScheduleClient& schedules_;
  const StartRun start_;
  prometheus::Family<prometheus::Counter>& actions_;
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::engine
