// Definitions.
#pragma once

#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/payloads.h"
#include "tutti/state/v1/workflow_store_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Workflows {
 public:
  explicit Workflows(const Payloads& payloads) : payloads_(payloads) {}

  absl::Status PutWorkflow(Transaction& tx, const v1::PutWorkflowRequest& request,
                           v1::PutWorkflowResponse& response) const;
  absl::Status GetWorkflow(Transaction& tx, const v1::GetWorkflowRequest& request,
                           v1::GetWorkflowResponse& response) const;
  absl::Status ListWorkflows(Transaction& tx, const v1::ListWorkflowsRequest& request,
                             v1::ListWorkflowsResponse& response) const;

 private:
  absl::StatusOr<v1::StoredWorkflow> FromRow(Transaction& tx, const Statement& row, bool with_spec) const;
  const Payloads& payloads_;
};

}  // namespace tutti::state_manager
