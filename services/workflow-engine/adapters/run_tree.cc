#include "services/workflow-engine/adapters/run_tree.h"

#include <set>
#include <vector>

#include "runtime/status/macros.h"

namespace tutti::engine {

Task<absl::Status> TerminateTree(CallContext& call, StateClient& state, state::TerminateRunRequest request,
                                 std::function<Task<void>(const state::StoredRun&)> on_ended) {
  TUTTI_CO_ASSIGN_OR_RETURN(state::TerminateRunResponse root, co_await state.TerminateRun(call, request));
  co_await on_ended(root.run());
  std::vector<std::string> runs = {request.run_id()};
  while (!runs.empty()) {
    state::ReadJournalRequest read;
    read.set_run_id(runs.back());
    runs.pop_back();
    auto stream = state.ReadJournal(call, read, absl::Seconds(30));
    std::set<std::string> children;
    state::ReadJournalResponse page;
    while (co_await stream->Read(page)) {
      for (const auto& entry : page.entries()) children.insert(entry.step_waiting().child_run_id());
    }
    TUTTI_CO_RETURN_IF_ERROR(co_await stream->Finish());
    children.erase("");
    for (const std::string& child : children) {
      request.set_run_id(child);
      auto ended = co_await state.TerminateRun(call, request);
      if (absl::IsNotFound(ended.status())) continue;
      TUTTI_CO_RETURN_IF_ERROR(ended.status());
      co_await on_ended(ended->run());
      runs.push_back(child);
    }
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::engine
