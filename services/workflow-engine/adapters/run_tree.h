// A run with those that it has started, and theirs.
#pragma once

#include <functional>

#include "services/workflow-engine/adapters/state_client.h"

namespace tutti::engine {

// Ends a run at once, and then those below it. `on_ended` is told of each; the run itself comes first. Of a run that
// had ended before nothing is changed: its children were seen to then.
Task<absl::Status> TerminateTree(CallContext& call, StateClient& state, state::TerminateRunRequest request,
                                 std::function<Task<void>(const state::StoredRun&)> on_ended);

}  // namespace tutti::engine
