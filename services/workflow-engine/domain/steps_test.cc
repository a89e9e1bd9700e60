// The steps beyond the walking suite's, and what any step may have.
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

using ::testing::_;

TEST_F(InterpreterTest, ForEachKeepsTheItemsOrderWhateverEndsFirst) {
  auto spec = Spec(R"(
steps:
- id: each
  for_each:
    items: .input.list
    max_concurrency: 3
    steps: [{id: one, agent: {agent: a, input: '${ .item * 10 + .index }'}}]
)");
  world_.hold = true;
  size_t most = 0;
  on_held_ = [&] {
    most = std::max(most, world_.held.size());
    LetGo(world_.held.size() - 1);
  };
  auto out = Walk(spec, {{"list", {1, 2, 3, 4, 5}}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, (Json{10, 21, 32, 43, 54}));
  EXPECT_EQ(most, 3u);
}

TEST_F(InterpreterTest, AFailedItemLeavesNullWhenThatIsAllowed) {
  world_.answer = [](const std::string&, const Json& input) -> absl::StatusOr<Json> {
    if (input == Json(2)) return absl::InvalidArgumentError("two");
    return input;
  };
  std::string steps = "{items: .input.list, steps: [{id: one, agent: {agent: a, input: '${ .item }'}}]";
  auto out =
      Walk(Spec("steps:\n- {id: each, for_each: " + steps + ", allow_failures: true}}\n"), {{"list", {1, 2, 3}}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, (Json{1, nullptr, 3}));
  world_.journal.clear();
  EXPECT_THAT(Walk(Spec("steps:\n- {id: each, for_each: " + steps + "}}\n"), {{"list", {1, 2, 3}}}),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "each/1/one"));
  world_.journal.clear();
  EXPECT_THAT(Walk(Spec("steps:\n- {id: each, for_each: " + steps + "}}\n"), {{"list", 7}}),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "items must be a list"));
}

TEST_F(InterpreterTest, WhileSeesItsLastOutputAndGoesOnFromACheckpoint) {
  auto spec = Spec(R"(
steps:
- id: loop
  while:
    condition: .iteration < 1200
    max_iterations: 2000
    steps: [{id: add, agent: {agent: a, input: '${ (.last // 0) + 1 }'}}]
)");
  world_.commits_until_crash = 1100;
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kAborted));
  EXPECT_EQ(world_.calls.size(), 1101u);
  // What the store keeps of a long journal: the checkpoint instead of what came before it.
  std::vector<JournalEntry> kept;
  for (const auto& entry : world_.journal) {
    if (entry.has_loop_checkpoint()) kept.clear();
    kept.push_back(entry);
  }
  EXPECT_LT(kept.size(), 400u);
  world_.journal = kept;
  world_.commits_until_crash = -1;
  world_.calls.clear();
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json(1200));
  EXPECT_EQ(world_.calls.size(), 100u);
}

TEST_F(InterpreterTest, AWhileThatDoesNotEndFails) {
  EXPECT_THAT(Walk(Spec("steps:\n- {id: loop, while: {condition: 'true', max_iterations: 5, steps: [{id: x, transform: "
                        "{value: 1}}]}}\n")),
              HasCodeAndText(absl::StatusCode::kOutOfRange, "after 5 iterations"));
}

// Another attempt begins its own budgets anew, and not those around it; what is done instead is bound by neither.
TEST_F(InterpreterTest, LoopsAndReflectionsShowHowFarTheyAre) {
  auto spec = Spec(R"(
steps:
- {id: each, for_each: {items: '[1, 2, 3, 4]', steps: [{id: ask, agent: {agent: a, input: '${ .item }'}}]}}
- id: write
  reflect:
    generate: [{id: make, agent: {agent: a, input: draft}}]
    critique: [{id: judge, agent: {agent: judge, input: '${ .draft }'}}]
    max_rounds: 4
)");
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    return target == "judge" ? Json{{"score", 0.5}} : input;
  };
  ASSERT_THAT(Walk(spec), IsOk());
  std::vector<int> seen;
  for (const auto& entry : world_.journal) {
    if (seen.empty() || entry.progress_percent() > seen.back()) seen.push_back(entry.progress_percent());
  }
  // The loop weighs a third, of which each item is a quarter; each of four rounds is half done with its draft.
  EXPECT_EQ(seen, (std::vector<int>{0, 8, 16, 24, 33, 41, 49, 57, 66, 74, 82, 90, 99}));
  EXPECT_EQ(world_.observed, (std::vector<std::string>{"for_each ended", "reflect 4 rounds 0.5", "reflect ended"}));
}

TEST_F(InterpreterTest, ConditionsStandBeforeAndAfterAStep) {
  auto spec = Spec(R"(
steps:
- id: pay
  agent: {agent: a, input: {amount: '${ .input.amount }'}}
  preconditions: [{expression: .input.amount > 0, message: 'nothing to pay: ${ .input.amount }'}]
  postconditions: [{expression: .output.amount < 100}]
)");
  EXPECT_THAT(Walk(spec, {{"amount", 5}}), IsOk());
  world_.journal.clear();
  world_.calls.clear();
  EXPECT_THAT(Walk(spec, {{"amount", 0}}), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "nothing to pay: 0"));
  EXPECT_TRUE(world_.calls.empty());
  world_.journal.clear();
  EXPECT_THAT(Walk(spec, {{"amount", 500}}),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "this does not hold: .output.amount < 100"));
}

TEST_F(InterpreterTest, FallbacksAreTriedInOrderAndHandlersSeeTheError) {
  auto spec = Spec(R"(
steps:
- id: ask
  agent: {agent: a}
  retry: {max_attempts: 2}
  fallback:
  - {id: other, agent: {agent: b}}
  - {id: third, agent: {agent: c}}
  on_error:
  - codes: [NOT_FOUND]
    steps: [{id: never, transform: {value: 0}}]
  - steps: [{id: note, transform: {value: '${ .error }'}}]
)");
  world_.answer = [](const std::string& target, const Json&) -> absl::StatusOr<Json> {
    if (target == "c") return Json("third");
    return absl::UnavailableError("away");
  };
  auto out = Walk(spec, Json::object(), absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("third"));
  EXPECT_EQ(world_.calls.size(), 4u);
  world_.journal.clear();
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> {
    return absl::UnavailableError("away");
  };
  out = Walk(spec, Json::object(), absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ((*out)["code"], "UNAVAILABLE");
  EXPECT_EQ((*out)["step"], "ask/fallback-1");
  EXPECT_EQ((*out)["attempt"], 1);
  world_.calls.clear();
  auto again = Walk(spec);  // a replay of it all
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, *out);
  EXPECT_TRUE(world_.calls.empty());
}

TEST_F(InterpreterTest, AFailStepFailsAndTheRunsHandlerMayCatchIt) {
  auto spec = Spec(
      "steps:\n- {id: no, fail: {code: ABORTED, reason: TOO_BAD, message: 'for ${ .input.who }'}}\non_error:\n- "
      "{reasons: "
      "[TOO_BAD], steps: [{id: x, transform: {value: '${ .error.message }'}}]}\n");
  auto out = Walk(spec, {{"who", "you"}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("step no: for you"));
}

TEST_F(InterpreterTest, NobodysErrorCanPretendToEndTheWalk) {
  auto out = Walk(Spec("steps:\n- {id: no, fail: {code: ABORTED, reason: LEASE_LOST, message: x}}\n"));
  EXPECT_FALSE(EndsWalk(out.status()));
  EXPECT_TRUE(world_.journal.back().has_step_failed());
}

TEST_F(InterpreterTest, ACallThatWaitedOverTheLeasesEndIsBegunUnderTheNextLeaseOrNotAtAll) {
  auto spec = Spec("steps:\n- {id: one, tool: {tool: t}}\n");
  const absl::Status late = Error(absl::StatusCode::kAborted, "START_TOO_LATE", "nothing was sent");
  absl::Time owned = absl::InfiniteFuture();
  owned_until_ = [&owned] { return owned; };
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> {
    if (world_.calls.size() == 1) return late;
    return Json("done");
  };
  EXPECT_THAT(Walk(spec), IsOk());
  ASSERT_EQ(world_.calls.size(), 2U);
  EXPECT_EQ(world_.calls[0], world_.calls[1]) << "the same attempt";
  world_.calls.clear();
  world_.journal.clear();
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> {
    owned = absl::InfinitePast();
    return late;
  };
  EXPECT_EQ(ReasonOf(Walk(spec).status()), "LEASE_LOST");
  EXPECT_EQ(world_.calls.size(), 1U);
  for (const auto& entry : world_.journal) EXPECT_FALSE(entry.has_step_failed()) << "it is another engine's step";
}

TEST_F(InterpreterTest, AHostWhoseConnectionsTakeLongerThanALeaseIsReachedInTheEnd) {
  owned_until_ = [this] { return world_.time.Now() + absl::Seconds(10); };
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> {
    if (world_.start_by == absl::InfiniteFuture()) return Json("done");
    return Error(absl::StatusCode::kAborted, "START_TOO_LATE", "nothing was sent");
  };
  EXPECT_THAT(Walk(Spec("steps:\n- {id: one, tool: {tool: t}}\n")), IsOk());
  EXPECT_EQ(world_.calls, std::vector<std::string>(3, world_.calls[0])) << "the same attempt";
}

TEST_F(InterpreterTest, ARunOfVersion01IsLedNoOtherWayByWhatAnExpressionMeansNow) {
  // The second spec stands for the first, read by another version.
  const std::pair<std::string, std::string> specs[] = {
      {"steps:\n- id: one\n  switch: {cases: [{when: 'true', steps: [{id: a, tool: {tool: t}}]}], default: [{id: b, "
       "tool: "
       "{tool: t}}]}\n",
       "steps:\n- id: one\n  switch: {cases: [{when: 'false', steps: [{id: a, tool: {tool: t}}]}], default: [{id: b, "
       "tool: "
       "{tool: t}}]}\n"},
      {"steps:\n- {id: one, while: {condition: .iteration < 3, steps: [{id: a, tool: {tool: t}}]}}\n",
       "steps:\n- {id: one, while: {condition: .iteration < 2, steps: [{id: a, tool: {tool: t}}]}}\n"},
      {"steps:\n- {id: one, for_each: {items: '[1, 2, 3]', steps: [{id: a, tool: {tool: t}}]}}\n",
       "steps:\n- {id: one, for_each: {items: '[1, 2]', steps: [{id: a, tool: {tool: t}}]}}\n"}};
  for (const auto& [before, after] : specs) {
    for (int version : {0, 1}) {
      world_.journal.clear();
      ASSERT_THAT(Walk(Spec(before)), IsOk()) << before;
      tutti::state::v1::JournalEntry started;
      started.mutable_run_started()->set_expression_version(version);
      world_.journal.insert(world_.journal.begin(), started);
      EXPECT_THAT(Walk(Spec(before)), IsOk()) << before;
      EXPECT_EQ(ReasonOf(Walk(Spec(after)).status()), version == 0 ? "EXPRESSION_CHANGED" : "") << after;
    }
  }
}

TEST_F(InterpreterTest, WhatARunHoldsIsBounded) {
  const std::string megabytes(3 << 20, 'x');
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> { return Json(megabytes); };
  // A loop whose checkpoints stand for its results may go on; a list of results may not grow without bound.
  auto loop = Spec(
      "steps:\n- {id: l, while: {condition: .iteration < 120, max_iterations: 1000, steps: [{id: a, tool: "
      "{tool: t}}]}}\n- {id: end, transform: {value: done}}\n");
  auto looped = Walk(loop);
  world_.journal.clear();
  auto list = Spec("steps:\n- {id: l, for_each: {items: '[range(60)]', steps: [{id: a, tool: {tool: t}}]}}\n");
  auto listed = Walk(list);
  EXPECT_EQ(ReasonOf(listed.status()), "RESULTS_TOO_LARGE");
  EXPECT_THAT(looped, IsOk());
  // The results of one run of a tenant count for its next run.
  world_.journal.clear();
  tenant_results_ = std::make_shared<ResultMeter>(nullptr, size_t{8} << 20, "the tenant");
  auto few = Spec("steps:\n- {id: l, for_each: {items: '[range(2)]', steps: [{id: a, tool: {tool: t}}]}}\n");
  ASSERT_THAT(Walk(few), IsOk());
  world_.journal.clear();
  EXPECT_THAT(Walk(few), IsOk()) << "a run that has ended holds nothing";
  world_.journal.clear();
  tenant_results_->Add(size_t{4} << 20);
  EXPECT_EQ(ReasonOf(Walk(few).status()), "RESULTS_TOO_LARGE");
}

TEST_F(InterpreterTest, ACachedAnswerIsNotAskedForAgain) {
  auto spec = Spec("steps:\n- {id: ask, agent: {agent: a, input: {q: '${ .input.q }'}}, cache: {ttl: 60s}}\n");
  ASSERT_THAT(Walk(spec, {{"q", 1}}), IsOk());
  world_.journal.clear();
  auto out = Walk(spec, {{"q", 1}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, (Json{{"q", 1}}));
  EXPECT_EQ(world_.calls.size(), 1u);
  EXPECT_TRUE(world_.journal.back().step_completed().cached());
  world_.journal.clear();
  ASSERT_THAT(Walk(spec, {{"q", 2}}), IsOk());
  EXPECT_EQ(world_.calls.size(), 2u);
}

// Whatever was consumed before a crash counts: by failed attempts, by a block's earlier attempts, behind a loop's
// checkpoint.
TEST_F(InterpreterTest, AGateOnAnyStepSendsItBackWithFeedback) {
  auto spec = Spec(
      "steps:\n- {id: text, agent: {agent: a, input: '${ .feedback }'}, gate: {expression: '.output != null', "
      "max_attempts: 3}}\n");
  world_.answer = [](const std::string&, const Json& input) -> absl::StatusOr<Json> { return input; };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("this does not hold: .output != null"));
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/text/1", "run1/text/gated-2/1"}));
}

TEST_F(InterpreterTest, APipelineGoesBackToANamedStage) {
  auto spec = Spec(R"(
steps:
- id: flow
  pipeline:
    stages:
    - {id: outline, steps: [{id: make, agent: {agent: a, input: '${ .feedback }'}}]}
    - {id: text, steps: [{id: make, agent: {agent: b, input: '${ .outline }'}}], gate: {expression: '.output != null', go_back_to: outline}}
)");
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("this does not hold: .output != null"));
  EXPECT_EQ(world_.calls,
            (std::vector<std::string>{"run1/flow/outline/make/1", "run1/flow/text/make/1",
                                      "run1/flow/outline/visit-2/make/1", "run1/flow/text/visit-2/make/1"}));
  world_.calls.clear();
  EXPECT_THAT(Walk(spec), IsOk());
  EXPECT_TRUE(world_.calls.empty());
}

TEST_F(InterpreterTest, WhatAGateSendsBackIsNotKeptInTheCache) {
  auto spec = Spec(R"(
steps:
- id: ask
  agent: {agent: a, input: {q: 1}}
  cache: {ttl: 60s}
  gate: {expression: '.output == "good"', max_attempts: 3}
)");
  int asked = 0;
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> {
    return Json(++asked < 3 ? "bad" : "good");
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(asked, 3);
  world_.journal.clear();
  out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("good"));
  EXPECT_EQ(asked, 3) << "the one that passed is kept";
}

TEST_F(InterpreterTest, ACallThatIsTurnedAwayComesAgainAndHasLostNothing) {
  auto spec = Spec("steps:\n- {id: ask, agent: {agent: a, input: x}, timeout: 60s}\n");
  int asked = 0;
  world_.answer = [&](const std::string&, const Json& input) -> absl::StatusOr<Json> {
    if (++asked < 4) {
      return absl::Status(
          Error(absl::StatusCode::kResourceExhausted, "MODEL_CALLS_BUSY", "full").RetryAfter(absl::Seconds(2)));
    }
    return input;
  };
  auto out = Walk(spec, Json::object(), absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(world_.calls, std::vector<std::string>(4, "run1/ask/1")) << "the same attempt";
  for (const auto& entry : world_.journal) EXPECT_FALSE(entry.has_step_failed());
}

TEST_F(InterpreterTest, AReflectionKeepsItsBestWhenItsTimeIsOver) {
  auto spec = Spec(R"(
steps:
- id: write
  budget: {time: 10s}
  reflect:
    generate: [{id: make, agent: {agent: a, input: draft}}]
    critique: [{id: judge, agent: {agent: judge, input: '${ .draft }'}}]
    max_rounds: 9
)");
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    world_.time.Advance(absl::Seconds(3));
    if (target == "judge") return Json{{"score", 0.5}, {"feedback", "more"}};
    return input;
  };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
}

TEST_F(InterpreterTest, AnEventIsEmittedWithItsStep) {
  auto spec = Spec(
      "steps:\n- {id: tell, emit: {type: com.example.done, subject: 'run ${ .run.id }', data: {n: '${ .input.n "
      "}'}}}\n");
  ASSERT_THAT(Walk(spec, {{"n", 3}}), IsOk());
  int emitted = 0;
  for (const auto& entry : world_.journal) {
    if (!entry.has_event_emitted()) continue;
    ++emitted;
    EXPECT_EQ(entry.event_emitted().subject(), "run run1");
    EXPECT_EQ(entry.event_emitted().data().data(), "{\"n\":3}");
  }
  EXPECT_EQ(emitted, 1);
}

TEST_F(InterpreterTest, AnAdaptiveStepDoesWhatIsProposedWhenItIsValidAndElseWhatWasPlanned) {
  auto spec =
      Spec("steps:\n- {id: adapt, adaptive: {planner: boss, steps: [{id: planned, transform: {value: planned}}]}}\n");
  Json proposal = {{"steps", {{{"id", "x"}, {"agent", {{"agent", "a"}, {"input", "${ .input.q }"}}}}}}};
  Json asked;
  world_.answer = [&](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "boss") asked = input;
    return target == "boss" ? proposal : input;
  };
  auto out = Walk(spec, {{"q", 4}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json(4));
  EXPECT_EQ(asked["steps"][0]["id"], "planned");
  EXPECT_EQ(asked["agents"][0], (Json{{"name", "a"}, {"role", "does a"}})) << "whom it may use";
  EXPECT_EQ(asked["tools"][1], (Json{{"name", "t"}, {"description", "a tool"}}));
  for (Json wrong :
       {Json{{"steps", {{{"id", "x"}, {"agent", {{"agent", "nobody"}}}}}}},
        Json{{"steps", {{{"id", "x"}, {"sleep", {{"duration", "9s"}}}}}}}, Json("no"), Json{{"steps", 7}}}) {
    world_.journal.clear();
    proposal = wrong;
    out = Walk(spec, {{"q", 4}});
    ASSERT_THAT(out, IsOk()) << wrong;
    EXPECT_EQ(*out, Json("planned")) << wrong;
    bool reasoned = false;
    for (const auto& entry : world_.journal) {
      reasoned |= entry.step_completed().path() == "adapt/proposal" &&
                  absl::StrContains(entry.step_completed().result().data(), "\"reason\"");
    }
    EXPECT_TRUE(reasoned) << wrong;
  }
}

}  // namespace
}  // namespace tutti::engine::testing
