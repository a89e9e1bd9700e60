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
  local.AddBidi(env_, "tutti.state.v1.JournalService/Append", *this, &JournalRpc::HandleAppend);
  // For callers in this process a unary method, for what a stream saves is the transport's.
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
  TUTTI_OFFER(RunStoreRpc, RunStoreService, CreateRun);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, GetRun);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, ListRuns);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, RequestCancel);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, TerminateRun);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, SignalRun);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, SetRunPaused);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, ReopenRun);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, ForkRun);
  TUTTI_OFFER(RunStoreRpc, RunStoreService, ListUsage);
}

WorkflowStoreRpc::WorkflowStoreRpc(const RpcDeps& deps, const Workflows& workflows)
    : env_(deps.env), access_(deps.access), area_(workflows), audit_(deps.audit) {}
WorkflowStoreRpc::~WorkflowStoreRpc() = default;

void WorkflowStoreRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(WorkflowStoreRpc, WorkflowStoreService, PutWorkflow);
  TUTTI_OFFER(WorkflowStoreRpc, WorkflowStoreService, GetWorkflow);
  TUTTI_OFFER(WorkflowStoreRpc, WorkflowStoreService, ListWorkflows);
}

LeaseRpc::LeaseRpc(const RpcDeps& deps, StateStore& store)
    : env_(deps.env), shards_(deps.shards), hub_(deps.hub), leases_(store.leases), journal_(store.journal) {}
LeaseRpc::~LeaseRpc() = default;

void LeaseRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(LeaseRpc, LeaseService, RegisterInstance);
  TUTTI_OFFER(LeaseRpc, LeaseService, Heartbeat);
  TUTTI_OFFER(LeaseRpc, LeaseService, ClaimRuns);
  TUTTI_OFFER(LeaseRpc, LeaseService, ReleaseInstance);
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

void ContextRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(ContextRpc, ContextService, CreateContext);
  TUTTI_OFFER(ContextRpc, ContextService, GetContext);
  TUTTI_OFFER(ContextRpc, ContextService, ListContexts);
  TUTTI_OFFER(ContextRpc, ContextService, UpdateContext);
  TUTTI_OFFER(ContextRpc, ContextService, DiffContext);
  TUTTI_OFFER(ContextRpc, ContextService, ListContextVersions);
  TUTTI_OFFER(ContextRpc, ContextService, SetContextView);
  TUTTI_OFFER(ContextRpc, ContextService, DeleteContext);
  local.AddStream(env_, "tutti.state.v1.ContextService/WatchContext", *this, &ContextRpc::HandleWatch);
}

MemoryRpc::MemoryRpc(const RpcDeps& deps, const Memories& memories, RemoteEmbedder* embedder)
    : env_(deps.env), access_(deps.access), area_(memories), audit_(deps.audit), embedder_(embedder) {}
MemoryRpc::~MemoryRpc() = default;

void MemoryRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(MemoryRpc, MemoryService, StoreMemory);
  TUTTI_OFFER(MemoryRpc, MemoryService, GetMemory);
  TUTTI_OFFER(MemoryRpc, MemoryService, ListMemories);
  TUTTI_OFFER(MemoryRpc, MemoryService, SearchMemories);
  TUTTI_OFFER(MemoryRpc, MemoryService, DeleteMemory);
  TUTTI_OFFER(MemoryRpc, MemoryService, ForgetMemories);
}

ConversationRpc::ConversationRpc(const RpcDeps& deps, const Conversations& conversations)
    : env_(deps.env), access_(deps.access), area_(conversations), audit_(deps.audit) {}
ConversationRpc::~ConversationRpc() = default;

void ConversationRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(ConversationRpc, ConversationService, CreateConversation);
  TUTTI_OFFER(ConversationRpc, ConversationService, GetConversation);
  TUTTI_OFFER(ConversationRpc, ConversationService, ListConversations);
  TUTTI_OFFER(ConversationRpc, ConversationService, DeleteConversation);
  TUTTI_OFFER(ConversationRpc, ConversationService, AppendMessages);
  TUTTI_OFFER(ConversationRpc, ConversationService, ListMessages);
  TUTTI_OFFER(ConversationRpc, ConversationService, GetWindow);
  TUTTI_OFFER(ConversationRpc, ConversationService, SummarizeMessages);
}

CacheRpc::CacheRpc(const RpcDeps& deps, const StepCache& cache) : env_(deps.env), access_(deps.access), area_(cache) {}
CacheRpc::~CacheRpc() = default;

void CacheRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(CacheRpc, CacheService, GetCacheEntry);
  TUTTI_OFFER(CacheRpc, CacheService, PutCacheEntry);
}

ScheduleStoreRpc::ScheduleStoreRpc(const RpcDeps& deps, const Schedules& schedules)
    : env_(deps.env), access_(deps.access), area_(schedules), audit_(deps.audit) {}
ScheduleStoreRpc::~ScheduleStoreRpc() = default;

void ScheduleStoreRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(ScheduleStoreRpc, ScheduleStoreService, PutSchedule);
  TUTTI_OFFER(ScheduleStoreRpc, ScheduleStoreService, GetSchedule);
  TUTTI_OFFER(ScheduleStoreRpc, ScheduleStoreService, ListSchedules);
  TUTTI_OFFER(ScheduleStoreRpc, ScheduleStoreService, DeleteSchedule);
  TUTTI_OFFER(ScheduleStoreRpc, ScheduleStoreService, ClaimDueSchedules);
}

SessionRpc::SessionRpc(const RpcDeps& deps, const Sessions& sessions)
    : env_(deps.env), access_(deps.access), area_(sessions), audit_(deps.audit) {}
SessionRpc::~SessionRpc() = default;

void SessionRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(SessionRpc, SessionService, CreateSession);
  TUTTI_OFFER(SessionRpc, SessionService, AuthenticateSession);
  TUTTI_OFFER(SessionRpc, SessionService, ListSessions);
  TUTTI_OFFER(SessionRpc, SessionService, RevokeSessions);
}

AuditRpc::AuditRpc(const RpcDeps& deps, const AuditLog& audit) : env_(deps.env), access_(deps.access), area_(audit) {}
AuditRpc::~AuditRpc() = default;

void AuditRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(AuditRpc, AuditService, AppendAuditRecord);
  TUTTI_OFFER(AuditRpc, AuditService, ListAuditRecords);
  TUTTI_OFFER(AuditRpc, AuditService, VerifyAuditLog);
}

MessageRpc::MessageRpc(const RpcDeps& deps, const Outbox& outbox)
    : env_(deps.env), shards_(deps.shards), outbox_(outbox), audit_(deps.audit), access_(deps.access) {}
MessageRpc::~MessageRpc() = default;

void MessageRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(MessageRpc, MessageService, ListSetAsideMessages);
  TUTTI_OFFER(MessageRpc, MessageService, RetrySetAsideMessage);
}

BudgetRpc::BudgetRpc(const RpcDeps& deps, const Ledger& ledger)
    : env_(deps.env), access_(deps.access), area_(ledger), audit_(deps.audit) {}
BudgetRpc::~BudgetRpc() = default;

void BudgetRpc::Offer(LocalMethods& local) {
  TUTTI_OFFER(BudgetRpc, BudgetService, SetBudget);
  TUTTI_OFFER(BudgetRpc, BudgetService, GetBudget);
  TUTTI_OFFER(BudgetRpc, BudgetService, ListBudgets);
  TUTTI_OFFER(BudgetRpc, BudgetService, DeleteBudget);
  TUTTI_OFFER(BudgetRpc, BudgetService, Reserve);
  TUTTI_OFFER(BudgetRpc, BudgetService, Settle);
  TUTTI_OFFER(BudgetRpc, BudgetService, Release);
  TUTTI_OFFER(BudgetRpc, BudgetService, ReportSpending);
}

}  // namespace tutti::state_manager
