#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/workflow-engine/domain/plan.h"
#include "services/workflow-engine/domain/validator.h"
#include "services/workflow-engine/rpc/services.h"

namespace tutti::engine {
namespace {

// Checked within some 10 ms.
constexpr size_t kSmallSpec = 32 << 10;

// Equal specs have equal bytes: maps are written in the order of their keys.
std::string Deterministic(const v1::WorkflowSpec& spec) {
  std::string out;
  google::protobuf::io::StringOutputStream stream(&out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  spec.SerializeToCodedStream(&coded);
  coded.Trim();
  return out;
}

v1::Workflow ToWorkflow(const state::StoredWorkflow& stored) {
  v1::Workflow out;
  out.set_name(stored.name());
  out.set_version(stored.version());
  out.set_description(stored.description());
  *out.mutable_create_time() = stored.create_time();
  if (stored.has_spec()) out.mutable_spec()->ParseFromString(stored.spec().data());
  return out;
}

void AddChanges(const std::string& path, const Json& before, const Json& after, v1::DiffWorkflowResponse* out) {
  if (before == after) return;
  if (before.is_object() && after.is_object()) {
    std::set<std::string> names;
    for (const auto& [name, value] : before.items()) names.insert(name);
    for (const auto& [name, value] : after.items()) names.insert(name);
    for (const auto& name : names) {
      AddChanges(path.empty() ? name : absl::StrCat(path, ".", name), before.value(name, Json()),
                 after.value(name, Json()), out);
    }
    return;
  }
  if (before.is_array() && after.is_array()) {
    for (size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
      AddChanges(absl::StrCat(path, "[", i, "]"), i < before.size() ? before[i] : Json(),
                 i < after.size() ? after[i] : Json(), out);
    }
    return;
  }
  auto* change = out->add_changes();
  change->set_path(path);
  if (!before.is_null()) ToProto(before, change->mutable_before());
  if (!after.is_null()) ToProto(after, change->mutable_after());
}

}  // namespace

Task<absl::StatusOr<KnownNames>> NameDirectory::Get(CallContext& call) {
  if (clock_.Now() - read_time_ > absl::Seconds(2)) {
    KnownNames fresh;
    TUTTI_CO_ASSIGN_OR_RETURN(fresh.agents, co_await agents_.Names(call));
    TUTTI_CO_ASSIGN_OR_RETURN(fresh.tools, co_await tools_.Names(call));
    known_ = std::move(fresh);
    read_time_ = clock_.Now();
  }
  co_return known_;
}

Task<absl::Status> SpecChecker::Check(CallContext& call, const v1::WorkflowSpec& spec, std::string field) {
  TUTTI_CO_ASSIGN_OR_RETURN(KnownNames known, co_await names_.Get(call));
  absl::Status status;
  if (worker_ == nullptr || spec.ByteSizeLong() <= kSmallSpec) {
    status = ValidateSpec(spec, known, evaluator_);
  } else {
    co_await ResumeOn(*worker_);
    status = ValidateSpec(spec, known, large_);
    co_await ResumeOn(*call.executor);
  }
  if (status.ok()) co_return status;
  std::vector<FieldViolation> violations = ViolationsOf(status);
  for (auto& violation : violations) violation.field = absl::StrCat(field, ".", violation.field);
  co_return Error(status.code(), ReasonOf(status), status.message()).Violations(std::move(violations));
}

Task<absl::Status> WorkflowRpc::HandlePlan(CallContext& call, const v1::PlanWorkflowRequest& request,
                                           v1::PlanWorkflowResponse& response) {
  v1::WorkflowSpec spec = request.spec();
  if (request.has_spec()) {
    TUTTI_CO_RETURN_IF_ERROR(co_await checker_.Check(call, request.spec(), "spec"));
  } else {
    state::GetWorkflowRequest get;
    get.set_name(request.workflow());
    TUTTI_CO_ASSIGN_OR_RETURN(state::GetWorkflowResponse stored, co_await state_.GetWorkflow(call, get));
    if (!spec.ParseFromString(stored.workflow().spec().data())) {
      co_return absl::DataLossError("the stored spec cannot be read");
    }
  }
  response = MakePlan(spec);
  co_return absl::OkStatus();
}

Task<absl::Status> WorkflowRpc::HandleDiff(CallContext& call, const v1::DiffWorkflowRequest& request,
                                           v1::DiffWorkflowResponse& response) {
  state::GetWorkflowRequest get;
  get.set_name(request.name());
  get.set_version(request.to_version());
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetWorkflowResponse to, co_await state_.GetWorkflow(call, get));
  get.set_version(request.from_version() > 0 ? request.from_version() : to.workflow().version() - 1);
  if (get.version() < 1) {
    co_return Error(absl::StatusCode::kNotFound, "WORKFLOW_NOT_FOUND",
                    absl::StrCat("workflow ", request.name(), " has no version before ", to.workflow().version()));
  }
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetWorkflowResponse from, co_await state_.GetWorkflow(call, get));
  response.set_from_version(from.workflow().version());
  response.set_to_version(to.workflow().version());
  AddChanges("", MessageToJson(ToWorkflow(from.workflow()).spec()), MessageToJson(ToWorkflow(to.workflow()).spec()),
             &response);
  co_return absl::OkStatus();
}

Task<absl::Status> WorkflowRpc::HandleCreate(CallContext& call, const v1::CreateWorkflowRequest& request,
                                             v1::CreateWorkflowResponse& response) {
  if (!request.has_spec()) {
    co_return Error(absl::StatusCode::kInvalidArgument, "MISSING_FIELD", "spec must be set")
        .Violation("spec", "must be set");
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await checker_.Check(call, request.spec(), "spec"));
  if (request.validate_only()) {
    response.mutable_workflow()->set_name(request.spec().name());
    response.mutable_workflow()->set_description(request.spec().description());
    *response.mutable_workflow()->mutable_spec() = request.spec();
    co_return absl::OkStatus();
  }
  state::PutWorkflowRequest put;
  put.mutable_workflow()->set_name(request.spec().name());
  put.mutable_workflow()->set_description(request.spec().description());
  put.mutable_workflow()->mutable_spec()->set_media_type("application/x-protobuf");
  put.mutable_workflow()->mutable_spec()->set_data(Deterministic(request.spec()));
  TUTTI_CO_ASSIGN_OR_RETURN(state::PutWorkflowResponse stored, co_await state_.PutWorkflow(call, put));
  *response.mutable_workflow() = ToWorkflow(stored.workflow());
  co_return absl::OkStatus();
}

Task<absl::Status> WorkflowRpc::HandleGet(CallContext& call, const v1::GetWorkflowRequest& request,
                                          v1::GetWorkflowResponse& response) {
  state::GetWorkflowRequest get;
  get.set_name(request.name());
  get.set_version(request.version());
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetWorkflowResponse stored, co_await state_.GetWorkflow(call, get));
  *response.mutable_workflow() = ToWorkflow(stored.workflow());
  co_return absl::OkStatus();
}

Task<absl::Status> WorkflowRpc::HandleList(CallContext& call, const v1::ListWorkflowsRequest& request,
                                           v1::ListWorkflowsResponse& response) {
  state::ListWorkflowsRequest list;
  TUTTI_CO_ASSIGN_OR_RETURN(int page_size, PageSize(request.page_size()));
  list.set_page_size(page_size);
  TUTTI_CO_ASSIGN_OR_RETURN(*list.mutable_after_name(), DecodePageToken(request.page_token(), "workflows"));
  TUTTI_CO_ASSIGN_OR_RETURN(state::ListWorkflowsResponse stored, co_await state_.ListWorkflows(call, list));
  for (const auto& workflow : stored.workflows()) *response.add_workflows() = ToWorkflow(workflow);
  if (stored.has_more()) {
    response.set_next_page_token(EncodePageToken(stored.workflows().rbegin()->name(), "workflows"));
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::engine
