#include "services/state-manager/store/workflows.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

#define TUTTI_WORKFLOW_COLUMNS "SELECT name, version, description, create_time, spec FROM workflows "

std::string OwnerOf(absl::string_view name, int64_t version) { return absl::StrCat("workflows/", name, "/", version); }

}  // namespace

absl::StatusOr<v1::StoredWorkflow> Workflows::FromRow(Transaction& tx, const Statement& row, bool with_spec) const {
  v1::StoredWorkflow workflow;
  workflow.set_name(row.Text(0));
  workflow.set_version(row.Int(1));
  workflow.set_description(row.Text(2));
  SetMicros(row.Int(3), workflow.mutable_create_time());
  if (with_spec) {
    workflow.mutable_spec()->set_media_type("application/x-protobuf");
    TUTTI_ASSIGN_OR_RETURN(*workflow.mutable_spec()->mutable_data(),
                           payloads_.Get(tx, OwnerOf(workflow.name(), workflow.version()), "spec", row.Bytes(4)));
  }
  return workflow;
}

absl::Status Workflows::PutWorkflow(Transaction& tx, const v1::PutWorkflowRequest& request,
                                    v1::PutWorkflowResponse& response) const {
  const v1::StoredWorkflow& given = request.workflow();
  int64_t version = 0;
  {
    Statement latest = tx.Prepare(TUTTI_WORKFLOW_COLUMNS "WHERE name = $1 ORDER BY version DESC LIMIT 1 FOR UPDATE");
    latest.Bind(given.name());
    if (latest.Step()) {
      TUTTI_ASSIGN_OR_RETURN(*response.mutable_workflow(), FromRow(tx, latest, /*with_spec=*/true));
      version = response.workflow().version();
      if (response.workflow().spec().data() == given.spec().data()) return absl::OkStatus();
    }
    TUTTI_RETURN_IF_ERROR(latest.status());
  }
  ++version;
  *response.mutable_workflow() = given;
  response.mutable_workflow()->set_version(version);
  const int64_t now = tx.NowMicros();
  SetMicros(now, response.mutable_workflow()->mutable_create_time());
  TUTTI_ASSIGN_OR_RETURN(std::string spec,
                         payloads_.Put(tx, OwnerOf(given.name(), version), "spec", given.spec().data()));
  Statement insert = tx.Prepare(
      "INSERT INTO workflows (name, version, description, spec, create_time) VALUES ($1, $2, $3, $4, $5) ON CONFLICT "
      "DO "
      "NOTHING");
  TUTTI_RETURN_IF_ERROR(insert.BindAll(given.name(), version, given.description(), SqlArg::Bytes(spec), now).Run());
  if (insert.Changes() > 0) return absl::OkStatus();
  return Error(absl::StatusCode::kAborted, "WORKFLOW_CHANGED",
               absl::StrCat("workflow \"", given.name(), "\" was changed by another call at the same time; try again"))
      .RetryAfter(absl::Milliseconds(50));
}

absl::Status Workflows::GetWorkflow(Transaction& tx, const v1::GetWorkflowRequest& request,
                                    v1::GetWorkflowResponse& response) const {
  Statement row =
      tx.Prepare(TUTTI_WORKFLOW_COLUMNS
                 "WHERE name = $1 AND ($2::bigint = 0 OR version = $2::bigint) ORDER BY version DESC LIMIT 1");
  row.BindAll(request.name(), request.version());
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    std::string version = request.version() == 0 ? "" : absl::StrCat(" version ", request.version());
    return Error(absl::StatusCode::kNotFound, "WORKFLOW_NOT_FOUND",
                 absl::StrCat("workflow \"", request.name(), "\"", version,
                              " does not exist; `tutti workflows list` shows those that do"))
        .Metadata("workflow", request.name());
  }
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_workflow(), FromRow(tx, row, /*with_spec=*/true));
  return absl::OkStatus();
}

absl::Status Workflows::ListWorkflows(Transaction& tx, const v1::ListWorkflowsRequest& request,
                                      v1::ListWorkflowsResponse& response) const {
  Statement rows = tx.Prepare(TUTTI_WORKFLOW_COLUMNS
                              "AS w WHERE name > $1 AND version = (SELECT max(version) FROM workflows AS other WHERE "
                              "other.name = w.name) ORDER BY name LIMIT $2");
  rows.BindAll(request.after_name(), request.page_size() + 1);
  while (rows.Step()) {
    if (response.workflows_size() == request.page_size()) {
      response.set_has_more(true);
      break;
    }
    TUTTI_ASSIGN_OR_RETURN(*response.add_workflows(), FromRow(tx, rows, /*with_spec=*/false));
  }
  return rows.status();
}

}  // namespace tutti::state_manager
