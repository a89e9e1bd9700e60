// The state-manager's unary methods, for coroutines.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/rpc/local_methods.h"
#include "tutti/state/v1/cache_service.pb.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/state/v1/lease_service.pb.h"
#include "tutti/state/v1/memory_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"
#include "tutti/state/v1/schedule_store_service.pb.h"
#include "tutti/state/v1/workflow_store_service.pb.h"

namespace tutti::engine {

namespace state = tutti::state::v1;

class StateClient {
 public:
  StateClient(RpcPeer state_manager, const LocalMethods& local) : local_(local), peer_(std::move(state_manager)) {}

#define TUTTI_STATE_CALL(Service, Name)                                                                 \
  Task<absl::StatusOr<state::Name##Response>> Name(CallContext& call, state::Name##Request request) {   \
    state::Name##Response response;                                                                     \
    absl::Status status = co_await CallUnary(local_, call, peer_, "tutti.state.v1." #Service "/" #Name, \
                                             std::move(request), response, absl::Seconds(10));          \
    if (!status.ok()) co_return status;                                                                 \
    co_return std::move(response);                                                                      \
  }
  TUTTI_STATE_CALL(RunStoreService, CreateRun)
  TUTTI_STATE_CALL(RunStoreService, GetRun)
  TUTTI_STATE_CALL(RunStoreService, ListRuns)
  TUTTI_STATE_CALL(RunStoreService, RequestCancel)
  TUTTI_STATE_CALL(RunStoreService, TerminateRun)
  TUTTI_STATE_CALL(RunStoreService, SignalRun)
  TUTTI_STATE_CALL(RunStoreService, SetRunPaused)
  TUTTI_STATE_CALL(RunStoreService, ReopenRun)
  TUTTI_STATE_CALL(RunStoreService, ForkRun)
  TUTTI_STATE_CALL(CacheService, GetCacheEntry)
  TUTTI_STATE_CALL(CacheService, PutCacheEntry)
  TUTTI_STATE_CALL(MemoryService, SearchMemories)
  TUTTI_STATE_CALL(MemoryService, StoreMemory)
  TUTTI_STATE_CALL(WorkflowStoreService, PutWorkflow)
  TUTTI_STATE_CALL(WorkflowStoreService, GetWorkflow)
  TUTTI_STATE_CALL(WorkflowStoreService, ListWorkflows)
  TUTTI_STATE_CALL(LeaseService, RegisterInstance)
  TUTTI_STATE_CALL(LeaseService, Heartbeat)
  TUTTI_STATE_CALL(LeaseService, ClaimRuns)
  TUTTI_STATE_CALL(LeaseService, ReleaseInstance)
  TUTTI_STATE_CALL(ScheduleStoreService, PutSchedule)
  TUTTI_STATE_CALL(ScheduleStoreService, GetSchedule)
  TUTTI_STATE_CALL(ScheduleStoreService, ListSchedules)
  TUTTI_STATE_CALL(ScheduleStoreService, DeleteSchedule)
  TUTTI_STATE_CALL(ScheduleStoreService, ClaimDueSchedules)
#undef TUTTI_STATE_CALL

  // Streams; `call` outlives them.
#define TUTTI_STATE_STREAM(Service, Name)                                                                         \
  std::unique_ptr<ReadStream<state::Name##Response>> Name(CallContext& call, const state::Name##Request& request, \
                                                          absl::Duration timeout) {                               \
    return OpenStream<state::Name##Response>(local_, call, peer_, "tutti.state.v1." #Service "/" #Name, request,  \
                                             timeout);                                                            \
  }
  TUTTI_STATE_STREAM(JournalService, ReadJournal)
  TUTTI_STATE_STREAM(JournalService, WatchJournal)
  TUTTI_STATE_STREAM(LeaseService, WatchInstance)
#undef TUTTI_STATE_STREAM

 private:
  const LocalMethods& local_;
  const RpcPeer peer_;
};

}  // namespace tutti::engine
