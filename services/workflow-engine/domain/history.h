// What a run's journal says, by step. The interpreter walks the spec again and skips what is here.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/workflow-engine/domain/budget.h"
#include "services/workflow-engine/domain/expression.h"
#include "tutti/state/v1/journal.pb.h"

namespace tutti::engine {

struct StepHistory {
  JsonRef result;           // set when the step has completed
  size_t result_bytes = 0;  // of its JSON
  bool skipped = false;
  bool inherited = false;  // of the run that this one was forked from
  int64_t order = 0;       // of its completion among the run's entries
  Spent spent;             // by all its attempts
  int failed_attempts = 0;
  int forgiven_attempts = 0;                       // failed before the run was reopened
  absl::Status last_error;                         // of the last failed attempt
  absl::Time retry_time = absl::InfiniteFuture();  // when the next attempt begins; infinite: there is none
  bool started = false;
  absl::Time start_time = absl::InfiniteFuture();    // of the first attempt that is known
  absl::Time attempt_time = absl::InfiniteFuture();  // when the attempt after the failed ones began, if it did
  bool waiting = false;                              // that attempt has begun to wait:
  absl::Time wake_time = absl::InfiniteFuture();
  std::string child_run_id;
  bool failed_for_good() const { return failed_attempts > 0 && retry_time == absl::InfiniteFuture(); }
};

struct Signal {
  int64_t seq = 0;
  std::string name, sender;
  JsonRef payload;
  bool taken = false;
};

// The signal by which a run learns that one it has started has ended: `child/RUN_ID`. Users' signals have no slash.
std::string ChildEndedSignal(absl::string_view child_run_id);
// The run whose end the entry tells; empty: it is another entry.
absl::string_view EndedChild(const tutti::state::v1::JournalEntry& entry);

// How far a loop is.
struct LoopHistory {
  int64_t iteration = 0;
  JsonRef last;
  Spent spent;  // by the iterations before
};

class History {
 public:
  // Entries in order. INVALID_ARGUMENT: a result that is no JSON.
  absl::Status Add(const tutti::state::v1::JournalEntry& entry);
  // Null when the journal does not know the step.
  const StepHistory* Find(const std::string& path) const;
  // Returns true when the journal knows a step below `path`.
  bool KnowsBelow(const std::string& path) const;
  // Null when the loop has no checkpoint.
  const LoopHistory* FindLoop(const std::string& path) const;
  // What the step of that path, and what is inside it, has consumed; without compensations, which have no budget.
  Spent SpentBelow(const std::string& path) const;
  // In the order they came.
  const std::vector<Signal>& signals() const { return signals_; }
  // The seq of the last entry of others: signals, pauses, resumes, cancels.
  int64_t inbox() const { return inbox_; }
  int64_t last_seq() const { return last_seq_; }
  int progress_percent() const { return progress_percent_; }
  bool cancel_requested() const { return cancel_requested_; }
  bool paused() const { return paused_; }
  bool finished() const { return finished_; }
  // When it was last opened again; infinitely long ago: it never was. What limits the run's time begins anew then.
  absl::Time reopen_time() const { return reopen_time_; }
  // How often the gate of the step or stage at `path` was what failed the run before it was opened again: its attempts
  // and returns begin anew as often.
  int forgiven_gates(const std::string& path) const {
    auto it = forgiven_gates_.find(path);
    return it == forgiven_gates_.end() ? 0 : it->second;
  }
  // Returns the expression version of the run's first start; the current version before the run has begun.
  int expression_version() const { return expression_version_; }
  // A compensation has begun.
  bool compensated() const { return compensated_; }

 private:
  void Reopen(absl::Time time);
  void Judged(const std::string& gate_path, const Json& verdict);
  // Below an iteration of a loop that a checkpoint has passed.
  bool IsBehind(const std::string& path) const;
  // The step of that path has ended well.
  void Caught(const std::string& path);

  std::map<std::string, StepHistory> steps_;
  std::map<std::string, LoopHistory> loops_;
  std::vector<Signal> signals_;
  std::map<std::string, std::string> kinds_;  // of steps that failed for good, by path
  int expression_version_ = kExpressionVersion;
  bool started_ = false;
  int64_t inbox_ = 0;
  int64_t last_seq_ = 0;
  int progress_percent_ = 0;
  bool cancel_requested_ = false;
  bool paused_ = false;
  bool finished_ = false;
  absl::Time reopen_time_ = absl::InfinitePast();
  std::set<std::string> failed_gates_;  // whose last verdict is a failure that nothing has made up for
  std::map<std::string, int> forgiven_gates_;
  bool compensated_ = false;
};

// Kinds whose steps are made of steps.
bool IsBlockKind(const std::string& kind);

}  // namespace tutti::engine
