#include "services/workflow-engine/adapters/grpc_children.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/text/digest.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/budget.h"
#include "services/workflow-engine/domain/run_view.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {
namespace {

constexpr char kLessonTag[] = "lesson";
constexpr size_t kMaxLessonBytes = 16384;
constexpr int kMostLevels = 20;
constexpr int64_t kMaxInputBytes = int64_t{4} << 20;

}  // namespace

int GrpcChildren::DepthOf(const state::StoredRun& run) {
  auto label = run.labels().find("tutti.depth");
  int depth = 0;
  if (label != run.labels().end()) (void)absl::SimpleAtoi(label->second, &depth);
  return depth;
}

std::string GrpcChildren::RootOf(const state::StoredRun& run) {
  auto label = run.labels().find("tutti.root");
  return label == run.labels().end() ? run.run_id() : label->second;
}

Task<absl::StatusOr<std::string>> GrpcChildren::StartChild(CallContext& call, Attempt attempt, Start start) {
  if (depth_ >= kMostLevels) {
    co_return Error(absl::StatusCode::kFailedPrecondition, "TOO_MANY_LEVELS",
                    absl::StrCat(depth_, " runs stand above this one already; does a workflow start itself?"));
  }
  TUTTI_CO_RETURN_IF_ERROR(descendants_.Add(root_));
  state::GetWorkflowRequest get;
  get.set_name(start.workflow);
  get.set_version(start.version);
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetWorkflowResponse stored, co_await state_.GetWorkflow(call, get));
  state::CreateRunRequest create;
  state::StoredRun& run = *create.mutable_run();
  tutti::workflow::v1::WorkflowSpec spec;
  if (!spec.ParseFromString(stored.workflow().spec().data())) {
    co_return absl::DataLossError("the stored spec cannot be read");
  }
  if (spec.has_input_schema()) {
    TUTTI_CO_RETURN_IF_ERROR(ValidateJson(ToJson(spec.input_schema()), start.input, "input"));
  }
  run.set_run_id(ids_.NewUlid());
  // The attempt's key: whoever repeats the attempt finds the same child. No caller's request id has a slash in it.
  run.set_request_id(absl::StrCat("child/", HexDigest(attempt.idempotency_key)));
  run.set_tenant(tenant_);
  run.set_priority(start.priority);
  run.set_workflow(stored.workflow().name());
  run.set_workflow_version(stored.workflow().version());
  *run.mutable_spec() = stored.workflow().spec();
  if (start.budget.ByteSizeLong() > 0) {
    Tighten(start.budget, spec.mutable_budget());
    run.mutable_spec()->set_data(spec.SerializeAsString());
  }
  // Callers' runs are checked in the same way (RunRpc::CheckInput).
  ToPayload(start.input, run.mutable_input());
  if (JsonDepth(run.input().data()) > kMaxJsonDepth) {
    co_return Error(
        absl::StatusCode::kInvalidArgument, "INVALID_REQUEST",
        absl::StrCat("the input of workflow ", start.workflow, " is nested deeper than ", kMaxJsonDepth, " levels"));
  }
  if (static_cast<int64_t>(run.input().data().size()) > kMaxInputBytes) {
    co_return Error(absl::StatusCode::kResourceExhausted, "INPUT_TOO_LARGE",
                    absl::StrCat("the input of workflow ", start.workflow, " has ", run.input().data().size(),
                                 " bytes, the limit is ", kMaxInputBytes, "; pass large documents by reference"));
  }
  run.set_pattern(PatternOf(spec));
  run.set_traceparent(call.trace.ToTraceparent());
  run.set_parent_run_id(attempt.run_id);
  (*run.mutable_labels())["tutti.parent"] = attempt.run_id;
  (*run.mutable_labels())["tutti.root"] = root_;
  (*run.mutable_labels())["tutti.depth"] = absl::StrCat(depth_ + 1);
  TUTTI_CO_ASSIGN_OR_RETURN(state::CreateRunResponse created, co_await state_.CreateRun(call, create));
  co_return created.run().run_id();
}

Task<absl::StatusOr<ChildPort::Look>> GrpcChildren::LookAtChild(CallContext& call, std::string run_id) {
  state::GetRunRequest get;
  get.set_run_id(run_id);
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetRunResponse stored, co_await state_.GetRun(call, get));
  const state::StoredRun& run = stored.run();
  Look out;
  out.used = run.usage();
  // Of a run within a budget its end also says what those have consumed that it has started.
  tutti::workflow::v1::WorkflowSpec spec;
  const bool ended = run.outcome() != state::OUTCOME_UNSPECIFIED;
  if (ended && run.last_seq() > 0 && spec.ParseFromString(run.spec().data()) && spec.has_budget()) {
    state::ReadJournalRequest read;
    read.set_run_id(run_id);
    read.set_after_seq(run.last_seq() - 1);
    auto stream = state_.ReadJournal(call, read, absl::Seconds(10));
    state::ReadJournalResponse page;
    while (co_await stream->Read(page)) {
      for (const auto& entry : page.entries()) {
        if (entry.run_finished().has_spent()) out.used = entry.run_finished().spent();
      }
    }
    TUTTI_CO_RETURN_IF_ERROR(co_await stream->Finish());
  }
  if (run.outcome() == state::OUTCOME_SUCCEEDED) {
    out.end = FromPayload(run.output());
  } else if (run.outcome() != state::OUTCOME_UNSPECIFIED) {
    absl::Status error = FromRpcStatus(run.error());
    // A cancelled child is a failure of the step, which its handlers may catch: the parent itself is not cancelled.
    out.end = absl::IsCancelled(error) ? absl::AbortedError(error.message()) : error;
  }
  co_return out;
}

Task<absl::Status> GrpcChildren::CancelChild(CallContext& call, std::string run_id) {
  state::RequestCancelRequest cancel;
  cancel.set_run_id(run_id);
  cancel.set_reason("the run that waits for it was cancelled");
  auto answer = co_await state_.RequestCancel(call, cancel);
  co_return answer.status();
}

Task<absl::StatusOr<std::vector<std::string>>> GrpcLessons::Recall(CallContext& call, std::string agent,
                                                                   std::string about, int limit) {
  state::SearchMemoriesRequest search;
  search.set_query(about);
  search.set_max_results(limit);
  search.mutable_filter()->set_tenant(tenant_);
  search.mutable_filter()->set_agent(agent);
  search.mutable_filter()->add_kinds(state::MEMORY_KIND_LONG_TERM);
  search.mutable_filter()->add_tags(kLessonTag);
  TUTTI_CO_ASSIGN_OR_RETURN(state::SearchMemoriesResponse found, co_await state_.SearchMemories(call, search));
  std::vector<std::string> out;
  for (const auto& hit : found.hits()) out.push_back(hit.memory().content());
  co_return out;
}

Task<absl::Status> GrpcLessons::Learn(CallContext& call, Attempt attempt, std::string agent, std::string lesson,
                                      double importance) {
  state::StoreMemoryRequest store;
  auto* memory = store.mutable_memory();
  memory->set_memory_id(absl::StrCat("lesson-", HexDigest(attempt.idempotency_key)));
  memory->set_tenant(tenant_);
  memory->set_agent(agent);
  memory->set_kind(state::MEMORY_KIND_LONG_TERM);
  memory->set_content(std::string(Utf8Prefix(lesson, kMaxLessonBytes)));
  memory->add_tags(kLessonTag);
  memory->set_importance(importance);
  auto answer = co_await state_.StoreMemory(call, store);
  co_return answer.status();
}

Task<absl::StatusOr<std::optional<Json>>> GrpcCache::Get(CallContext& call, std::string key) {
  state::GetCacheEntryRequest get;
  get.set_tenant(tenant_);
  get.set_key(key);
  auto answer = co_await state_.GetCacheEntry(call, get);
  std::optional<Json> out;
  if (absl::IsNotFound(answer.status())) co_return out;
  TUTTI_CO_RETURN_IF_ERROR(answer.status());
  TUTTI_CO_ASSIGN_OR_RETURN(out, FromPayload(answer->value()));
  co_return out;
}

Task<absl::Status> GrpcCache::Put(CallContext& call, std::string key, Json value, absl::Duration ttl) {
  state::PutCacheEntryRequest put;
  put.set_tenant(tenant_);
  put.set_key(key);
  ToPayload(value, put.mutable_value());
  put.mutable_ttl()->set_seconds(absl::ToInt64Seconds(ttl));
  auto answer = co_await state_.PutCacheEntry(call, put);
  co_return answer.status();
}

}  // namespace tutti::engine
