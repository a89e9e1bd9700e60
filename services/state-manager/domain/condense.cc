#include "services/state-manager/domain/condense.h"

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "absl/strings/numbers.h"
#include "runtime/journal/step_path.h"
#include "runtime/usage/usage_totals.h"
#include "services/state-manager/domain/child_end.h"

namespace tutti::state_manager {

using tutti::state::v1::JournalEntry;

namespace {

const std::string& PathOf(const JournalEntry& entry) {
  static const std::string kNone;
  if (entry.has_step_started()) return entry.step_started().path();
  if (entry.has_step_completed()) return entry.step_completed().path();
  if (entry.has_step_failed()) return entry.step_failed().path();
  if (entry.has_step_waiting()) return entry.step_waiting().path();
  return kNone;
}

// Whether it is of an iteration that its loop has left behind: `loop/7/…` after a checkpoint of 8 or more.
bool IsBehind(const std::string& path, const std::unordered_map<std::string, int64_t>& loops) {
  return step_path::AnyItem(path, [&loops](const std::string& loop_path, int64_t iteration) {
    auto loop = loops.find(loop_path);
    return loop != loops.end() && iteration < loop->second;
  });
}

bool IsSome(const tutti::type::v1::UsageTotals& usage) { return usage.ByteSizeLong() > 0; }

}  // namespace

std::vector<JournalEntry> Condense(std::vector<JournalEntry> entries) {
  struct Step {
    bool completed = false;
    int last_attempt = 0;
  };
  std::unordered_map<std::string, Step> steps;
  int64_t last_start = 0;
  std::unordered_map<std::string, int64_t> loops;  // how far each is, by path
  std::unordered_set<int64_t> taken;               // signals, by seq
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
    if (entry.has_loop_checkpoint()) loops[entry.loop_checkpoint().path()] = entry.loop_checkpoint().iteration();
    if (entry.step_failed().signal_seq() > 0) taken.insert(entry.step_failed().signal_seq());
    if (entry.step_completed().signal_seq() > 0) taken.insert(entry.step_completed().signal_seq());
  }
  std::vector<JournalEntry> out;
  // Of failures that are left out: told by the entry of the same step that is kept.
  struct Consumed {
    google::protobuf::RepeatedPtrField<tutti::type::v1::ModelUsage> usage;
    tutti::type::v1::UsageTotals child;
  };
  std::unordered_map<std::string, Consumed> usages;
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
      bool for_good = !entry.step_failed().has_retry_time();  // forgiven since, when there are later ones
      keep = !step.completed && (for_good || entry.step_failed().attempt() >= step.last_attempt - 1);
      auto& failed = *entry.mutable_step_failed();
      Consumed& earlier = usages[failed.path()];
      if (keep) {
        failed.mutable_usage()->MergeFrom(earlier.usage);
        if (IsSome(earlier.child)) AddUsage(earlier.child, failed.mutable_child_usage());
        usages.erase(failed.path());
      } else {
        earlier.usage.MergeFrom(failed.usage());
        AddUsage(failed.child_usage(), &earlier.child);
      }
    }
    if (entry.has_step_completed()) {
      if (auto earlier = usages.find(entry.step_completed().path()); earlier != usages.end()) {
        auto& completed = *entry.mutable_step_completed();
        completed.mutable_usage()->MergeFrom(earlier->second.usage);
        if (IsSome(earlier->second.child)) AddUsage(earlier->second.child, completed.mutable_child_usage());
        usages.erase(earlier);
      }
    }
    if (entry.has_loop_checkpoint()) {
      keep = entry.loop_checkpoint().iteration() == loops[entry.loop_checkpoint().path()] &&
             !IsBehind(entry.loop_checkpoint().path(), loops);
    }
    if (entry.has_signal_received()) {
      keep = taken.count(entry.seq()) == 0 && !IsChildEnd(entry.signal_received().name());
    }
    if (entry.has_step_waiting()) keep = !steps[entry.step_waiting().path()].completed;
    // What is said of the past and changes nothing of what is to come.
    if (entry.has_run_parked() || entry.has_run_settled() || entry.has_event_emitted()) keep = false;
    if (keep && !loops.empty()) keep = !IsBehind(PathOf(entry), loops);
    if (keep || i + 1 == entries.size()) out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace tutti::state_manager
