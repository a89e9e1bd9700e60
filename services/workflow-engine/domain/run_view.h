// Runs as callers see them, made from rows and journals.
#pragma once

#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "tutti/state/v1/journal.pb.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"
#include "tutti/workflow/v1/run.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

tutti::workflow::v1::Run ToRun(const tutti::state::v1::StoredRun& row, bool with_payloads);
// The run as its last entry leaves it.
void ApplyEnd(const tutti::state::v1::JournalEntry& finished, tutti::workflow::v1::Run* run);
bool IsEnded(tutti::workflow::v1::RunState state);

// The steps of a run, from its journal: the entries in their order. `outputs`: with what they put out. As many as fit
// into a message; of others their number.
class StepRecords {
 public:
  StepRecords(tutti::workflow::v1::Run& run, bool outputs) : run_(run), outputs_(outputs) {}
  void Apply(const tutti::state::v1::JournalEntry& entry);

 private:
  static constexpr size_t kMostBytes = size_t{3} << 20;
  tutti::workflow::v1::Run& run_;
  const bool outputs_;
  std::unordered_map<std::string, int> index_;  // by path; -1: left out
  size_t bytes_ = 0;
};
// INVALID_ARGUMENT: not as StartRunRequest says.
absl::Status CheckTenant(absl::string_view field, absl::string_view tenant);
absl::Status CheckPriority(absl::string_view field, int32_t priority);
// The entry as an event.
tutti::workflow::v1::RunEvent ToEvent(const tutti::state::v1::JournalEntry& entry, const std::string& run_id);
// Without its place among the others.
tutti::workflow::v1::RunEvent ToEvent(const tutti::state::v1::LiveText& text, absl::Time now);

// What kind of workflow it is, for reports: the kind of its only step, else `graph`.
std::string PatternOf(const tutti::workflow::v1::WorkflowSpec& spec);

// AIP-160, the part that ListRuns documents. INVALID_ARGUMENT names the term.
absl::Status ParseRunFilter(const std::string& filter, tutti::state::v1::ListRunsRequest* out);

}  // namespace tutti::engine
