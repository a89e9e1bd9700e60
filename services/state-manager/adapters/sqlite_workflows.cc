// Definitions.
#include "runtime/status/macros.h"
#include "services/state-manager/adapters/sqlite_rows.h"
#include "services/state-manager/adapters/sqlite_store_access.h"

namespace tutti::state_manager {
namespace {

v1::StoredWorkflow WorkflowFromRow(const Statement& row, bool with_spec) {
  v1::StoredWorkflow workflow;
  workflow.set_name(row.Text(0));
  workflow.set_version(row.Int(1));
  workflow.set_description(row.Text(2));
  SetMicros(row.Int(3), workflow.mutable_create_time());
  if (with_spec) {
    workflow.mutable_spec()->set_media_type("application/x-protobuf");
    workflow.mutable_spec()->set_data(row.Text(4));
  }
  return workflow;
}

}  // namespace

Task<absl::StatusOr<v1::PutWorkflowResponse>> SqliteStore::PutWorkflow(Executor& executor,
                                                                       v1::PutWorkflowRequest request) {
  auto apply = [&](SqliteDb& db, News&, absl::StatusOr<v1::PutWorkflowResponse>& answer) -> absl::Status {
    answer = v1::PutWorkflowResponse();
    int64_t version = 0;
    {
      Statement latest = db.Prepare(
          "SELECT name, version, description, create_time, spec FROM workflows WHERE name = ? ORDER BY version DESC "
          "LIMIT 1");
      latest.Bind(request.workflow().name());
      if (latest.Step()) {
        *answer->mutable_workflow() = WorkflowFromRow(latest, /*with_spec=*/true);
        version = answer->workflow().version();
        if (answer->workflow().spec().data() == request.workflow().spec().data()) return absl::OkStatus();
      }
      TUTTI_RETURN_IF_ERROR(latest.status());
    }
    *answer->mutable_workflow() = request.workflow();
    answer->mutable_workflow()->set_version(version + 1);
    SetMicros(NowMicros(), answer->mutable_workflow()->mutable_create_time());
    Statement insert = db.Prepare("INSERT INTO workflows VALUES (?,?,?,?,?)");
    insert.Bind(request.workflow().name()).Bind(version + 1).Bind(request.workflow().description());
    insert.BindBlob(request.workflow().spec().data()).Bind(ToMicros(answer->workflow().create_time()));
    return insert.Run();
  };
  auto answer = co_await Write<v1::PutWorkflowResponse>(executor, apply);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::GetWorkflowResponse>> SqliteStore::GetWorkflow(Executor& executor,
                                                                       v1::GetWorkflowRequest request) {
  auto query = [&](SqliteDb& db) -> absl::StatusOr<v1::GetWorkflowResponse> {
    Statement row = db.Prepare(
        "SELECT name, version, description, create_time, spec FROM workflows WHERE name = ?1 AND (?2 = 0 OR version = "
        "?2) "
        "ORDER BY version DESC LIMIT 1");
    row.Bind(request.name()).Bind(request.version());
    v1::GetWorkflowResponse out;
    if (!row.Step()) {
      TUTTI_RETURN_IF_ERROR(row.status());
      std::string version = request.version() == 0 ? "" : absl::StrCat(" version ", request.version());
      return Error(absl::StatusCode::kNotFound, "WORKFLOW_NOT_FOUND",
                   absl::StrCat("workflow \"", request.name(), "\"", version,
                                " does not exist; `tutti workflows list` shows those that do"))
          .Metadata("workflow", request.name());
    }
    *out.mutable_workflow() = WorkflowFromRow(row, /*with_spec=*/true);
    return out;
  };
  auto answer = co_await Read<v1::GetWorkflowResponse>(executor, query);
  co_return std::move(answer);
}

Task<absl::StatusOr<v1::ListWorkflowsResponse>> SqliteStore::ListWorkflows(Executor& executor,
                                                                           v1::ListWorkflowsRequest request) {
  auto query = [&](SqliteDb& db) -> absl::StatusOr<v1::ListWorkflowsResponse> {
    Statement rows = db.Prepare(
        "SELECT name, max(version), description, create_time FROM workflows WHERE name > ? GROUP BY name ORDER BY name "
        "LIMIT ?");
    rows.Bind(request.after_name()).Bind(request.page_size() + 1);
    v1::ListWorkflowsResponse out;
    while (rows.Step()) {
      if (out.workflows_size() == request.page_size()) {
        out.set_has_more(true);
        break;
      }
      *out.add_workflows() = WorkflowFromRow(rows, /*with_spec=*/false);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    return out;
  };
  auto answer = co_await Read<v1::ListWorkflowsResponse>(executor, query);
  co_return std::move(answer);
}

}  // namespace tutti::state_manager
