// Refuses a wrong spec before anything is stored or run.
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "services/workflow-engine/domain/expression.h"
#include "services/workflow-engine/domain/known_names.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

bool IsSignalName(const std::string& name);
// ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$
bool IsResourceId(const std::string& name);

// INVALID_ARGUMENT with one BadRequest violation a wrong field; paths are relative to the spec
// (`steps[2].agent.agent`).
absl::Status ValidateSpec(const tutti::workflow::v1::WorkflowSpec& spec, const KnownNames& known, Evaluator& evaluator);

}  // namespace tutti::engine
