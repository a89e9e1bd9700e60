// After forgetting: what the database's own indexes and files keep of it goes too.
#pragma once

#include "services/state-manager/store/access.h"
#include "services/state-manager/store/memories.h"

namespace tutti::state_manager {

// In slices, between which other writers have their turn. `access` and `memories` outlive it.
Task<absl::Status> ScrubMemories(Access& access, Executor& executor, absl::Time deadline, const Memories& memories);

}  // namespace tutti::state_manager
