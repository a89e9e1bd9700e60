#include "services/workflow-engine/domain/history.h"

#include <algorithm>

#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"

namespace tutti::engine {

absl::Status History::Add(const tutti::state::v1::JournalEntry& entry) {
  progress_percent_ = std::max(progress_percent_, entry.progress_percent());
  if (entry.has_step_started()) steps_[entry.step_started().path()].started = true;
  if (entry.has_step_completed()) {
    const auto& completed = entry.step_completed();
    StepHistory& step = steps_[completed.path()];
    step.skipped = completed.skipped();
    TUTTI_ASSIGN_OR_RETURN(Json result, FromPayload(completed.result()));
    step.result = std::make_shared<const Json>(std::move(result));
  }
  if (entry.has_step_failed()) {
    const auto& failed = entry.step_failed();
    StepHistory& step = steps_[failed.path()];
    step.failed_attempts = std::max(step.failed_attempts, failed.attempt());
    step.last_error = FromRpcStatus(failed.error());
    step.retry_time = failed.has_retry_time() ? absl::FromUnixSeconds(failed.retry_time().seconds()) +
                                                    absl::Nanoseconds(failed.retry_time().nanos())
                                              : absl::InfiniteFuture();
  }
  cancel_requested_ |= entry.has_cancel_requested();
  finished_ |= entry.has_run_finished();
  return absl::OkStatus();
}

const StepHistory* History::Find(const std::string& path) const {
  auto it = steps_.find(path);
  return it == steps_.end() ? nullptr : &it->second;
}

}  // namespace tutti::engine
