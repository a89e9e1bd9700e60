// The public service of schedules.
#pragma once

#include <functional>

#include "runtime/random/random.h"
#include "runtime/rpc/local_methods.h"
#include "services/workflow-engine/adapters/schedule_client.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/schedule_service.pb.h"

namespace tutti::engine {

class ScheduleRpc final {
 public:
  using StartRun = std::function<Task<absl::StatusOr<state::CreateRunResponse>>(
      CallContext& call, const tutti::workflow::v1::StartRunRequest& request)>;
  // Whether StartRun would take the request.
  using CheckStart =
      std::function<Task<absl::Status>(CallContext& call, const tutti::workflow::v1::StartRunRequest& request)>;
  ScheduleRpc(ServerEnv& env, ScheduleClient& schedules, StartRun start, CheckStart check);
  ~ScheduleRpc();
  void Offer(LocalMethods& local);

 private:
#define TUTTI_SCHEDULE_METHOD(Name)                                                                     \
  Task<absl::Status> Handle##Name(CallContext& call, const tutti::workflow::v1::Name##Request& request, \
                                  tutti::workflow::v1::Name##Response& response)

  TUTTI_SCHEDULE_METHOD(CreateSchedule);
  TUTTI_SCHEDULE_METHOD(GetSchedule);
  TUTTI_SCHEDULE_METHOD(ListSchedules);
  TUTTI_SCHEDULE_METHOD(UpdateSchedule);
  TUTTI_SCHEDULE_METHOD(DeleteSchedule);
  TUTTI_SCHEDULE_METHOD(PauseSchedule);
  TUTTI_SCHEDULE_METHOD(ResumeSchedule);
  TUTTI_SCHEDULE_METHOD(TriggerSchedule);
  TUTTI_SCHEDULE_METHOD(ListScheduleTimes);
#undef TUTTI_SCHEDULE_METHOD
  ServerEnv& env_;
  ScheduleClient& schedules_;
  const StartRun start_;
  const CheckStart check_;
};

}  // namespace tutti::engine
