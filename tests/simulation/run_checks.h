// What must hold of a run's journal, whatever has happened to those who wrote it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tutti/state/v1/journal_service.pb.h"

namespace tutti::simulation {

struct RunStory {
  std::string run_id, workflow;
  // In order, from the first.
  std::vector<tutti::state::v1::JournalEntry> journal;
  bool must_fail = false;
  // Asked to end at once, without compensations.
  bool terminated = false;
  // By how much the clocks of those who wrote it may differ.
  absl::Duration skew;
};

// It has ended; its entries are numbered without gaps; each step is recorded once; no signal is taken twice; no sleep
// ended early. Of the workflows `saga` and `craft`, compensations ran in reverse order for exactly what was completed
// and does not stand; of `craft`, the patterns did what they should and the budget held; of `waits`, the signals came
// in their order.
void CheckStory(const RunStory& story, const std::function<void(const std::string&)>& problem);

}  // namespace tutti::simulation
