#include "tests/simulation/run_checks.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/json/json.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/history.h"

namespace tutti::simulation {

void CheckStory(const RunStory& story, const std::function<void(const std::string&)>& problem) {
  auto report = [&](const auto&... what) { problem(absl::StrCat(story.run_id, " (", story.workflow, "): ", what...)); };
  if (story.journal.empty() || !story.journal.back().has_run_finished()) {
    report("has not ended");
    return;
  }
  std::vector<std::string> done, undone;
  std::set<int64_t> taken;
  std::set<std::string> completed;
  std::map<std::string, absl::Time> wakes;
  int64_t last = 0;
  for (const auto& entry : story.journal) {
    if (entry.seq() != ++last) report("entry ", entry.seq(), " stands where ", last, " belongs");
    if (entry.has_step_waiting() && entry.step_waiting().has_wake_time()) {
      wakes.try_emplace(entry.step_waiting().path(), FromProto(entry.step_waiting().wake_time()));
    }
    if (!entry.has_step_completed()) continue;
    const auto& step = entry.step_completed();
    const bool block = engine::IsBlockKind(step.kind());
    if (!block && !completed.insert(step.path()).second) report(step.path(), " is recorded twice");
    if (step.kind() == "sleep" && FromProto(entry.time()) + story.skew < wakes[step.path()]) {
      report(step.path(), " woke early");
    }
    if (step.signal_seq() > 0 && !taken.insert(step.signal_seq()).second) report("a signal is taken twice");
    size_t undo = step.path().find("/compensate/");
    if (undo != std::string::npos) {
      undone.push_back(step.path().substr(0, undo));
    } else if (step.path() == "one" || absl::EndsWith(step.path(), "/two") || absl::EndsWith(step.path(), "/three")) {
      done.push_back(step.path());
    }
  }
  const auto& finished = story.journal.back().run_finished();
  const bool well = finished.outcome() == tutti::state::v1::OUTCOME_SUCCEEDED;
  if (story.workflow == "saga") {
    std::reverse(undone.begin(), undone.end());
    if (!well && done != undone) {
      report("done ", absl::StrJoin(done, " "), ", undone in reverse ", absl::StrJoin(undone, " "));
    }
    if (well && !undone.empty()) report("ended well and was undone");
    if (well && story.must_fail) report("should have failed");
  }
  if (story.workflow == "waits" && well) {
    auto output = FromPayload(finished.output());
    const Json expected = {{"first", 1}, {"second", 2}, {"third", "late"}};
    if (!output.ok() || *output != expected) report("output ", output.ok() ? output->dump() : "?");
  }
}

}  // namespace tutti::simulation
