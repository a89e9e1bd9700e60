// The shortest journal that recovers a run.
#pragma once

#include <vector>

#include "tutti/state/v1/journal.pb.h"

namespace tutti::state_manager {

// Of entries in order: what a later entry makes superfluous is left out. Kept are the last RunStarted, every
// StepCompleted, of steps that have not completed the StepStarted and the StepFailed entries of the last attempt, a
// cancel request and the end; also, always, the last entry (it carries the progress). Usage is left out: it stands in
// the usage table.
std::vector<tutti::state::v1::JournalEntry> Condense(std::vector<tutti::state::v1::JournalEntry> entries);

}  // namespace tutti::state_manager
