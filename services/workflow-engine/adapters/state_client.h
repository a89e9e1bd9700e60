// The state-manager's unary methods, for coroutines.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/rpc/local_methods.h"
#include "tutti/state/v1/cache_service.grpc.pb.h"
#include "tutti/state/v1/journal_service.grpc.pb.h"
#include "tutti/state/v1/lease_service.grpc.pb.h"
#include "tutti/state/v1/memory_service.grpc.pb.h"
#include "tutti/state/v1/run_store_service.grpc.pb.h"
#include "tutti/state/v1/schedule_store_service.grpc.pb.h"
#include "tutti/state/v1/workflow_store_service.grpc.pb.h"

namespace tutti::engine {

namespace state = tutti::state::v1;

class StateClient {
 public:
  StateClient(const std::shared_ptr<grpc::Channel>& channel, const LocalMethods& local)
      : local_(local),
        runs_(state::RunStoreService::NewStub(channel)),
        workflows_(state::WorkflowStoreService::NewStub(channel)),
        leases_(state::LeaseService::NewStub(channel)),
        journal_(state::JournalService::NewStub(channel)),
        cache_(state::CacheService::NewStub(channel)),
        memories_(state::MemoryService::NewStub(channel)),
        schedules_(state::ScheduleStoreService::NewStub(channel)) {}

#define TUTTI_STATE_CALL(Service, stub, Name)                                                                \
  Task<absl::StatusOr<state::Name##Response>> Name(CallContext& call, state::Name##Request request) {        \
    using Async = state::Service::StubInterface::async_interface;                                            \
    state::Name##Response response;                                                                          \
    absl::Status status =                                                                                    \
        co_await CallUnary(local_, call, *stub->async(), &Async::Name, "tutti.state.v1." #Service "/" #Name, \
                           std::move(request), response, absl::Seconds(10));                                 \
    if (!status.ok()) co_return status;                                                                      \
    co_return std::move(response);                                                                           \
  }
  TUTTI_STATE_CALL(RunStoreService, runs_, CreateRun)
  TUTTI_STATE_CALL(RunStoreService, runs_, GetRun)
  TUTTI_STATE_CALL(RunStoreService, runs_, ListRuns)
  TUTTI_STATE_CALL(RunStoreService, runs_, RequestCancel)
  TUTTI_STATE_CALL(RunStoreService, runs_, TerminateRun)
  TUTTI_STATE_CALL(RunStoreService, runs_, SignalRun)
  TUTTI_STATE_CALL(RunStoreService, runs_, SetRunPaused)
  TUTTI_STATE_CALL(RunStoreService, runs_, ReopenRun)
  TUTTI_STATE_CALL(RunStoreService, runs_, ForkRun)
  TUTTI_STATE_CALL(CacheService, cache_, GetCacheEntry)
  TUTTI_STATE_CALL(CacheService, cache_, PutCacheEntry)
  TUTTI_STATE_CALL(MemoryService, memories_, SearchMemories)
  TUTTI_STATE_CALL(MemoryService, memories_, StoreMemory)
  TUTTI_STATE_CALL(WorkflowStoreService, workflows_, PutWorkflow)
  TUTTI_STATE_CALL(WorkflowStoreService, workflows_, GetWorkflow)
  TUTTI_STATE_CALL(WorkflowStoreService, workflows_, ListWorkflows)
  TUTTI_STATE_CALL(LeaseService, leases_, RegisterInstance)
  TUTTI_STATE_CALL(LeaseService, leases_, Heartbeat)
  TUTTI_STATE_CALL(LeaseService, leases_, ClaimRuns)
  TUTTI_STATE_CALL(LeaseService, leases_, ReleaseInstance)
  TUTTI_STATE_CALL(ScheduleStoreService, schedules_, PutSchedule)
  TUTTI_STATE_CALL(ScheduleStoreService, schedules_, GetSchedule)
  TUTTI_STATE_CALL(ScheduleStoreService, schedules_, ListSchedules)
  TUTTI_STATE_CALL(ScheduleStoreService, schedules_, DeleteSchedule)
  TUTTI_STATE_CALL(ScheduleStoreService, schedules_, ClaimDueSchedules)
#undef TUTTI_STATE_CALL

  // Streams; `call` outlives them.
#define TUTTI_STATE_STREAM(Service, stub, Name)                                                                   \
  std::unique_ptr<ReadStream<state::Name##Response>> Name(CallContext& call, const state::Name##Request& request, \
                                                          absl::Duration timeout) {                               \
    using Async = state::Service::StubInterface::async_interface;                                                 \
    return OpenStream(local_, call, *stub->async(), &Async::Name, "tutti.state.v1." #Service "/" #Name, request,  \
                      timeout);                                                                                   \
  }
  TUTTI_STATE_STREAM(JournalService, journal_, ReadJournal)
  TUTTI_STATE_STREAM(JournalService, journal_, WatchJournal)
  TUTTI_STATE_STREAM(LeaseService, leases_, WatchInstance)
#undef TUTTI_STATE_STREAM

 private:
  const LocalMethods& local_;
  std::unique_ptr<state::RunStoreService::StubInterface> runs_;
  std::unique_ptr<state::WorkflowStoreService::StubInterface> workflows_;
  std::unique_ptr<state::LeaseService::StubInterface> leases_;
  std::unique_ptr<state::JournalService::StubInterface> journal_;
  std::unique_ptr<state::CacheService::StubInterface> cache_;
  std::unique_ptr<state::MemoryService::StubInterface> memories_;
  std::unique_ptr<state::ScheduleStoreService::StubInterface> schedules_;
};

}  // namespace tutti::engine
