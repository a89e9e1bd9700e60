// A supervisor and its specialists: plans, routes, rounds.
#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/routing.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

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

}  // namespace
}  // namespace tutti::engine::testing
