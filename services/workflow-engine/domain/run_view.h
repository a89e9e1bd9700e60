// Runs as callers see them, made from rows and journals.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "tutti/state/v1/journal.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"
#include "tutti/workflow/v1/run.pb.h"

namespace tutti::engine {

tutti::workflow::v1::Run ToRun(const tutti::state::v1::StoredRun& row, bool with_payloads);
// Brings `run->steps` up to date with one entry.
void ApplyToSteps(const tutti::state::v1::JournalEntry& entry, tutti::workflow::v1::Run* run);
// The entry as an event.
tutti::workflow::v1::RunEvent ToEvent(const tutti::state::v1::JournalEntry& entry, const std::string& run_id);

// AIP-160, the part that ListRuns documents. INVALID_ARGUMENT names the term.
absl::Status ParseRunFilter(const std::string& filter, tutti::state::v1::ListRunsRequest* out);

}  // namespace tutti::engine
