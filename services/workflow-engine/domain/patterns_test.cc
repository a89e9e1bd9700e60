// Fusion, hedging and stragglers; panels and lessons; supervisor and specialists; whose call goes next; plans.
#include "absl/strings/str_join.h"
#include "services/workflow-engine/domain/plan.h"
#include "services/workflow-engine/domain/routing.h"
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

class SupervisorTest : public InterpreterTest {
 protected:
  void SetUp() override {
    world_.answer = [this](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
      if (target == "boss") return Json{{"subtasks", plan_}};
      if (target == "judge") return verdicts_.empty() ? Json{{"score", 1}} : Take();
      if (fails_.count(target) > 0) return absl::InternalError("cannot");
      asked_.emplace_back(target, input["subtask"]["id"]);
      inputs_.push_back(input);
      return Json(absl::StrCat(target, " did ", input["subtask"]["id"].get<std::string>()));
    };
  }
  Json Take() {
    Json out = verdicts_.front();
    verdicts_.pop_front();
    return out;
  }
  WorkflowSpec Team(const std::string& more = "") {
    return Spec(R"(
steps:
- id: team
  supervisor:
    decomposer: boss
    judge: judge
    specialists:
    - {agent: a, capabilities: [search], expertise: [law, contracts]}
    - {agent: b, capabilities: [sums], expertise: [money]}
)" + more);
  }
  Json plan_ = {{{"id", "find"}, {"task", "find the contracts"}, {"capability", "search"}},
                {{"id", "add"}, {"task", "add up the money"}, {"capability", "sums"}, {"depends_on", {"find"}}}};
  std::deque<Json> verdicts_;
  std::set<std::string> fails_;
  std::vector<std::pair<std::string, std::string>> asked_;
  std::vector<Json> inputs_;
};

TEST_F(SupervisorTest, AfterAFailureNobodyElseIsAsked) {
  plan_ = Json::array();
  for (int i = 0; i < 20; ++i) {
    plan_.push_back({{"id", absl::StrCat("s", i)}, {"task", "find"}, {"capability", "search"}});
  }
  fails_ = {"a", "b"};
  EXPECT_THAT(Walk(Team("    max_concurrency: 1\n"), Json::object(), absl::Seconds(1)),
              HasCode(absl::StatusCode::kInternal));
  EXPECT_GE(world_.calls.size(), 3u);
  for (const auto& call : world_.calls) {
    EXPECT_TRUE(absl::StrContains(call, "/task-s0/") || absl::StrContains(call, "decompose")) << call;
  }
}

TEST_F(SupervisorTest, RoutesByCapabilityAndPassesResultsOn) {
  auto out = Walk(Team());
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(asked_, (std::vector<std::pair<std::string, std::string>>{{"a", "find"}, {"b", "add"}}));
  EXPECT_EQ(inputs_[1]["results"]["find"], "a did find");
  EXPECT_EQ((*out)["score"], 1);
  EXPECT_EQ((*out)["rounds"], 1);
  size_t asked = asked_.size();
  auto again = Walk(Team());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, *out);
  EXPECT_EQ(asked_.size(), asked);
  bool parts = false;
  for (const auto& entry : world_.journal) {
    parts |= entry.step_completed().kind() == "route" &&
             absl::StrContains(entry.step_completed().result().data(), "\"specialisation\"");
  }
  EXPECT_TRUE(parts) << "why somebody was chosen stands in the history";
}

TEST_F(SupervisorTest, SendsBackWhatIsWantingAndWhatBuildsOnIt) {
  plan_.push_back({{"id", "apart"}, {"task", "something else"}});
  verdicts_ = {{{"score", 0.4}, {"feedback", "look again"}, {"refine", {"find"}}}, {{"score", 0.9}}};
  auto out = Walk(Team());
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ((*out)["rounds"], 2);
  ASSERT_EQ(asked_.size(), 5u) << "apart is not done again";
  EXPECT_EQ(inputs_.back()["feedback"], "look again");
}

TEST_F(SupervisorTest, KeepsTheBestAfterTheLastRound) {
  verdicts_ = {{{"score", 0.5}, {"feedback", "x"}}, {{"score", 0.3}, {"feedback", "y"}}, {{"score", 0.2}}};
  auto out = Walk(Team());
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ((*out)["score"], 0.5);
  EXPECT_EQ((*out)["rounds"], 1);
}

TEST_F(SupervisorTest, AnotherSpecialistIsAskedWhenOneFails) {
  fails_ = {"b"};
  auto out = Walk(Team(), Json::object(), absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(asked_.back(), (std::pair<std::string, std::string>{"a", "add"}));
}

TEST_F(SupervisorTest, ABadPlanIsAnErrorThatSaysWhy) {
  for (auto& [plan, why] : std::vector<std::pair<Json, std::string>>{
           {Json::array(), "0 subtasks"},
           {{{{"id", "x"}, {"depends_on", {"y"}}}}, "which is not there"},
           {{{{"id", "x"}, {"depends_on", {"y"}}}, {{"id", "y"}, {"depends_on", {"x"}}}}, "in a circle"},
           {{{{"id", "x"}}, {{"id", "x"}}}, "two subtasks"},
           {{{{"id", "a/b"}}}, "no id"},
           {"text", "a list"}}) {
    world_.journal.clear();
    plan_ = plan;
    EXPECT_THAT(Walk(Team()), HasCodeAndText(absl::StatusCode::kFailedPrecondition, why));
  }
}

TEST_F(SupervisorTest, CompoundSubtasksAreDecomposedAgain) {
  plan_ = {{{"id", "big"}, {"task", "much"}, {"compound", true}}, {{"id", "small"}, {"task", "little"}}};
  int levels = 0;
  auto before = world_.answer;
  world_.answer = [&, before](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "boss" && ++levels > 1) return Json{{"subtasks", {{{"id", "part"}, {"task", "a part"}}}}};
    return before(target, input);
  };
  auto out = Walk(Team("    strategy: hierarchical\n"));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(levels, 2);
  EXPECT_EQ((*out)["result"][0]["result"]["part"], "a did part");
}

TEST(RouteTest, ScoresByTheGivenWeights) {
  tutti::workflow::v1::SupervisorStep step;
  for (const char* name : {"x", "y"}) step.add_specialists()->set_agent(name);
  step.mutable_specialists(0)->add_capabilities("c");
  step.mutable_specialists(1)->add_expertise("tax law");
  SpecialistRecords records;
  for (int i = 0; i < 2; ++i) records.Begin("x");
  records.End("x", false);
  RouteQuestion question{"about tax", {"c"}, {}, [](const std::string& agent) { return agent; }};
  auto ranked = Route(step, question, records);
  // x: 0.3×1 + 0.3×0 + 0.2×0.5 + 0.2×0 = 0.4; y: 0.3×0 + 0.3×1 + 0.2×1 + 0.2×0.5 = 0.6.
  EXPECT_EQ(ranked[0].agent, "y");
  EXPECT_NEAR(ranked[0].score, 0.6, 1e-9);
  EXPECT_NEAR(ranked[1].score, 0.4, 1e-9);
  question.failed = {"y"};
  EXPECT_EQ(Route(step, question, records)[0].agent, "x");
  // Half of what is needed is half as good.
  question.capabilities = {"c", "d"};
  EXPECT_NEAR(Route(step, question, records)[0].capability, 0.5, 1e-9);
}

TEST(RouteTest, RecentCallsCountMoreAndWhatSaysNothingDoesNotCount) {
  SpecialistRecords records;
  auto call = [&](std::optional<bool> good) {
    records.Begin("x");
    records.End("x", good);
  };
  EXPECT_EQ(records.success("x"), 1) << "nothing is known against it";
  call(false);
  EXPECT_EQ(records.success("x"), 0);
  call(std::nullopt);
  EXPECT_EQ(records.success("x"), 0);
  call(true);
  EXPECT_NEAR(records.success("x"), 1 / 1.95, 1e-9);
  EXPECT_EQ(records.under_way("x"), 0);
}

TEST_F(SupervisorTest, PastSuccessIsThatOfAllRuns) {
  plan_ = Json::array({{{"id", "find"}, {"task", "find"}}});
  fails_ = {"a"};
  ASSERT_THAT(Walk(Team(), Json::object(), absl::Seconds(1)), IsOk());
  EXPECT_EQ(asked_.back().first, "b");
  world_.journal.clear();  // another run
  fails_.clear();
  ASSERT_THAT(Walk(Team(), Json::object(), absl::Seconds(1)), IsOk());
  EXPECT_EQ(asked_.back().first, "b") << "a has failed before";
  // Walking it again is no more experience.
  const double known = world_.specialists.success("b");
  ASSERT_THAT(Walk(Team()), IsOk());
  EXPECT_EQ(world_.specialists.success("b"), known);
}

TEST_F(SupervisorTest, TheBoundOfSubtasksHoldsForAllLevelsTogether) {
  plan_ = {{{"id", "big"}, {"task", "much"}, {"compound", true}},
           {{"id", "vast"}, {"task", "more"}, {"compound", true}}};
  int levels = 0;
  auto before = world_.answer;
  world_.answer = [&, before](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "boss" && ++levels > 1) {
      return Json{{"subtasks", {{{"id", "one"}, {"task", "1"}}, {{"id", "two"}, {"task", "2"}}}}};
    }
    return before(target, input);
  };
  world_.hold = true;
  size_t most = 0;
  on_held_ = [&] {
    size_t working = 0;
    for (const auto& call : world_.calls) working += absl::StrContains(call, "/work/") ? 1 : 0;
    most = std::max(most, working - asked_.size());
    LetGo(0);
  };
  ASSERT_THAT(Walk(Team("    strategy: hierarchical\n    max_concurrency: 2\n")), IsOk());
  EXPECT_EQ(asked_.size(), 4u);
  EXPECT_EQ(most, 2u);
}

TEST_F(SupervisorTest, ItsProgressAndItsRoundsAreSeen) {
  verdicts_ = {{{"score", 0.4}, {"feedback", "look again"}}, {{"score", 0.9}}};
  ASSERT_THAT(Walk(Team()), IsOk());
  std::vector<int> seen;
  for (const auto& entry : world_.journal) {
    if (seen.empty() || entry.progress_percent() > seen.back()) seen.push_back(entry.progress_percent());
  }
  // Three rounds of at most four parts: decomposing, two subtasks, judging.
  EXPECT_EQ(seen, (std::vector<int>{0, 8, 16, 24, 41, 49, 57, 99}));
  EXPECT_EQ(world_.observed, (std::vector<std::string>{"supervisor 2 rounds 0.9", "supervisor ended"}));
  ASSERT_THAT(Walk(Team()), IsOk());
  EXPECT_EQ(world_.observed.size(), 2u) << "what is walked again has been told";
}

Task<bool> Take(Admission& admission, Admission::Caller caller, std::vector<std::string>& order,
                std::vector<Admission::Permit>& permits, std::stop_token stop) {
  std::string name = absl::StrCat(caller.tenant, caller.priority);
  Admission::Patience patience{stop};
  auto permit = co_await admission.Enter(std::move(caller), patience);
  if (!permit.ok()) co_return false;
  order.push_back(name);
  permits.push_back(*std::move(permit));
  co_return true;
}

Task<void> TakeInto(Admission& admission, Admission::Caller caller, std::vector<std::string>& order,
                    std::vector<Admission::Permit>& permits, std::stop_token stop) {
  co_await Take(admission, std::move(caller), order, permits, stop);
}

TEST(AdmissionTest, OneTenantsFloodDoesNotStarveAnotherAndPriorityGoesFirst) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 2});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  auto enter = [&](const char* tenant, int priority, std::stop_token stop = {}) {
    Admission::Caller caller;
    caller.tenant = tenant;
    caller.priority = priority;
    scope.Spawn(executor, TakeInto(admission, caller, order, permits, stop));
    executor.RunUntilIdle();
  };
  std::stop_source gone;
  for (int i = 0; i < 5; ++i) enter("flood", 0);
  enter("small", 0);
  enter("small", 0, gone.get_token());
  enter("flood", 9);
  EXPECT_EQ(order, (std::vector<std::string>{"flood0", "flood0"}));
  gone.request_stop();
  executor.RunUntilIdle();
  while (!permits.empty()) {
    permits.erase(permits.begin());
    executor.RunUntilIdle();
  }
  EXPECT_EQ(order, (std::vector<std::string>{"flood0", "flood0", "flood9", "small0", "flood0", "flood0", "flood0"}));
  EXPECT_EQ(admission.under_way(), 0);
  EXPECT_EQ(admission.waiting(), 0u);
}

TEST(AdmissionTest, AWorkflowOrATargetAtItsLimitDoesNotBlockOthers) {
  for (bool by_target : {false, true}) {
    ManualExecutor executor;
    ManualTime time;
    Admission::Limits limits{.total = 10};
    (by_target ? limits.per_target : limits.per_workflow) = 1;
    Admission admission(executor, time, limits);
    std::vector<std::string> order;
    std::vector<Admission::Permit> permits;
    Scope scope;
    auto enter = [&](const char* tenant, const char* what) {
      Admission::Caller caller;
      caller.tenant = tenant;
      (by_target ? caller.target : caller.workflow) = what;
      scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
      executor.RunUntilIdle();
    };
    enter("a", "busy");
    enter("b", "busy");
    enter("c", "free");
    EXPECT_EQ(order, (std::vector<std::string>{"a0", "c0"})) << by_target;
    permits.erase(permits.begin());
    executor.RunUntilIdle();
    EXPECT_EQ(order, (std::vector<std::string>{"a0", "c0", "b0"})) << by_target;
    permits.clear();
  }
}

TEST(AdmissionTest, ManyWhoGaveUpLeaveNothingBehind) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  std::stop_source gone;
  for (int i = 0; i < 200; ++i) {
    Admission::Caller caller;
    caller.tenant = "t";
    scope.Spawn(executor,
                TakeInto(admission, caller, order, permits, i == 0 || i == 199 ? std::stop_token() : gone.get_token()));
  }
  executor.RunUntilIdle();
  gone.request_stop();
  executor.RunUntilIdle();
  permits.clear();
  executor.RunUntilIdle();
  EXPECT_EQ(order.size(), 2u);
  EXPECT_EQ(admission.waiting(), 0u);
}

TEST(AdmissionTest, WhoseTimeIsOverWhileItWaitsIsToldSo) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1});
  auto enter = [](Admission& at, absl::Duration at_most,
                  std::optional<absl::StatusOr<Admission::Permit>>& out) -> Task<void> {
    Admission::Caller caller;
    caller.target = "slow";
    Admission::Patience patience{{}, at_most};
    out.emplace(co_await at.Enter(std::move(caller), patience));
  };
  std::optional<absl::StatusOr<Admission::Permit>> first, second, third;
  Scope scope;
  scope.Spawn(executor, enter(admission, absl::Seconds(5), first));
  scope.Spawn(executor, enter(admission, absl::Seconds(5), second));
  scope.Spawn(executor, enter(admission, absl::Seconds(50), third));
  executor.RunUntilIdle();
  ASSERT_TRUE(first && first->ok());
  time.Advance(absl::Seconds(5));
  executor.RunUntilIdle();
  ASSERT_TRUE(second.has_value());
  EXPECT_THAT(*second, HasCodeAndText(absl::StatusCode::kDeadlineExceeded, "before its turn came: slow"));
  EXPECT_FALSE(third.has_value());
  EXPECT_EQ(admission.waiting(), 1u);
  first.reset();
  executor.RunUntilIdle();
  ASSERT_TRUE(third && third->ok());
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(time.pending(), 0u) << "no timer is left behind";
}

TEST(AdmissionTest, ARunAtItsOwnLimitDoesNotBlockOthers) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 10, .per_run = 1, .max_waiting = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  auto enter = [&](const char* run, const char* tenant) {
    Admission::Caller caller;
    caller.run_id = run;
    caller.tenant = tenant;
    scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
    executor.RunUntilIdle();
  };
  enter("r1", "a");
  enter("r1", "b");  // waits for its run
  EXPECT_EQ(order.size(), 1u);
  EXPECT_EQ(admission.waiting(), 1u);
  enter("r1", "c");  // one too many
  EXPECT_EQ(admission.waiting(), 1u);
  permits.clear();
  executor.RunUntilIdle();
  EXPECT_EQ(order, (std::vector<std::string>{"a0", "b0"}));
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
