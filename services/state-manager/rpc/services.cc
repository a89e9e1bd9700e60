// What makes the services: here, for gRPC's class templates are instantiated wherever a service is constructed or
// destroyed, which takes the compiler ten seconds.
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {

JournalRpc::JournalRpc(const RpcDeps& deps, StateStore& store)
    : env_(deps.env),
      shards_(deps.shards),
      hub_(deps.hub),
      journal_(store.journal),
      runs_(store.runs),
      ledger_(store.ledger),
      slowest_reader_(deps.slowest_reader) {}
JournalRpc::~JournalRpc() = default;

void JournalRpc::Offer(LocalMethods& local) {
  local_router_ = std::make_shared<AppendRouter>(shards_, journal_, ledger_);
  local.AddTaking(env_, "tutti.state.v1.JournalService/Append", *this, &JournalRpc::HandleLocalAppend);
  local.AddStream(env_, "tutti.state.v1.JournalService/ReadJournal", *this, &JournalRpc::HandleRead);
  local.AddStream(env_, "tutti.state.v1.JournalService/WatchJournal", *this, &JournalRpc::HandleWatch);
  local.Add(env_, "tutti.state.v1.JournalService/PublishText", *this, &JournalRpc::HandlePublish);
}

RunStoreRpc::RunStoreRpc(const RpcDeps& deps, StateStore& store)
    : env_(deps.env),
      shards_(deps.shards),
      runs_(store.runs),
      control_(store.control),
      journal_(store.journal),
      audit_(deps.audit),
      outbox_(store.outbox) {}
RunStoreRpc::~RunStoreRpc() = default;

void RunStoreRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.state.v1.RunStoreService/CreateRun", *this, &RunStoreRpc::HandleCreateRun);
  local.Add(env_, "tutti.state.v1.RunStoreService/GetRun", *this, &RunStoreRpc::HandleGetRun);
  local.Add(env_, "tutti.state.v1.RunStoreService/ListRuns", *this, &RunStoreRpc::HandleListRuns);
  local.Add(env_, "tutti.state.v1.RunStoreService/RequestCancel", *this, &RunStoreRpc::HandleRequestCancel);
  local.Add(env_, "tutti.state.v1.RunStoreService/TerminateRun", *this, &RunStoreRpc::HandleTerminateRun);
  local.Add(env_, "tutti.state.v1.RunStoreService/SignalRun", *this, &RunStoreRpc::HandleSignalRun);
  local.Add(env_, "tutti.state.v1.RunStoreService/SetRunPaused", *this, &RunStoreRpc::HandleSetRunPaused);
  local.Add(env_, "tutti.state.v1.RunStoreService/ReopenRun", *this, &RunStoreRpc::HandleReopenRun);
  local.Add(env_, "tutti.state.v1.RunStoreService/ForkRun", *this, &RunStoreRpc::HandleForkRun);
}

WorkflowStoreRpc::WorkflowStoreRpc(const RpcDeps& deps, const Workflows& workflows)
    : env_(deps.env), access_(deps.access), area_(workflows), audit_(deps.audit) {}
WorkflowStoreRpc::~WorkflowStoreRpc() = default;

void WorkflowStoreRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.state.v1.WorkflowStoreService/PutWorkflow", *this, &WorkflowStoreRpc::HandlePutWorkflow);
  local.Add(env_, "tutti.state.v1.WorkflowStoreService/GetWorkflow", *this, &WorkflowStoreRpc::HandleGetWorkflow);
  local.Add(env_, "tutti.state.v1.WorkflowStoreService/ListWorkflows", *this, &WorkflowStoreRpc::HandleListWorkflows);
}

LeaseRpc::LeaseRpc(const RpcDeps& deps, StateStore& store)
    : env_(deps.env), shards_(deps.shards), hub_(deps.hub), leases_(store.leases), journal_(store.journal) {}
LeaseRpc::~LeaseRpc() = default;

void LeaseRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.state.v1.LeaseService/RegisterInstance", *this, &LeaseRpc::HandleRegisterInstance);
  local.Add(env_, "tutti.state.v1.LeaseService/Heartbeat", *this, &LeaseRpc::HandleHeartbeat);
  local.Add(env_, "tutti.state.v1.LeaseService/ClaimRuns", *this, &LeaseRpc::HandleClaimRuns);
  local.Add(env_, "tutti.state.v1.LeaseService/ReleaseInstance", *this, &LeaseRpc::HandleReleaseInstance);
  local.AddStream(env_, "tutti.state.v1.LeaseService/WatchInstance", *this, &LeaseRpc::HandleWatch);
}

ContextRpc::ContextRpc(const RpcDeps& deps, const Contexts& contexts)
    : env_(deps.env),
      access_(deps.access),
      hub_(deps.hub),
      area_(contexts),
      audit_(deps.audit),
      slowest_reader_(deps.slowest_reader) {}
ContextRpc::~ContextRpc() = default;

MemoryRpc::MemoryRpc(const RpcDeps& deps, const Memories& memories, RemoteEmbedder* embedder)
    : env_(deps.env), access_(deps.access), area_(memories), audit_(deps.audit), embedder_(embedder) {}
MemoryRpc::~MemoryRpc() = default;

void MemoryRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.state.v1.MemoryService/SearchMemories", *this, &MemoryRpc::HandleSearchMemories);
  local.Add(env_, "tutti.state.v1.MemoryService/StoreMemory", *this, &MemoryRpc::HandleStoreMemory);
}

ConversationRpc::ConversationRpc(const RpcDeps& deps, const Conversations& conversations)
    : env_(deps.env), access_(deps.access), area_(conversations), audit_(deps.audit) {}
ConversationRpc::~ConversationRpc() = default;

CacheRpc::CacheRpc(const RpcDeps& deps, const StepCache& cache) : env_(deps.env), access_(deps.access), area_(cache) {}
CacheRpc::~CacheRpc() = default;

void CacheRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.state.v1.CacheService/GetCacheEntry", *this, &CacheRpc::HandleGetCacheEntry);
  local.Add(env_, "tutti.state.v1.CacheService/PutCacheEntry", *this, &CacheRpc::HandlePutCacheEntry);
}

ScheduleStoreRpc::ScheduleStoreRpc(const RpcDeps& deps, const Schedules& schedules)
    : env_(deps.env), access_(deps.access), area_(schedules), audit_(deps.audit) {}
ScheduleStoreRpc::~ScheduleStoreRpc() = default;

void ScheduleStoreRpc::Offer(LocalMethods& local) {
  local.Add(env_, "tutti.state.v1.ScheduleStoreService/PutSchedule", *this, &ScheduleStoreRpc::HandlePutSchedule);
  local.Add(env_, "tutti.state.v1.ScheduleStoreService/GetSchedule", *this, &ScheduleStoreRpc::HandleGetSchedule);
  local.Add(env_, "tutti.state.v1.ScheduleStoreService/ListSchedules", *this, &ScheduleStoreRpc::HandleListSchedules);
  local.Add(env_, "tutti.state.v1.ScheduleStoreService/DeleteSchedule", *this, &ScheduleStoreRpc::HandleDeleteSchedule);
  local.Add(env_, "tutti.state.v1.ScheduleStoreService/ClaimDueSchedules", *this,
            &ScheduleStoreRpc::HandleClaimDueSchedules);
}

SessionRpc::SessionRpc(const RpcDeps& deps, const Sessions& sessions)
    : env_(deps.env), access_(deps.access), area_(sessions), audit_(deps.audit) {}
SessionRpc::~SessionRpc() = default;

AuditRpc::AuditRpc(const RpcDeps& deps, const AuditLog& audit) : env_(deps.env), access_(deps.access), area_(audit) {}
AuditRpc::~AuditRpc() = default;

BudgetRpc::BudgetRpc(const RpcDeps& deps, const Ledger& ledger)
    : env_(deps.env), access_(deps.access), area_(ledger), audit_(deps.audit) {}
BudgetRpc::~BudgetRpc() = default;

}  // namespace tutti::state_manager
