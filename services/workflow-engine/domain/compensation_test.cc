// Compensations: failed and cancelled runs undo what they did.
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

// Books three things, undoes them in reverse order when the fourth fails, wherever it crashes.
TEST_F(InterpreterTest, CompensationsRunOnceInReverseOrderWhereverItCrashes) {
  auto spec = Spec(R"(
steps:
- {id: one, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check, parameters: {of: one}}}]}
- id: both
  parallel:
    branches:
    - {id: left, steps: [{id: two, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}]}
    - {id: right, steps: [{id: three, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}, {id: note, tool: {tool: check}}]}]}
- {id: four, agent: {agent: a}}
)");
  world_.answer = [](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "a") return absl::FailedPreconditionError("no room");
    return input;
  };
  for (int crash_after = 0; crash_after < 12; ++crash_after) {
    SCOPED_TRACE(crash_after);
    world_.journal.clear();
    world_.next_seq = 1;
    world_.commits_until_crash = crash_after;
    auto first = Walk(spec);
    world_.commits_until_crash = -1;
    auto second = Walk(spec);
    EXPECT_THAT(second, HasCodeAndText(absl::StatusCode::kFailedPrecondition, "no room"));
    std::vector<std::string> done, undone;
    std::map<std::string, int> times;
    for (const auto& entry : world_.journal) {
      if (!entry.has_step_completed()) continue;
      std::string path = entry.step_completed().path();
      EXPECT_EQ(++times[path], 1) << path;
      size_t at = path.find("/compensate/");
      if (at == std::string::npos) {
        if (entry.step_completed().kind() == "tool") done.push_back(path);
      } else if (absl::EndsWith(path, "/undo")) {
        undone.push_back(path.substr(0, at));
      }
    }
    std::reverse(undone.begin(), undone.end());
    EXPECT_EQ(done, undone);
  }
}

TEST_F(InterpreterTest, ACancelCompensatesAndCannotStopHalfwayThrough) {
  auto spec = Spec(
      "steps:\n- {id: one, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}\n- {id: two, agent: "
      "{agent: "
      "a}}\n");
  world_.hold = true;
  on_held_ = [&] {
    if (world_.calls.back() == "run1/two/1") stop_.request_stop();
    LetGo(0);
  };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kCancelled));
  EXPECT_EQ(CompletedPaths(), (std::vector<std::string>{"one", "one/compensate/undo"}));
}

// A run that was parked is cancelled: what its blocks had completed is undone too, by an engine that walks them anew.
TEST_F(InterpreterTest, ACancelAfterARecoveryUndoesWhatBlocksDid) {
  park_after_ = absl::Seconds(10);
  auto spec = Spec(R"(
steps:
- {id: one, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}
- id: both
  parallel:
    branches:
    - {id: left, steps: [{id: two, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}]}
    - {id: right, steps: [{id: three, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}]}
- {id: wait, wait_for_signal: {signal: go}}
)");
  EXPECT_TRUE(EndsWalk(Walk(spec).status()));
  stop_.request_stop();
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kCancelled));
  std::vector<std::string> undone;
  for (const auto& path : CompletedPaths()) {
    if (absl::EndsWith(path, "/compensate/undo")) undone.push_back(path);
  }
  EXPECT_EQ(undone, (std::vector<std::string>{"both/right/three/compensate/undo", "both/left/two/compensate/undo",
                                              "one/compensate/undo"}));
}

TEST_F(InterpreterTest, ACaughtFailureUndoesOnlyWhatTheFailedStepDid) {
  auto spec = Spec(R"(
steps:
- {id: outside, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}
- id: trip
  pipeline:
    stages:
    - {id: book, steps: [{id: hotel, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}]}
    - {id: fly, steps: [{id: flight, agent: {agent: a}}]}
  fallback: [{id: stay, transform: {value: home}}]
)");
  world_.answer = [](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "a") return absl::FailedPreconditionError("no seat");
    return input;
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("home"));
  auto paths = CompletedPaths();
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "trip/book/hotel/compensate/undo"), 1);
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "outside/compensate/undo"), 0);
}

}  // namespace
}  // namespace tutti::engine::testing
