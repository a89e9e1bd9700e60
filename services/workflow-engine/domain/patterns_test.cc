// Fusion, hedging and stragglers; panels and lessons; plans.
#include "absl/strings/str_join.h"
#include "services/workflow-engine/domain/plan.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

class FusionTest : public InterpreterTest {
 protected:
  // Three branches x, y, z that give what `outputs` says (null: fail), fused.
  absl::StatusOr<Json> Fused(const std::string& fusion, std::map<std::string, Json> outputs) {
    auto spec = Spec("steps:\n- id: p\n  parallel:\n    allow_failures: true\n    fusion: " + fusion + R"(
    branches:
    - {id: x, steps: [{id: s, agent: {agent: a, input: x}}]}
    - {id: y, steps: [{id: s, agent: {agent: a, input: y}}]}
    - {id: z, steps: [{id: s, agent: {agent: a, input: z}}]}
)");
    world_.journal.clear();
    world_.answer = [outputs](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
      if (target != "a") return input;
      Json out = outputs.at(input.get<std::string>());
      if (out.is_null()) return absl::InvalidArgumentError("failed");
      return out;
    };
    auto out = Walk(spec);
    auto again = Walk(spec);
    EXPECT_EQ(out.ok(), again.ok());
    if (out.ok() && again.ok()) {
      EXPECT_EQ(*out, *again) << "a replay must see the same";
    }
    return out;
  }
};

TEST_F(FusionTest, Methods) {
  EXPECT_EQ(*Fused("{method: concat}", {{"x", "one"}, {"y", nullptr}, {"z", "three"}}), Json("one\n\nthree"));
  EXPECT_EQ(*Fused("{method: concat}", {{"x", {1}}, {"y", {2, 3}}, {"z", 4}}), (Json{1, 2, 3, 4}));
  EXPECT_EQ(*Fused("{method: deep_merge}",
                   {{"x", {{"a", {{"b", 1}}}}}, {"y", {{"a", {{"c", 2}}}}}, {"z", {{"a", {{"b", 3}}}}}}),
            (Json{{"a", {{"b", 3}, {"c", 2}}}}));
  EXPECT_EQ(*Fused("{method: majority_vote}", {{"x", "no"}, {"y", "yes"}, {"z", "yes"}}), Json("yes"));
  EXPECT_EQ(*Fused("{method: weighted_vote, weights: {x: 3}}", {{"x", "no"}, {"y", "yes"}, {"z", "yes"}}), Json("no"));
  EXPECT_EQ(*Fused("{method: majority_vote, value: .output.v}",
                   {{"x", {{"v", 1}}}, {"y", {{"v", 2}}}, {"z", {{"v", 2}, {"other", 1}}}}),
            Json(2));
  EXPECT_EQ(
      (*Fused("{method: best_by_score}", {{"x", {{"score", 0.2}}}, {"y", {{"score", 0.9}}}, {"z", "none"}}))["score"],
      0.9);
  EXPECT_EQ(*Fused("{method: first_success}", {{"x", nullptr}, {"y", "second"}, {"z", "third"}}), Json("second"));
  EXPECT_EQ(*Fused("{method: quorum, quorum: 2}", {{"x", "a"}, {"y", "b"}, {"z", "b"}}), Json("b"));
  EXPECT_EQ((*Fused("{method: agent, agent: {agent: b}}", {{"x", 1}, {"y", nullptr}, {"z", 3}})),
            (Json{{"outputs", {{"x", 1}, {"z", 3}}}}));
}

TEST_F(FusionTest, WhatCannotBeFusedIsAnError) {
  EXPECT_THAT(Fused("{method: quorum, quorum: 3}", {{"x", "a"}, {"y", "b"}, {"z", "b"}}),
              HasCodeAndText(absl::StatusCode::kAborted, "no value has the 3 votes"));
  EXPECT_THAT(Fused("{method: deep_merge}", {{"x", {{"a", 1}}}, {"y", "text"}, {"z", nullptr}}),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "branch y gave string"));
  EXPECT_THAT(Fused("{method: concat}", {{"x", nullptr}, {"y", nullptr}, {"z", nullptr}}),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(InterpreterTest, FirstSuccessGivesUpTheOthersAndStaysDecidedAfterACrash) {
  auto spec = Spec(R"(
steps:
- id: p
  parallel:
    fusion: {method: first_success}
    branches:
    - {id: slow, steps: [{id: s, agent: {agent: a, input: slow}}]}
    - {id: fast, steps: [{id: s, agent: {agent: a, input: fast}}]}
- {id: after, agent: {agent: b, input: '${ .p }'}}
)");
  world_.hold = true;
  on_held_ = [&] { LetGo(world_.held.size() - 1); };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("fast"));
  world_.calls.clear();
  out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("fast"));
  EXPECT_TRUE(world_.calls.empty()) << "the branch that lost is not begun again";
}

TEST_F(InterpreterTest, StragglersAreCutAtTheDeadline) {
  auto spec = Spec(R"(
steps:
- id: p
  parallel:
    straggler_deadline: 30s
    fusion: {method: concat}
    branches:
    - {id: quick, steps: [{id: s, agent: {agent: a, input: quick}}]}
    - {id: slow, steps: [{id: nap, sleep: {duration: 3600s}}, {id: s, agent: {agent: a, input: slow}}]}
)");
  auto out = Walk(spec, Json::object(), absl::Seconds(10));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("quick"));
  out = Walk(spec, Json::object(), absl::Seconds(10));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(world_.calls.size(), 1u);
}

TEST_F(InterpreterTest, ASlowBranchIsHedged) {
  auto spec = Spec(R"(
steps:
- id: p
  parallel:
    hedge_after: 5s
    branches:
    - {id: only, steps: [{id: s, agent: {agent: a, input: x}}]}
)");
  world_.hold = true;
  on_held_ = [&] {
    if (world_.held.size() == 1 && world_.calls.size() == 1) {
      world_.time.Advance(absl::Seconds(6));
    } else {
      LetGo(world_.held.size() - 1);
    }
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/p/only/s/1", "run1/p/only/hedge-copy/s/1"}));
  world_.calls.clear();
  ASSERT_THAT(Walk(spec), IsOk());
  EXPECT_TRUE(world_.calls.empty());
}

TEST_F(InterpreterTest, WhatTheSlowerCopyOfAHedgedBranchHadDoneIsUndone) {
  auto spec = Spec(R"(
steps:
- id: p
  parallel:
    hedge_after: 5s
    branches:
    - id: only
      steps:
      - {id: book, tool: {tool: t}, compensation: [{id: undo, tool: {tool: t}}]}
      - {id: s, agent: {agent: a, input: x}}
)");
  world_.hold = true;
  on_held_ = [&] {
    if (world_.calls.back() == "run1/p/only/s/1") {
      world_.time.Advance(absl::Seconds(6));
    } else {
      LetGo(world_.held.size() - 1);
    }
  };
  ASSERT_THAT(Walk(spec), IsOk());
  const std::vector<std::string> both = {"run1/p/only/book/1", "run1/p/only/s/1", "run1/p/only/hedge-copy/book/1",
                                         "run1/p/only/hedge-copy/s/1", "run1/p/only/book/compensate/undo/1"};
  EXPECT_EQ(world_.calls, both);
  world_.calls.clear();
  ASSERT_THAT(Walk(spec), IsOk());
  EXPECT_TRUE(world_.calls.empty());
  // A crash between the end of the copy and the undoing.
  while (!world_.journal.back().has_step_completed() ||
         world_.journal.back().step_completed().path() != "p/only/hedge-winner") {
    world_.journal.pop_back();
  }
  ASSERT_THAT(Walk(spec), IsOk());
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/p/only/book/compensate/undo/1"}));
}

TEST_F(InterpreterTest, APanelJudgesByItsWeightsAndLessonsAreLearned) {
  auto spec = Spec(R"(
steps:
- id: write
  reflect:
    generate: [{id: make, agent: {agent: a, input: {draft: '${ .draft }', lessons: '${ .lessons }'}}}]
    panel:
    - {id: strict, weight: 3, steps: [{id: judge, agent: {agent: judge, input: strict}}]}
    - {id: kind, steps: [{id: judge, agent: {agent: judge, input: kind}}]}
    rubric: [{name: clear, weight: 1}, {name: true_to_sources, weight: 3}]
    max_rounds: 5
    patience: 1
    lessons: {agent: a}
)");
  world_.lessons = {"be brief"};
  Json first_input;
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "a") {
      if (first_input.is_null()) first_input = input;
      return Json("text");
    }
    if (input == Json("kind")) return Json{{"score", 1.0}, {"feedback", "lovely"}};
    return Json{{"scores", {{"clear", 1.0}, {"true_to_sources", 0.0}}}, {"feedback", "cite"}};
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(first_input["lessons"], (Json{"be brief"}));
  EXPECT_EQ(world_.lessons, (std::vector<std::string>{"be brief", "strict: cite\nkind: lovely"}));
  auto paths = CompletedPaths();
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "write/round-2/generate/make"), 1);
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "write/round-3/generate/make"), 0) << "no better: patience is over";
  // (3 × (1×1 + 3×0)/4 + 1 × 1) / 4, by hand.
  Json panel = Json::parse(R"({"x":0.4375})");
  EXPECT_DOUBLE_EQ(*ScoreOf({{"score", (3 * 0.25 + 1) / 4}}, "x"), panel["x"].get<double>());
}

TEST_F(InterpreterTest, APlanShowsStagesAndTheCriticalPath) {
  auto plan = MakePlan(Spec(R"(
steps:
- {id: start, agent: {agent: a}}
- {id: left, agent: {agent: a}, depends_on: [start]}
- id: right
  depends_on: [start]
  pipeline: {stages: [{id: one, steps: [{id: x, agent: {agent: a}}, {id: y, agent: {agent: a}}]}]}
- {id: end, agent: {agent: b}, depends_on: [left, right]}
)"));
  ASSERT_EQ(plan.stages_size(), 3);
  EXPECT_EQ(plan.stages(1).steps_size(), 2);
  EXPECT_EQ(absl::StrJoin(plan.critical_path(), " "), "start right end");
  EXPECT_EQ(plan.critical_path_weight(), 4);
  EXPECT_EQ(plan.max_parallelism(), 2);
}

}  // namespace
}  // namespace tutti::engine::testing
