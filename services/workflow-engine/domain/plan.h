// How a spec would be worked on, before it is.
#pragma once

#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::engine {

// `spec` must be valid. Weights count leaf steps: blocks weigh their longest way, loops one iteration.
tutti::workflow::v1::PlanWorkflowResponse MakePlan(const tutti::workflow::v1::WorkflowSpec& spec);

}  // namespace tutti::engine
