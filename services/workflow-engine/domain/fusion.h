// Many outputs become one.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/workflow-engine/domain/expression.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// The methods that need no agent, by name.
bool IsFusionMethod(const std::string& method);

struct FusionInput {
  std::string branch;
  JsonRef output;
};

// `inputs` are the branches that ended well, in the spec's order; `branches` is how many there were.
// FAILED_PRECONDITION: nothing to fuse, or what cannot be put together. ABORTED: no quorum.
Task<absl::StatusOr<Json>> Fuse(const tutti::workflow::v1::Fusion& fusion, const std::vector<FusionInput>& inputs,
                                size_t branches, const Variables& variables, Evaluator& evaluator,
                                const Evaluator::Context& context);

// Whether what is there decides: for first_success one, for a quorum enough that agree. For others only all do.
Task<absl::StatusOr<bool>> IsDecided(const tutti::workflow::v1::Fusion& fusion, const std::vector<FusionInput>& inputs,
                                     size_t branches, const Variables& variables, Evaluator& evaluator,
                                     const Evaluator::Context& context);

}  // namespace tutti::engine
