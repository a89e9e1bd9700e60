// The unary methods of what is in the home database, but those of services with streams. Hot rows have one lane each
// (the ledger, the audit log's end, a tenant's memories): what waits for them is committed together instead of waiting
// for each other's commits.
#include "runtime/json/json.h"
#include "services/state-manager/rpc/services.h"
#include "services/state-manager/store/memory_rows.h"
#include "services/state-manager/store/scrubbing.h"

namespace tutti::state_manager {
namespace {

google::protobuf::Struct FilterDetails(const v1::ForgetMemoriesRequest& request) {
  google::protobuf::Struct out;
  Json json = MessageToJson(request);
  if (json.is_object() && DumpJson(json).size() < 8192) ToProto(json, &out);
  return out;
}

}  // namespace

TUTTI_AUDITED_METHOD(WorkflowStoreRpc, WorkflowStoreService, PutWorkflow, request.workflow().name(), "workflows.put",
                     "workflows/", request.workflow().name())
TUTTI_READ_METHOD(WorkflowStoreRpc, WorkflowStoreService, GetWorkflow, false)
TUTTI_READ_METHOD(WorkflowStoreRpc, WorkflowStoreService, ListWorkflows, true)

TUTTI_WRITE_METHOD(ConversationRpc, ConversationService, CreateConversation, request.conversation().conversation_id())
TUTTI_READ_METHOD(ConversationRpc, ConversationService, GetConversation, false)
TUTTI_READ_METHOD(ConversationRpc, ConversationService, ListConversations, true)
TUTTI_AUDITED_METHOD(ConversationRpc, ConversationService, DeleteConversation, request.conversation_id(),
                     "conversations.delete", "conversations/", request.conversation_id())
TUTTI_WRITE_METHOD(ConversationRpc, ConversationService, AppendMessages, request.conversation_id())
TUTTI_READ_METHOD(ConversationRpc, ConversationService, ListMessages, false)
TUTTI_READ_METHOD(ConversationRpc, ConversationService, GetWindow, false)
TUTTI_WRITE_METHOD(ConversationRpc, ConversationService, SummarizeMessages, request.conversation_id())

TUTTI_READ_METHOD(CacheRpc, CacheService, GetCacheEntry, false)
TUTTI_WRITE_METHOD(CacheRpc, CacheService, PutCacheEntry, absl::StrCat("step_cache/", request.key()))

TUTTI_READ_METHOD(ScheduleStoreRpc, ScheduleStoreService, GetSchedule, false)
TUTTI_READ_METHOD(ScheduleStoreRpc, ScheduleStoreService, ListSchedules, true)
TUTTI_AUDITED_METHOD(ScheduleStoreRpc, ScheduleStoreService, DeleteSchedule, request.name(), "schedules.delete",
                     "schedules/", request.name())

TUTTI_STORE_ENTRY_(ScheduleStoreRpc, ScheduleStoreService, PutSchedule) {
  v1::AppendAuditRecordRequest note =
      AuditNote(call, request.audit_action(), absl::StrCat("schedules/", request.schedule().name()));
  auto body = [&area = area_, &audit = audit_, request, note](Transaction& tx, v1::PutScheduleResponse& out) {
    absl::Status done = area.PutSchedule(tx, request, out);
    v1::AppendAuditRecordResponse noted;
    return done.ok() && !request.audit_action().empty() ? audit.AppendAuditRecord(tx, note, noted) : done;
  };
  TUTTI_CO_ASSIGN_OR_RETURN(
      response, co_await access_.Write<v1::PutScheduleResponse>(*call.executor, call.deadline,
                                                                LaneOf(request.schedule().name()), std::move(body)));
  co_return absl::OkStatus();
}

// Asked for all the time, and rarely with something to write.
TUTTI_STORE_ENTRY_(ScheduleStoreRpc, ScheduleStoreService, ClaimDueSchedules) {
  struct Ahead {
    v1::ClaimDueSchedulesResponse response;
    bool due = false;
  };
  auto look = [&area = area_](Transaction& tx, Ahead& out) {
    auto due = area.LookAhead(tx, out.response);
    if (due.ok()) out.due = *due;
    return due.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(Ahead ahead, co_await access_.Read<Ahead>(*call.executor, call.deadline,
                                                                      /*allow_stale=*/false, std::move(look)));
  if (!ahead.due) {
    response = std::move(ahead.response);
    co_return absl::OkStatus();
  }
  auto body = [&area = area_, request](Transaction& tx, v1::ClaimDueSchedulesResponse& out) {
    return area.ClaimDueSchedules(tx, request, out);
  };
  TUTTI_CO_ASSIGN_OR_RETURN(response, co_await access_.Write<v1::ClaimDueSchedulesResponse>(
                                          *call.executor, call.deadline, LaneOf("schedules"), std::move(body)));
  co_return absl::OkStatus();
}

TUTTI_AUDITED_METHOD(SessionRpc, SessionService, CreateSession, request.session().user_id(), "sessions.create",
                     "users/", request.session().user_id())
TUTTI_WRITE_METHOD(SessionRpc, SessionService, AuthenticateSession, request.token())
TUTTI_READ_METHOD(SessionRpc, SessionService, ListSessions, false)
TUTTI_AUDITED_METHOD(SessionRpc, SessionService, RevokeSessions, request.user_id(), "sessions.revoke",
                     request.user_id().empty() ? "sessions/" : "users/", request.session_id(), request.user_id())

TUTTI_WRITE_METHOD(AuditRpc, AuditService, AppendAuditRecord, "audit")
TUTTI_READ_METHOD(AuditRpc, AuditService, ListAuditRecords, true)
TUTTI_READ_METHOD(AuditRpc, AuditService, VerifyAuditLog, false)

TUTTI_AUDITED_METHOD(BudgetRpc, BudgetService, SetBudget, "ledger", "budgets.set", "budgets/", request.budget().scope())
TUTTI_READ_METHOD(BudgetRpc, BudgetService, GetBudget, false)
TUTTI_READ_METHOD(BudgetRpc, BudgetService, ListBudgets, true)
TUTTI_AUDITED_METHOD(BudgetRpc, BudgetService, DeleteBudget, "ledger", "budgets.delete", "budgets/", request.scope())
TUTTI_WRITE_METHOD(BudgetRpc, BudgetService, Reserve, "ledger")
TUTTI_WRITE_METHOD(BudgetRpc, BudgetService, Settle, "ledger")
TUTTI_WRITE_METHOD(BudgetRpc, BudgetService, Release, "ledger")
TUTTI_READ_METHOD(BudgetRpc, BudgetService, ReportSpending, true)

TUTTI_STORE_ENTRY_(MemoryRpc, MemoryService, StoreMemory) {
  v1::StoreMemoryRequest store = request;
  const std::string& content = request.memory().content();
  bool fits = !content.empty() && content.size() <= kMaxMemoryBytes;  // else the store says so
  if (embedder_ && request.memory().embedding().empty() && fits) {
    TUTTI_CO_ASSIGN_OR_RETURN(std::vector<float> vector, co_await embedder_->Embed(call, request.memory().content()));
    store.mutable_memory()->mutable_embedding()->Assign(vector.begin(), vector.end());
    store.mutable_memory()->set_embedder(embedder_->name());
  }
  auto body = [&area = area_, store = std::move(store)](Transaction& tx, v1::StoreMemoryResponse& out) {
    return area.StoreMemory(tx, store, out);
  };
  TUTTI_CO_ASSIGN_OR_RETURN(
      response, co_await access_.Write<v1::StoreMemoryResponse>(*call.executor, call.deadline,
                                                                LaneOf(request.memory().tenant()), std::move(body)));
  co_return absl::OkStatus();
}
TUTTI_READ_METHOD(MemoryRpc, MemoryService, GetMemory, false)
TUTTI_READ_METHOD(MemoryRpc, MemoryService, ListMemories, true)
TUTTI_AUDITED_METHOD(MemoryRpc, MemoryService, DeleteMemory, request.memory_id(), "memories.delete", "memories/",
                     request.memory_id())

// In batches, between which other writers have their turn; the record comes with the first, the scrubbing at the end.
TUTTI_STORE_ENTRY_(MemoryRpc, MemoryService, ForgetMemories) {
  v1::AppendAuditRecordRequest note = AuditNote(
      call, "memories.forget", absl::StrCat("tenants/", request.filter().tenant(), "/memories"), TenantOf(request));
  *note.mutable_record()->mutable_details() = FilterDetails(request);
  for (bool first = true, more = true; more; first = false) {
    auto body = [&area = area_, &audit = audit_, request, note, first](Transaction& tx,
                                                                       v1::ForgetMemoriesResponse& out) {
      absl::Status done = area.ForgetMemories(tx, request, out);
      v1::AppendAuditRecordResponse noted;
      return done.ok() && first ? audit.AppendAuditRecord(tx, note, noted) : done;
    };
    TUTTI_CO_ASSIGN_OR_RETURN(v1::ForgetMemoriesResponse batch,
                              co_await access_.Write<v1::ForgetMemoriesResponse>(
                                  *call.executor, call.deadline, LaneOf(request.filter().tenant()), std::move(body)));
    response.set_forgotten(response.forgotten() + batch.forgotten());
    more = batch.forgotten() == Memories::kForgetBatch;
  }
  if (response.forgotten() == 0) co_return absl::OkStatus();
  absl::Status scrubbed = co_await ScrubMemories(access_, *call.executor, call.deadline, area_);
  co_return scrubbed;
}

// A search is a read; that it brought what it brought is noted by a write nobody waits for.
TUTTI_STORE_ENTRY_(MemoryRpc, MemoryService, SearchMemories) {
  v1::SearchMemoriesRequest search = request;
  bool fits = !request.query().empty() && request.query().size() <= kMaxMemoryBytes;
  if (embedder_ && request.embedding().empty() && fits) {
    TUTTI_CO_ASSIGN_OR_RETURN(std::vector<float> vector, co_await embedder_->Embed(call, request.query()));
    search.mutable_embedding()->Assign(vector.begin(), vector.end());
    search.set_embedder(embedder_->name());
  }
  auto body = [&area = area_, search = std::move(search)](Transaction& tx, v1::SearchMemoriesResponse& out) {
    return area.SearchMemories(tx, search, out);
  };
  TUTTI_CO_ASSIGN_OR_RETURN(response, co_await access_.Read<v1::SearchMemoriesResponse>(*call.executor, call.deadline,
                                                                                        false, std::move(body)));
  std::vector<std::string> brought;
  for (const auto& hit : response.hits()) brought.push_back(hit.memory().memory_id());
  if (!brought.empty()) {
    WriteOp touch;
    touch.lane = LaneOf(request.filter().tenant());
    touch.apply = [&area = area_, brought = std::move(brought)](Transaction& tx) { return area.Touch(tx, brought); };
    touch.finish = [](const absl::Status&) {};  // at the worst a memory looks a little older than it is
    access_.database().Write(std::move(touch));
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::state_manager
