// What a run's journal says, by step. The interpreter walks the spec again and skips what is here.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/workflow-engine/domain/expression.h"
#include "tutti/state/v1/journal.pb.h"

namespace tutti::engine {

struct StepHistory {
  JsonRef result;  // set when the step has completed
  bool skipped = false;
  int failed_attempts = 0;
  absl::Status last_error;                         // of the last failed attempt
  absl::Time retry_time = absl::InfiniteFuture();  // when the next attempt begins; infinite: there is none
  bool started = false;
};

class History {
 public:
  // Entries in order. INVALID_ARGUMENT: a result that is no JSON.
  absl::Status Add(const tutti::state::v1::JournalEntry& entry);
  // Null when the journal does not know the step.
  const StepHistory* Find(const std::string& path) const;
  int progress_percent() const { return progress_percent_; }
  bool cancel_requested() const { return cancel_requested_; }
  bool finished() const { return finished_; }

 private:
  std::map<std::string, StepHistory> steps_;
  int progress_percent_ = 0;
  bool cancel_requested_ = false;
  bool finished_ = false;
};

}  // namespace tutti::engine
