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
  std::vector<std::string> standing;  // what was done and can be undone, in its order
  bool was_undone = false;
  const bool undoes = story.workflow == "saga" || story.workflow == "craft";
  std::set<int64_t> taken;
  std::set<std::string> completed;
  std::map<std::string, absl::Time> wakes;
  int64_t last = 0;
  int asked = 0;
  for (const auto& entry : story.journal) {
    if (entry.seq() != ++last) report("entry ", entry.seq(), " stands where ", last, " belongs");
    if (entry.has_step_waiting() && entry.step_waiting().has_wake_time()) {
      wakes.try_emplace(entry.step_waiting().path(), FromProto(entry.step_waiting().wake_time()));
    }
    if (!entry.has_step_completed()) continue;
    const auto& step = entry.step_completed();
    const bool block = engine::IsBlockKind(step.kind());
    asked += absl::StartsWith(step.path(), "bounded/") && step.kind() == "agent" ? 1 : 0;
    if (!block && !completed.insert(step.path()).second) report(step.path(), " is recorded twice");
    if (step.kind() == "sleep" && FromProto(entry.time()) + story.skew < wakes[step.path()]) {
      report(step.path(), " woke early");
    }
    if (step.signal_seq() > 0 && !taken.insert(step.signal_seq()).second) report("a signal is taken twice");
    size_t undo = step.path().find("/compensate/");
    if (undoes && undo != std::string::npos) {
      was_undone = true;
      const std::string path = step.path().substr(0, undo);
      if (standing.empty() || standing.back() != path) {
        report(path, " was undone, standing were ", absl::StrJoin(standing, " "));
      } else {
        standing.pop_back();
      }
    } else if (undoes && (step.path() == "one" || absl::EndsWith(step.path(), "/one") ||
                          absl::EndsWith(step.path(), "/two") || absl::EndsWith(step.path(), "/three"))) {
      standing.push_back(step.path());
    }
  }
  const auto& finished = story.journal.back().run_finished();
  const bool well = finished.outcome() == tutti::state::v1::OUTCOME_SUCCEEDED;
  if (!well && !story.terminated && !standing.empty()) report("stands still: ", absl::StrJoin(standing, " "));
  if (undoes && well && story.must_fail) report("should have failed");
  if (story.workflow == "saga" && well && was_undone) report("ended well and was undone");
  if (story.workflow == "craft" && well) {
    auto output = FromPayload(finished.output());
    const bool made = output.ok() && (*output)["essay"] == "text" && (*output)["race"] == "x" &&
                      (*output)["bounded"] == "enough" && standing.size() == 1 && was_undone;
    if (!made) report("output ", output.ok() ? output->dump() : "?", ", standing ", absl::StrJoin(standing, " "));
    if (asked > 6) report(asked, " calls within a budget of 6");
  }
  if (story.workflow == "waits" && well) {
    auto output = FromPayload(finished.output());
    const Json expected = {{"first", 1}, {"second", 2}, {"third", "late"}};
    if (!output.ok() || *output != expected) report("output ", output.ok() ? output->dump() : "?");
  }
}

}  // namespace tutti::simulation
