#include "services/state-manager/domain/condense.h"

#include <string>
#include <unordered_map>

namespace tutti::state_manager {

using tutti::state::v1::JournalEntry;

std::vector<JournalEntry> Condense(std::vector<JournalEntry> entries) {
  struct Step {
    bool completed = false;
    int last_attempt = 0;
  };
  std::unordered_map<std::string, Step> steps;
  int64_t last_start = 0;
  for (const auto& entry : entries) {
    if (entry.has_step_completed()) steps[entry.step_completed().path()].completed = true;
    if (entry.has_step_started()) {
      Step& step = steps[entry.step_started().path()];
      step.last_attempt = std::max(step.last_attempt, entry.step_started().attempt());
    }
    if (entry.has_step_failed()) {
      Step& step = steps[entry.step_failed().path()];
      step.last_attempt = std::max(step.last_attempt, entry.step_failed().attempt());
    }
    if (entry.has_run_started()) last_start = entry.seq();
  }
  std::vector<JournalEntry> out;
  for (size_t i = 0; i < entries.size(); ++i) {
    JournalEntry& entry = entries[i];
    bool keep = true;
    if (entry.has_run_started()) keep = entry.seq() == last_start;
    if (entry.has_step_started()) {
      const Step& step = steps[entry.step_started().path()];
      keep = !step.completed && entry.step_started().attempt() == step.last_attempt;
    }
    if (entry.has_step_failed()) {
      // The last failure also says how many attempts there were; an earlier one is kept while the last attempt runs.
      const Step& step = steps[entry.step_failed().path()];
      keep = !step.completed && entry.step_failed().attempt() >= step.last_attempt - 1;
      entry.mutable_step_failed()->clear_usage();
    }
    if (entry.has_step_completed()) entry.mutable_step_completed()->clear_usage();
    if (keep || i + 1 == entries.size()) out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace tutti::state_manager
