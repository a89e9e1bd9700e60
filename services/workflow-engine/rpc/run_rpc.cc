#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/retry.h"
#include "services/workflow-engine/domain/run_view.h"
#include "services/workflow-engine/rpc/services.h"

namespace tutti::engine {
namespace {

absl::Status CheckRequest(const v1::StartRunRequest& request) {
  if (request.definition_case() == v1::StartRunRequest::DEFINITION_NOT_SET) {
    return Invalid("workflow", "one of workflow (a stored one's name) and spec must be set");
  }
  if (request.workflow_version() < 0) return Invalid("workflow_version", "must not be negative");
  if (request.request_id().size() > 36) return Invalid("request_id", "must have at most 36 characters");
  for (unsigned char c : request.request_id()) {
    if (c < 0x21 || c > 0x7e) return Invalid("request_id", "must be printable ASCII without spaces");
  }
  TUTTI_RETURN_IF_ERROR(CheckTenant("tenant", request.tenant()));
  TUTTI_RETURN_IF_ERROR(CheckPriority("priority", request.priority()));
  const auto& wait = request.wait_timeout();
  if (wait.seconds() < 0 || wait.nanos() < 0 || wait.seconds() > 300) {
    return Invalid("wait_timeout", "must be 0 to 300 s");
  }
  if (request.labels_size() > 64) return Invalid("labels", "must have at most 64 entries");
  for (const auto& [key, value] : request.labels()) {
    if (key.empty() || key.size() > 63) return Invalid("labels", "a key must have 1 to 63 characters");
    if (absl::StartsWith(key, "tutti.")) {
      return Invalid(absl::StrCat("labels.", key), "labels that begin with \"tutti.\" are set by Tutti itself");
    }
    if (value.size() > 255) return Invalid(absl::StrCat("labels.", key), "must have at most 255 characters");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunRpc::CheckInput(const v1::WorkflowSpec& spec, const Json& input, state::StoredRun* run) const {
  if (spec.has_input_schema()) TUTTI_RETURN_IF_ERROR(ValidateJson(ToJson(spec.input_schema()), input, "input"));
  ToPayload(input, run->mutable_input());
  if (JsonDepth(run->input().data()) > kMaxJsonDepth) return Invalid("input", "is nested deeper than 30 levels");
  if (static_cast<int64_t>(run->input().data().size()) > max_input_bytes_) {
    return Error(absl::StatusCode::kResourceExhausted, "INPUT_TOO_LARGE",
                 absl::StrCat("the input has ", run->input().data().size(), " bytes, the limit is ", max_input_bytes_,
                              "; pass large documents by reference"))
        .Metadata("limit", absl::StrCat(max_input_bytes_));
  }
  return absl::OkStatus();
}

// The latest definition, unless the request names a version; checked when it is the request's own.
Task<absl::StatusOr<state::CreateRunResponse>> RunRpc::Create(CallContext& call, const v1::StartRunRequest& request) {
  Json input = request.has_input() ? ToJson(request.input()) : Json::object();
  const std::string run_id = IsUlid(call.call_id) ? call.call_id : ids_.NewUlid();
  auto begin = [&](state::CreateRunRequest& create) -> state::StoredRun& {
    state::StoredRun& run = *create.mutable_run();
    run.set_run_id(run_id);
    run.set_request_id(request.request_id());
    run.set_tenant(request.tenant());
    run.set_priority(request.priority());
    run.set_traceparent(call.trace.ToTraceparent());
    for (const auto& [key, value] : request.labels()) (*run.mutable_labels())[key] = value;
    run.mutable_spec()->set_media_type("application/x-protobuf");
    return run;
  };
  if (request.has_spec()) {
    TUTTI_CO_RETURN_IF_ERROR(co_await checker_.Check(call, request.spec(), "spec"));
    state::CreateRunRequest create;
    state::StoredRun& run = begin(create);
    TUTTI_CO_RETURN_IF_ERROR(CheckInput(request.spec(), input, &run));
    run.set_workflow(request.spec().name());
    run.mutable_spec()->set_data(request.spec().SerializeAsString());
    run.set_pattern(PatternOf(request.spec()));
    auto created = co_await host_.CreateRun(call, std::move(create));
    co_return created;
  }
  // The latest version is taken from memory, and refused by the store when it is not the latest any more.
  for (bool fresh : {false, true}) {
    TUTTI_CO_ASSIGN_OR_RETURN(auto definition,
                              co_await library_.Get(call, request.workflow(), request.workflow_version(), fresh));
    state::CreateRunRequest create;
    state::StoredRun& run = begin(create);
    TUTTI_CO_RETURN_IF_ERROR(CheckInput(definition->spec, input, &run));
    run.set_workflow(definition->name);
    run.set_workflow_version(definition->version);
    run.mutable_spec()->set_data(definition->bytes);
    run.set_pattern(PatternOf(definition->spec));
    create.set_check_latest(request.workflow_version() == 0 && !fresh);
    auto created = co_await host_.CreateRun(call, std::move(create));
    if (fresh || ReasonOf(created.status()) != "WORKFLOW_CHANGED") co_return created;
  }
  co_return absl::InternalError("unreachable");
}

Task<absl::Status> RunRpc::CheckStart(CallContext& call, const v1::StartRunRequest& request) {
  TUTTI_CO_ASSIGN_OR_RETURN(auto definition, co_await library_.Get(call, request.workflow(), request.workflow_version(),
                                                                   /*fresh=*/true));
  Json input = request.has_input() ? ToJson(request.input()) : Json::object();
  state::StoredRun ignored;
  co_return CheckInput(definition->spec, input, &ignored);
}

Task<absl::Status> RunRpc::HandleStart(CallContext& call, const v1::StartRunRequest& request,
                                       v1::StartRunResponse& response) {
  absl::Time begin = env_.clock.Now();
  TUTTI_CO_RETURN_IF_ERROR(CheckRequest(request));
  TUTTI_CO_ASSIGN_OR_RETURN(state::CreateRunResponse created, co_await Create(call, request));
  *response.mutable_run() = ToRun(created.run(), /*with_payloads=*/true);
  if (!request.has_wait_timeout()) co_return absl::OkStatus();
  absl::Status waited = co_await AwaitEnd(call, begin + FromProto(request.wait_timeout()), response.mutable_run());
  co_return waited;
}

Task<absl::StatusOr<state::StoredRun>> RunRpc::Load(CallContext& call, std::string run_id) {
  state::GetRunRequest get;
  get.set_run_id(run_id);
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetRunResponse stored, co_await state_.GetRun(call, get));
  co_return std::move(*stored.mutable_run());
}

Task<absl::Status> RunRpc::AwaitEnd(CallContext& call, absl::Time deadline, v1::Run* run) {
  deadline = std::min(deadline, call.deadline - absl::Milliseconds(50));
  // Of a run that is worked on here, its end is known without asking.
  if (auto end = co_await host_.AwaitEnd(call, run->run_id(), deadline)) {
    ApplyEnd(*end, run);
    co_return absl::OkStatus();
  }
  while (!IsEnded(run->state()) && env_.clock.Now() < deadline) {
    CallContext watching = call;
    watching.deadline = deadline;
    state::WatchJournalRequest watch;
    watch.set_run_id(run->run_id());
    auto stream = state_.WatchJournal(watching, watch, absl::InfiniteDuration());
    state::WatchJournalResponse page;
    while (co_await stream->Read(page)) {
    }
    absl::Status ended = co_await stream->Finish();
    if (call.stop.stop_requested()) co_return absl::CancelledError("the caller has gone");
    auto stored = co_await Load(call, run->run_id());
    if (stored.ok()) *run = ToRun(*stored, /*with_payloads=*/true);
    if (!ended.ok() && !absl::IsUnavailable(ended) && !absl::IsAborted(ended)) break;  // the time is over
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RunRpc::HandleGet(CallContext& call, const v1::GetRunRequest& request,
                                     v1::GetRunResponse& response) {
  TUTTI_CO_ASSIGN_OR_RETURN(state::StoredRun stored, co_await Load(call, request.run_id()));
  *response.mutable_run() = ToRun(stored, /*with_payloads=*/true);
  state::ReadJournalRequest read;
  read.set_run_id(request.run_id());
  auto stream = state_.ReadJournal(call, read, absl::Seconds(30));
  state::ReadJournalResponse page;
  StepRecords steps(*response.mutable_run(), request.outputs());
  while (co_await stream->Read(page)) {
    for (const auto& entry : page.entries()) steps.Apply(entry);
  }
  absl::Status status = co_await stream->Finish();
  co_return status;
}

Task<absl::Status> RunRpc::HandleList(CallContext& call, const v1::ListRunsRequest& request,
                                      v1::ListRunsResponse& response) {
  state::ListRunsRequest list;
  TUTTI_CO_RETURN_IF_ERROR(ParseRunFilter(request.filter(), &list));
  TUTTI_CO_ASSIGN_OR_RETURN(int page_size, PageSize(request.page_size()));
  list.set_page_size(page_size);
  TUTTI_CO_ASSIGN_OR_RETURN(*list.mutable_before_run_id(),
                            DecodePageToken(request.page_token(), absl::StrCat("runs/", request.filter())));
  TUTTI_CO_ASSIGN_OR_RETURN(state::ListRunsResponse stored, co_await state_.ListRuns(call, list));
  for (const auto& run : stored.runs()) *response.add_runs() = ToRun(run, /*with_payloads=*/false);
  if (stored.has_more()) {
    response.set_next_page_token(
        EncodePageToken(stored.runs().rbegin()->run_id(), absl::StrCat("runs/", request.filter())));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RunRpc::HandleCancel(CallContext& call, const v1::CancelRunRequest& request,
                                        v1::CancelRunResponse& response) {
  if (request.reason().size() > 1000) co_return Invalid("reason", "must have at most 1000 characters");
  state::RequestCancelRequest cancel;
  cancel.set_run_id(request.run_id());
  cancel.set_reason(request.reason());
  TUTTI_CO_ASSIGN_OR_RETURN(state::RequestCancelResponse stored, co_await state_.RequestCancel(call, cancel));
  *response.mutable_run() = ToRun(stored.run(), /*with_payloads=*/false);
  co_return absl::OkStatus();
}

Task<absl::Status> RunRpc::HandleWatch(CallContext& call, const v1::WatchRunRequest& request,
                                       StreamWriter<v1::WatchRunResponse>& writer) {
  if (request.after_offset() < 0) co_return Invalid("after_offset", "must not be negative");
  int32_t progress = 0;
  if (request.texts() && request.after_offset() > 0) {  // a text before the first event says what was reached
    TUTTI_CO_ASSIGN_OR_RETURN(state::StoredRun stored, co_await Load(call, request.run_id()));
    progress = stored.progress_percent();
  }
  state::WatchJournalRequest watch;
  watch.set_run_id(request.run_id());
  watch.set_after_seq(request.after_offset());
  watch.set_texts(request.texts());
  auto stream = state_.WatchJournal(call, watch, absl::InfiniteDuration());
  bool open = true;
  int64_t offset = request.after_offset();
  state::WatchJournalResponse page;
  while (open) {
    const bool more = co_await stream->Read(page);
    if (!more) break;
    for (const auto& text : page.texts()) {
      v1::WatchRunResponse out;
      *out.mutable_event() = ToEvent(text, env_.clock.Now());
      out.mutable_event()->set_offset(offset);
      out.mutable_event()->set_progress_percent(progress);
      open = co_await writer.Write(out);
      if (!open) break;
    }
    for (const auto& entry : page.entries()) {
      if (!open) break;
      v1::WatchRunResponse out;
      *out.mutable_event() = ToEvent(entry, request.run_id());
      offset = entry.seq();
      progress = out.event().progress_percent();
      open = co_await writer.Write(out);
    }
  }
  if (!open) stream->Cancel();
  absl::Status status = co_await stream->Finish();
  co_return open ? status : absl::CancelledError("the watcher has gone");
}

}  // namespace tutti::engine
