// Runs that are retried after they failed, and forks of runs.
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

TEST_F(InterpreterTest, AReopenedRunGoesOnFromWhatFailed) {
  auto spec = Spec(R"(
steps:
- {id: one, agent: {agent: a}}
- id: flow
  pipeline: {stages: [{id: s, steps: [{id: two, agent: {agent: b}, retry: {max_attempts: 2}}]}]}
)");
  bool away = true;
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "b" && away) return absl::UnavailableError("away");
    return input;
  };
  EXPECT_THAT(Walk(spec, 1, absl::Seconds(1)), HasCode(absl::StatusCode::kUnavailable));
  JournalEntry finished, reopened;
  finished.mutable_run_finished();
  reopened.mutable_run_reopened();
  world_.Write(finished);
  world_.Write(reopened);
  away = false;
  world_.calls.clear();
  auto out = Walk(spec, 1);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/flow/s/two/3"})) << "a new attempt, under a new key";
}

JournalEntry Finished() {
  JournalEntry entry;
  entry.mutable_run_finished();
  return entry;
}

TEST_F(InterpreterTest, AReopenedRunHasItsTimeOnceMore) {
  auto spec = Spec(R"(
timeout: 60s
steps:
- {id: one, agent: {agent: a}}
- id: two
  budget: {time: 50s}
  while: {condition: .iteration < 1, steps: [{id: ask, agent: {agent: b}}]}
)");
  bool away = true;
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "b" && away) return absl::InternalError("broken");
    return input;
  };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kInternal));
  world_.Write(Finished());
  world_.time.Advance(absl::Hours(1));
  JournalEntry reopened;
  reopened.mutable_run_reopened();
  ToProto(world_.time.Now(), reopened.mutable_time());
  world_.Write(reopened);
  away = false;
  EXPECT_THAT(Walk(spec), IsOk());
}

TEST_F(InterpreterTest, AReopenedRunDoesNotGoBackBehindAFallback) {
  auto spec = Spec(R"(
steps:
- id: flow
  pipeline:
    stages:
    - id: outline
      steps: [{id: make, agent: {agent: a, input: bad}}]
      gate: {expression: '.output == "good"', fallback: [{id: instead, agent: {agent: a, input: plain}}]}
    - id: last
      steps: [{id: make, agent: {agent: b, input: bad}}]
      gate: {expression: '.output == "good"'}
)");
  bool better = false;
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    return target == "b" && better ? Json("good") : input;
  };
  EXPECT_THAT(Walk(spec), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "quality gate"));
  world_.Write(Finished());
  JournalEntry reopened;
  reopened.mutable_run_reopened();
  world_.Write(reopened);
  better = true;
  world_.calls.clear();
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("good"));
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/flow/last/attempt-2/make/1"}));
}

TEST_F(InterpreterTest, AForkLeavesToTheOriginalWhatThatHasDone) {
  auto spec = Spec(R"(
steps:
- {id: one, tool: {tool: t, parameters: {n: 1}}, compensation: [{id: undo, tool: {tool: t}}]}
- {id: two, tool: {tool: t, parameters: {n: 2}}, compensation: [{id: undo, tool: {tool: t}}]}
- {id: three, agent: {agent: a}}
)");
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "a") return absl::InternalError("no");
    return input;
  };
  JournalEntry one, forked;
  one.mutable_step_completed()->set_path("one");
  one.mutable_step_completed()->set_kind("tool");
  one.mutable_step_completed()->set_attempt(1);
  ToPayload(Json{{"n", 1}}, one.mutable_step_completed()->mutable_result());
  forked.mutable_run_forked()->set_from_step("two");
  world_.Write(one);
  world_.Write(forked);
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kInternal));
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/two/1", "run1/three/1", "run1/two/compensate/undo/1"}));
}

}  // namespace
}  // namespace tutti::engine::testing
