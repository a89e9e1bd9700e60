#include "services/state-manager/store/scrubbing.h"

#include "runtime/status/macros.h"

namespace tutti::state_manager {

Task<absl::Status> ScrubMemories(Access& access, Executor& executor, absl::Time deadline, const Memories& memories) {
  for (bool first = true, more = true; more; first = false) {
    auto slice = [&memories, first](Transaction& tx, bool& out) {
      auto scrubbed = memories.Scrub(tx, first);
      if (scrubbed.ok()) out = *scrubbed;
      return scrubbed.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(more,
                              co_await access.Write<bool>(executor, deadline, LaneOf("scrubbing"), std::move(slice)));
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::state_manager
