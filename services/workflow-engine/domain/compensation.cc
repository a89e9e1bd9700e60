// Undoing what was done when it must not stand.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/spec_search.h"

namespace tutti::engine {
bool Interpreter::HasCompensations() {
  if (!has_compensations_) has_compensations_ = HoldsField(spec_, "compensation");
  return *has_compensations_;
}

void Interpreter::Completed(const Step& step, const std::string& path, const JsonRef& output,
                            const Variables& variables, int64_t order) {
  if (step.compensation().empty()) return;
  // What the run it was forked from has done is that run's to undo.
  if (const StepHistory* known = history_.Find(path); known && known->inherited) return;
  completed_.push_back({order, &step, path, output, variables.Flatten()});
}

Task<absl::Status> Interpreter::CompensateExcept(std::string path, Bounds bounds, std::string except) {
  auto meant = [&](const Compensable& entry) {
    return (path.empty() || step_path::IsAtOrBelow(entry.path, path)) &&
           (except.empty() || !step_path::IsAtOrBelow(entry.path, except));
  };
  if (bounds.replay_only) {  // nothing is begun: what was undone before is known, the rest is for whoever catches this
    std::erase_if(completed_, [&](const Compensable& entry) {
      if (!meant(entry)) return false;
      return std::all_of(entry.step->compensation().begin(), entry.step->compensation().end(), [&](const Step& step) {
        const StepHistory* known =
            history_.Find(step_path::Below(step_path::Below(entry.path, step_path::kCompensate), step.id()));
        return known && (known->result || known->failed_for_good());
      });
    });
    co_return absl::OkStatus();
  }
  // A cancel in the midst must not leave half of it undone; another engine goes on where a halt ended it.
  bounds.stop = halt_;
  bounds.deadline = absl::InfiniteFuture();
  bounds.budget = nullptr;
  for (;;) {
    auto last = completed_.end();
    for (auto it = completed_.begin(); it != completed_.end(); ++it) {
      if (meant(*it) && (last == completed_.end() || it->order > last->order)) last = it;
    }
    if (last == completed_.end()) co_return absl::OkStatus();
    Compensable undone = std::move(*last);
    completed_.erase(last);
    Variables variables(&undone.variables);
    variables.Set("output", undone.output);
    auto result = co_await RunBlock(undone.step->compensation(), step_path::Below(undone.path, step_path::kCompensate),
                                    variables, bounds);
    // A compensation that fails is recorded by its steps; the others are undone all the same.
    if (EndsWalk(result.status())) co_return result.status();
    if (halt_.stop_requested()) co_return absl::CancelledError("the run goes on elsewhere");
  }
}

}  // namespace tutti::engine
