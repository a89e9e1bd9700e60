// The walk, its recovery, and the patterns of the walking suite, against a world that does as it is told.
#include <cmath>

#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

TEST_F(InterpreterTest, RunsStepsInOrderAndPassesResultsOn) {
  auto spec = Spec(
      "steps:\n- {id: one, agent: {agent: a, input: {n: '${ .input.n }'}}}\n- {id: two, transform: {value: '${ .one.n "
      "+ 1 }'}}\n");
  auto out = Walk(spec, {{"n", 41}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json(42));
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/one/1"}));
}

TEST_F(InterpreterTest, NeverRepeatsACompletedStepWhereverItCrashes) {
  auto spec = Spec(R"(
steps:
- {id: one, tool: {tool: t, parameters: {k: 1}}}
- id: both
  parallel:
    branches:
    - {id: left, steps: [{id: l1, tool: {tool: t}}, {id: l2, tool: {tool: t}}]}
    - {id: right, steps: [{id: r1, agent: {agent: a}}]}
- id: flow
  pipeline:
    stages:
    - {id: s1, steps: [{id: w, agent: {agent: b}}], gate: {expression: 'true'}}
- {id: last, agent: {agent: a, input: {x: '${ .both.left }'}}}
)");
  for (int crash_after = 0; crash_after < 12; ++crash_after) {
    world_.journal.clear();
    world_.calls.clear();
    world_.commits_until_crash = crash_after;
    auto first = Walk(spec);
    std::set<std::string> completed;
    for (const auto& entry : world_.journal) {
      if (entry.has_step_completed()) completed.insert(absl::StrCat("run1/", entry.step_completed().path(), "/1"));
    }
    world_.calls.clear();
    world_.commits_until_crash = -1;
    auto second = Walk(spec);
    ASSERT_THAT(second, IsOk()) << crash_after;
    for (const auto& key : world_.calls)
      EXPECT_EQ(completed.count(key), 0u) << key << " ran again after crash " << crash_after;
    std::set<std::string> all = completed;
    all.insert(world_.calls.begin(), world_.calls.end());
    EXPECT_TRUE(all.count("run1/last/1")) << crash_after;
    if (first.ok()) break;
  }
}

TEST_F(InterpreterTest, RetriesWithBackoffAndGivesUpAfterTheLastAttempt) {
  auto spec = Spec("steps:\n- {id: one, agent: {agent: a}, retry: {max_attempts: 3, initial_backoff: 10s}}\n");
  int failures = 2;
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> {
    if (failures-- > 0) return absl::UnavailableError("away");
    return Json("done");
  };
  absl::Time start = world_.time.Now();
  auto out = Walk(spec, {}, absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/one/1", "run1/one/2", "run1/one/3"}));
  absl::Duration waited = world_.time.Now() - start;
  EXPECT_GE(waited, absl::Seconds(24)) << "8 to 12 s, then 16 to 24 s";
  EXPECT_LE(waited, absl::Seconds(38));

  world_.journal.clear();
  failures = 100;
  EXPECT_THAT(Walk(spec, {}, absl::Seconds(1)), HasCodeAndText(absl::StatusCode::kUnavailable, "step one: away"));
}

TEST_F(InterpreterTest, DoesNotRetryWhatAnotherAttemptCannotMend) {
  auto spec = Spec("steps:\n- {id: one, agent: {agent: a}, retry: {max_attempts: 5}}\n");
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> {
    return absl::InvalidArgumentError("bad");
  };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(world_.calls.size(), 1u);
}

TEST_F(InterpreterTest, AFailedStepStaysFailedAfterRecovery) {
  auto spec = Spec("steps:\n- {id: one, agent: {agent: a}}\n");
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> {
    return absl::UnavailableError("away");
  };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kUnavailable));
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> { return Json(1); };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_EQ(world_.calls.size(), 1u);
}

TEST_F(InterpreterTest, SkipsAndRemembersThatItSkipped) {
  auto spec = Spec(
      "steps:\n- {id: one, when: '${ .input.go }', agent: {agent: a}}\n- {id: two, transform: {value: '${ .one }'}}\n");
  auto out = Walk(spec, {{"go", false}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json(nullptr));
  EXPECT_TRUE(world_.calls.empty());
  EXPECT_TRUE(world_.journal[0].step_completed().skipped());
}

TEST_F(InterpreterTest, AGraphRunsWhatCanRunAtTheSameTime) {
  auto spec = Spec(R"(
steps:
- {id: a1, tool: {tool: t}}
- {id: a2, tool: {tool: t}}
- {id: join, depends_on: [a1, a2], tool: {tool: t}}
- {id: side, depends_on: [a1], tool: {tool: t}}
)");
  world_.hold = true;
  std::vector<size_t> at_once;
  on_held_ = [&] {
    at_once.push_back(world_.held.size());
    LetGo(0);
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(at_once.at(0), 2u) << "both roots wait together";
  EXPECT_EQ(world_.calls.size(), 4u);
  EXPECT_EQ(world_.calls[0], "run1/a1/1");
  EXPECT_EQ(world_.calls[2], "run1/side/1") << "side needs only a1";
  EXPECT_TRUE(out->contains("join") && out->contains("side") && out->size() == 2);
}

TEST_F(InterpreterTest, AFailureInAGraphStopsTheRest) {
  auto spec = Spec(
      "steps:\n- {id: bad, tool: {tool: t, parameters: {fail: true}}}\n- {id: after, depends_on: [bad], tool: {tool: "
      "t}}\n- {id: beside, tool: {tool: t}}\n");
  world_.hold = true;
  world_.answer = [](const std::string&, const Json& in) -> absl::StatusOr<Json> {
    if (in.contains("fail")) return absl::InvalidArgumentError("no");
    return Json(1);
  };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(world_.calls.size(), 2u) << "`after` never ran";
}

TEST_F(InterpreterTest, ParallelKeepsItsLimitAndMayAllowFailures) {
  std::string branches;
  for (int i = 0; i < 5; ++i)
    branches += absl::StrCat("    - {id: b", i, ", steps: [{id: s, tool: {tool: t, parameters: {i: ", i, "}}}]}\n");
  auto spec = Spec("steps:\n- id: p\n  parallel:\n    max_concurrency: 2\n    allow_failures: true\n    branches:\n" +
                   branches);
  world_.hold = true;
  size_t most = 0;
  on_held_ = [&] {
    most = std::max(most, world_.held.size());
    LetGo(0);
  };
  world_.answer = [](const std::string&, const Json& in) -> absl::StatusOr<Json> {
    if (in["i"] == 3) return absl::InvalidArgumentError("no");
    return in["i"];
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(most, 2u);
  EXPECT_EQ(out->dump(), R"({"b0":0,"b1":1,"b2":2,"b3":null,"b4":4})");
}

TEST_F(InterpreterTest, SwitchTakesTheFirstCaseThatHolds) {
  auto spec = Spec(R"(
steps:
- id: s
  switch:
    cases:
    - {when: '${ .input.n > 10 }', steps: [{id: x, transform: {value: big}}]}
    - {when: '${ .input.n > 5 }', steps: [{id: x, transform: {value: middle}}]}
    default: [{id: x, transform: {value: small}}]
)");
  EXPECT_EQ(*Walk(spec, {{"n", 11}}), Json("big"));
  world_.journal.clear();
  EXPECT_EQ(*Walk(spec, {{"n", 6}}), Json("middle"));
  world_.journal.clear();
  EXPECT_EQ(*Walk(spec, {{"n", 1}}), Json("small"));
}

TEST_F(InterpreterTest, AGateSendsTheStageBackWithFeedback) {
  auto spec = Spec(R"(
steps:
- id: p
  pipeline:
    stages:
    - id: writing
      steps: [{id: w, agent: {agent: a, input: {feedback: '${ .feedback }'}}}]
      gate: {tool: {tool: check, parameters: {out: '${ .output }'}}, max_attempts: 3}
)");
  std::vector<Json> inputs;
  world_.answer = [&](const std::string& target, const Json& in) -> absl::StatusOr<Json> {
    if (target == "check") return Json{{"passed", inputs.size() >= 2}, {"score", 0.5}, {"feedback", "more"}};
    inputs.push_back(in);
    return Json("text");
  };
  ASSERT_THAT(Walk(spec), IsOk());
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_TRUE(inputs[0]["feedback"].is_null());
  EXPECT_EQ(inputs[1]["feedback"], "more");
  EXPECT_EQ(world_.calls.at(2), "run1/p/writing/attempt-2/w/1") << "a second attempt is another step";
  EXPECT_EQ(last_percent_, 99) << "the last percent is the run's own end";
}

TEST_F(InterpreterTest, AGateThatNeverPassesFailsTheRun) {
  auto spec = Spec(
      "steps:\n- id: p\n  pipeline: {stages: [{id: d, steps: [{id: w, agent: {agent: a}}], gate: {expression: '${ "
      ".output == 1 }', max_attempts: 2}}]}\n");
  EXPECT_THAT(Walk(spec),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "did not pass its quality gate after 2 attempts"));
}

TEST_F(InterpreterTest, ReflectKeepsTheBestVersionNotTheLast) {
  auto spec = Spec(R"(
steps:
- id: r
  reflect:
    generate: [{id: g, agent: {agent: a, input: {round: '${ .round }'}}}]
    critique: [{id: c, agent: {agent: judge, input: {draft: '${ .draft }'}}}]
    improve: [{id: i, agent: {agent: b, input: {round: '${ .round }', critique: '${ .critique.feedback }'}}}]
    threshold: 0.95
    max_rounds: 3
)");
  world_.answer = [](const std::string& target, const Json& in) -> absl::StatusOr<Json> {
    if (target != "judge") return absl::StrCat("version ", in["round"].get<int>());
    double score = in["draft"] == "version 2" ? 0.9 : 0.5;
    return Json{{"score", score}, {"feedback", "f"}};
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("version 2"));
  EXPECT_EQ(world_.calls.size(), 6u);
}

TEST_F(InterpreterTest, StopEndsTheWalkAndLeavesNoFailureBehind) {
  auto spec =
      Spec("steps:\n- {id: one, agent: {agent: a}, retry: {max_attempts: 5}}\n- {id: two, agent: {agent: a}}\n");
  world_.hold = true;
  on_held_ = [&] {
    world_.held.clear();
    stop_.request_stop();
  };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kCancelled));
  for (const auto& entry : world_.journal) EXPECT_FALSE(entry.has_step_failed());
}

TEST_F(InterpreterTest, TimeIsBoundedByTheOuterStep) {
  auto spec = Spec(
      "steps:\n- {id: p, timeout: 10s, parallel: {branches: [{id: b, steps: [{id: s, agent: {agent: a}, retry: "
      "{max_attempts: 100, initial_backoff: 4s, max_backoff: 4s}}]}]}}\n");
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> {
    return absl::UnavailableError("away");
  };
  EXPECT_FALSE(Walk(spec, {}, absl::Seconds(1)).ok());
  EXPECT_LE(world_.calls.size(), 5u) << "retries end with the outer step's time";
}

TEST_F(InterpreterTest, AGraphStepSeesOnlyWhatItDependsOn) {
  // Whether `t` has ended when `s` begins is chance; a replay must not see another world than the first walk.
  auto spec = Spec(R"(
steps:
- {id: t, tool: {tool: t}}
- {id: root, transform: {value: 1}}
- {id: s, depends_on: [root], transform: {value: '${ .t }'}}
)");
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_TRUE((*out)["s"].is_null());
}

TEST_F(InterpreterTest, AResultThatCouldNotBeReadAgainFailsTheStep) {
  auto spec = Spec("steps:\n- {id: one, agent: {agent: a}}\n");
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> {
    Json deep = 1;
    for (int i = 0; i < 60; ++i) deep = Json::array({deep});
    return deep;
  };
  EXPECT_THAT(Walk(spec), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "nested deeper than 30"));
  world_.journal.clear();
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> { return std::string(5 << 20, 'x'); };
  EXPECT_THAT(Walk(spec), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "the limit is 4194304"));
}

// Each line of the issue's list of wrong specs.
TEST(ValidatorTest, NamesTheFieldOfEachMistake) {
  Evaluator evaluator;
  struct Case {
    const char* yaml;
    const char* field;
    const char* text;
  };
  for (const Case& c : std::vector<Case>{
           {"name: Bad_Name\nsteps: [{id: a, transform: {value: 1}}]", "name", "must match"},
           {"name: x\nsteps: []", "steps", "at least one"},
           {"name: x\nsteps: [{id: a, agent: {agent: reseacher}}]", "steps[0].agent.agent",
            "did you mean \"researcher\"?"},
           {"name: x\nsteps: [{id: a, tool: {tool: nope}}]", "steps[0].tool.tool", "no tool \"nope\""},
           {"name: x\nsteps: [{id: a, transform: {value: 1}}, {id: a, transform: {value: 1}}]", "steps[1].id",
            "duplicate id"},
           {"name: x\nsteps: [{id: input, transform: {value: 1}}]", "steps[0].id", "reserved"},
           {"name: x\nsteps: [{id: a, depends_on: [b], transform: {value: 1}}, {id: b, depends_on: [a], transform: "
            "{value: 1}}]",
            "steps[1].depends_on", "cycle: a -> b -> a"},
           {"name: x\nsteps: [{id: a, depends_on: [zz], transform: {value: 1}}]", "steps[0].depends_on[0]",
            "no step \"zz\""},
           {"name: x\nsteps: [{id: a, when: '${ 1 + }', transform: {value: 1}}]", "steps[0].when", "syntax error"},
           {"name: x\nsteps: [{id: a, transform: {value: {deep: ['${ .b[ }']}}}]", "steps[0].transform.value",
            "${ .b[ }"},
           {"name: x\nsteps: [{id: a}]", "steps[0]", "has no kind"},
           {"name: x\nsteps: [{id: a, transform: {value: 1}, retry: {retryable_codes: [NOPE]}}]",
            "steps[0].retry.retryable_codes[0]", "no gRPC status code"},
           {"name: x\ninput_schema: {type: 7}\nsteps: [{id: a, transform: {value: 1}}]", "input_schema",
            "itself wrong"},
           {"name: x\nsteps: [{id: p, pipeline: {stages: [{id: s, steps: [{id: a, transform: {value: 1}}], gate: "
            "{}}]}}]",
            "steps[0].pipeline.stages[0].gate", "has no check"}}) {
    WorkflowSpec spec;
    ASSERT_THAT(ParseYaml(c.yaml, "f", &spec), IsOk()) << c.yaml;
    absl::Status status = ValidateSpec(spec, {{{"researcher", ""}}, {{"calculate", ""}}}, evaluator);
    ASSERT_THAT(status, HasCode(absl::StatusCode::kInvalidArgument)) << c.yaml;
    auto violations = ViolationsOf(status);
    ASSERT_FALSE(violations.empty());
    EXPECT_EQ(violations[0].field, c.field) << c.yaml;
    EXPECT_TRUE(absl::StrContains(violations[0].description, c.text)) << violations[0].description;
  }
}

TEST_F(InterpreterTest, NumbersThatAreNoneAreRefused) {
  Evaluator evaluator;
  WorkflowSpec spec = Spec(
      "steps:\n- id: both\n  parallel: {branches: [{id: a, steps: [{id: x, transform: {value: 1}}]}], fusion: {method: "
      "weighted_vote, weights: {a: 1}}}\n");
  (*spec.mutable_steps(0)->mutable_parallel()->mutable_fusion()->mutable_weights())["a"] = NAN;
  spec.mutable_steps(0)->mutable_retry()->set_backoff_multiplier(INFINITY);
  absl::Status status = ValidateSpec(spec, {}, evaluator);
  EXPECT_THAT(status, HasCodeAndText(absl::StatusCode::kInvalidArgument,
                                     "steps[0].parallel.fusion.weights[0].value: must be a finite number"));
  EXPECT_THAT(status, HasCodeAndText(absl::StatusCode::kInvalidArgument,
                                     "steps[0].retry.backoff_multiplier: must be a finite number"));
}

}  // namespace
}  // namespace tutti::engine::testing
