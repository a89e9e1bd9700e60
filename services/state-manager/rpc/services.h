// The state-manager's gRPC services: each method maps a call to the store and its answer back.
#pragma once

#include "runtime/rpc/local_methods.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/ports/remote_embedder.h"
#include "services/state-manager/rpc/append_router.h"
#include "services/state-manager/rpc/methods.h"
#include "services/state-manager/store/shards.h"
#include "services/state-manager/store/state_store.h"
#include "tutti/state/v1/audit_service.pb.h"
#include "tutti/state/v1/budget_service.pb.h"
#include "tutti/state/v1/cache_service.pb.h"
#include "tutti/state/v1/context_service.pb.h"
#include "tutti/state/v1/conversation_service.pb.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/state/v1/lease_service.pb.h"
#include "tutti/state/v1/memory_service.pb.h"
#include "tutti/state/v1/message_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"
#include "tutti/state/v1/schedule_store_service.pb.h"
#include "tutti/state/v1/session_service.pb.h"
#include "tutti/state/v1/workflow_store_service.pb.h"

namespace tutti::state_manager {

// What the services share.
struct RpcDeps {
  ServerEnv& env;
  Access& access;  // the home database
  const Shards& shards;
  WatchHub& hub;
  const AuditLog& audit;
  absl::Duration slowest_reader;  // of a watch; a slower one is sent away with its token
};

class JournalRpc final {
 public:
  JournalRpc(const RpcDeps& deps, StateStore& store);
  ~JournalRpc();
  void Offer(LocalMethods& local);

 private:
  Task<absl::Status> HandleLocalAppend(CallContext& call, v1::AppendRequest&& request, v1::AppendResponse& response);
  Task<absl::Status> HandleAppend(CallContext& call, StreamReader<v1::AppendRequest>& reader,
                                  BehindWriter<v1::AppendResponse>& writer);
  Task<absl::Status> HandleRead(CallContext& call, const v1::ReadJournalRequest& request,
                                StreamWriter<v1::ReadJournalResponse>& writer);
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchJournalRequest& request,
                                 StreamWriter<v1::WatchJournalResponse>& writer);
  Task<absl::Status> HandlePublish(CallContext& call, const v1::PublishTextRequest& request,
                                   v1::PublishTextResponse& response);
  Task<absl::StatusOr<v1::ReadJournalResponse>> ReadPage(CallContext& call, std::string run_id, int64_t after,
                                                         bool inbox_only = false);
  Task<absl::StatusOr<bool>> HasEnded(CallContext& call, std::string run_id);
  Task<absl::Status> SendSnapshot(CallContext& call, std::string run_id, int64_t& after,
                                  StreamWriter<v1::ReadJournalResponse>& writer);
  ServerEnv& env_;
  const Shards& shards_;
  WatchHub& hub_;
  Journal& journal_;
  const Runs& runs_;
  const Ledger& ledger_;
  const absl::Duration slowest_reader_;
  std::shared_ptr<AppendRouter> local_router_;
};

class RunStoreRpc final {
 public:
  RunStoreRpc(const RpcDeps& deps, StateStore& store);
  ~RunStoreRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(CreateRun);
  TUTTI_STORE_METHOD(GetRun);
  TUTTI_STORE_METHOD(ListRuns);
  TUTTI_STORE_METHOD(RequestCancel);
  TUTTI_STORE_METHOD(TerminateRun);
  TUTTI_STORE_METHOD(SignalRun);
  TUTTI_STORE_METHOD(SetRunPaused);
  TUTTI_STORE_METHOD(ReopenRun);
  TUTTI_STORE_METHOD(ForkRun);
  TUTTI_STORE_METHOD(ListUsage);
  // What a caller does to a run, with the record of it.
  template <class Request, class Response>
  Task<absl::Status> Control(CallContext& call, const Request& request, Response& response, absl::string_view action,
                             absl::Status (RunControl::*method)(Transaction&, const Request&, Response&) const);
  // Writes a record of the audit log with what was done to the run.
  absl::Status Note(Transaction& tx, const std::string& run_id, v1::AppendAuditRecordRequest note) const;
  // Creates a run under its request id, which is claimed first where runs are spread; false: another has it.
  Task<absl::StatusOr<bool>> ClaimRequest(CallContext& call, v1::StoredRun& run);

  ServerEnv& env_;
  const Shards& shards_;
  const Runs& runs_;
  const RunControl& control_;
  Journal& journal_;
  const AuditLog& audit_;
  const Outbox& outbox_;
};

class WorkflowStoreRpc final {
 public:
  WorkflowStoreRpc(const RpcDeps& deps, const Workflows& workflows);
  ~WorkflowStoreRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(PutWorkflow);
  TUTTI_STORE_METHOD(GetWorkflow);
  TUTTI_STORE_METHOD(ListWorkflows);
  ServerEnv& env_;
  Access& access_;
  const Workflows& area_;
  const AuditLog& audit_;
};

class LeaseRpc final {
 public:
  LeaseRpc(const RpcDeps& deps, StateStore& store);
  ~LeaseRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(RegisterInstance);
  TUTTI_STORE_METHOD(Heartbeat);
  TUTTI_STORE_METHOD(ClaimRuns);
  TUTTI_STORE_METHOD(ReleaseInstance);
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchInstanceRequest& request,
                                 StreamWriter<v1::WatchInstanceResponse>& writer);
  // The same request to every database, side by side: one that is away does not keep the others from their work.
  template <class Request, class Response>
  Task<std::vector<absl::StatusOr<Response>>> Everywhere(CallContext& call, Request request,
                                                         absl::Status (Leases::*method)(Transaction&, const Request&,
                                                                                        Response&) const);
  ServerEnv& env_;
  const Shards& shards_;
  WatchHub& hub_;
  // Runs that nobody works on: as they were a while ago when there are so many that counting them takes long.
  Task<void> CountClaimable(CallContext& call);
  Task<void> Count(std::shared_ptr<OneShot<bool>> done);

  const Leases& leases_;
  const Journal& journal_;
  std::vector<std::map<std::string, int64_t>> claimable_;  // by database, by tenant
  bool counting_ = false;
  absl::Time count_again_ = absl::InfinitePast();
};

class ContextRpc final {
 public:
  ContextRpc(const RpcDeps& deps, const Contexts& contexts);
  ~ContextRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(CreateContext);
  TUTTI_STORE_METHOD(GetContext);
  TUTTI_STORE_METHOD(ListContexts);
  TUTTI_STORE_METHOD(UpdateContext);
  TUTTI_STORE_METHOD(DiffContext);
  TUTTI_STORE_METHOD(ListContextVersions);
  TUTTI_STORE_METHOD(SetContextView);
  TUTTI_STORE_METHOD(DeleteContext);
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchContextRequest& request,
                                 StreamWriter<v1::WatchContextResponse>& writer);
  ServerEnv& env_;
  Access& access_;
  WatchHub& hub_;
  const Contexts& area_;
  const AuditLog& audit_;
  const absl::Duration slowest_reader_;
};

class MemoryRpc final {
 public:
  // Without an embedder, the store's own is used.
  MemoryRpc(const RpcDeps& deps, const Memories& memories, RemoteEmbedder* embedder);
  ~MemoryRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(StoreMemory);
  TUTTI_STORE_METHOD(GetMemory);
  TUTTI_STORE_METHOD(ListMemories);
  TUTTI_STORE_METHOD(SearchMemories);
  TUTTI_STORE_METHOD(DeleteMemory);
  TUTTI_STORE_METHOD(ForgetMemories);
  ServerEnv& env_;
  Access& access_;
  const Memories& area_;
  const AuditLog& audit_;
  RemoteEmbedder* embedder_;
};

class ConversationRpc final {
 public:
  ConversationRpc(const RpcDeps& deps, const Conversations& conversations);
  ~ConversationRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(CreateConversation);
  TUTTI_STORE_METHOD(GetConversation);
  TUTTI_STORE_METHOD(ListConversations);
  TUTTI_STORE_METHOD(DeleteConversation);
  TUTTI_STORE_METHOD(AppendMessages);
  TUTTI_STORE_METHOD(ListMessages);
  TUTTI_STORE_METHOD(GetWindow);
  TUTTI_STORE_METHOD(SummarizeMessages);
  ServerEnv& env_;
  Access& access_;
  const Conversations& area_;
  const AuditLog& audit_;
};

class CacheRpc final {
 public:
  CacheRpc(const RpcDeps& deps, const StepCache& cache);
  ~CacheRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(GetCacheEntry);
  TUTTI_STORE_METHOD(PutCacheEntry);
  ServerEnv& env_;
  Access& access_;
  const StepCache& area_;
};

class ScheduleStoreRpc final {
 public:
  ScheduleStoreRpc(const RpcDeps& deps, const Schedules& schedules);
  ~ScheduleStoreRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(PutSchedule);
  TUTTI_STORE_METHOD(GetSchedule);
  TUTTI_STORE_METHOD(ListSchedules);
  TUTTI_STORE_METHOD(DeleteSchedule);
  TUTTI_STORE_METHOD(ClaimDueSchedules);
  ServerEnv& env_;
  Access& access_;
  const Schedules& area_;
  const AuditLog& audit_;
};

class SessionRpc final {
 public:
  SessionRpc(const RpcDeps& deps, const Sessions& sessions);
  ~SessionRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(CreateSession);
  TUTTI_STORE_METHOD(AuthenticateSession);
  TUTTI_STORE_METHOD(ListSessions);
  TUTTI_STORE_METHOD(RevokeSessions);
  ServerEnv& env_;
  Access& access_;
  const Sessions& area_;
  const AuditLog& audit_;
};

class AuditRpc final {
 public:
  AuditRpc(const RpcDeps& deps, const AuditLog& audit);
  ~AuditRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(AppendAuditRecord);
  TUTTI_STORE_METHOD(ListAuditRecords);
  TUTTI_STORE_METHOD(VerifyAuditLog);
  ServerEnv& env_;
  Access& access_;
  const AuditLog& area_;
};

class MessageRpc final {
 public:
  MessageRpc(const RpcDeps& deps, const Outbox& outbox);
  ~MessageRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(ListSetAsideMessages);
  TUTTI_STORE_METHOD(RetrySetAsideMessage);
  ServerEnv& env_;
  const Shards& shards_;
  const Outbox& outbox_;
  const AuditLog& audit_;
  Access& access_;  // the audit log's
};

class BudgetRpc final {
 public:
  BudgetRpc(const RpcDeps& deps, const Ledger& ledger);
  ~BudgetRpc();
  void Offer(LocalMethods& local);

 private:
  TUTTI_STORE_METHOD(SetBudget);
  TUTTI_STORE_METHOD(GetBudget);
  TUTTI_STORE_METHOD(ListBudgets);
  TUTTI_STORE_METHOD(DeleteBudget);
  TUTTI_STORE_METHOD(Reserve);
  TUTTI_STORE_METHOD(Settle);
  TUTTI_STORE_METHOD(Release);
  TUTTI_STORE_METHOD(ReportSpending);
  ServerEnv& env_;
  Access& access_;
  const Ledger& area_;
  const AuditLog& audit_;
};

}  // namespace tutti::state_manager
