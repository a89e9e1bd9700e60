// The engine from outside: the examples; runs that wait, are held, signalled, ended, retried and forked; all of it over
// crashes of the whole suite.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "tests/support/postgres_server.h"
#include "tests/support/runs_fixture.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::testing {
namespace {

namespace v1 = tutti::workflow::v1;
using ::testing::HasSubstr;

class EngineTest : public RunsFixture, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    dir_ = NewTempDir("engine");
    SuiteProcess::Options options;
    options.data_dir = dir_;
    options.flags = {"--workflow-engine.lease-duration=1s", "--workflow-engine.park-after=0.2s"};
    if (GetParam()) {
      if (SharedPostgres() == nullptr) GTEST_SKIP() << "no PostgreSQL here";
      options.flags.push_back("--state-manager.postgres.dsn=" +
                              SharedPostgres()->Dsn(*SharedPostgres()->NewDatabase()));
    }
    suite_ = std::make_unique<SuiteProcess>(options);
    ASSERT_TRUE(suite_->Start());
  }
  void TearDown() override {
    suite_.reset();
    std::filesystem::remove_all(dir_);
  }

  static v1::WorkflowSpec Example(const std::string& name) {
    return SpecFromYaml(ReadAll(absl::StrCat(SourceDir(), "/examples/", name, ".yaml")));
  }

  std::string dir_;
};

constexpr char kWaits[] = R"(
name: waits
steps:
- {id: before, agent: {agent: echo, input: before}}
- {id: wait, wait_for_signal: {signal: go}}
- {id: after, agent: {agent: echo, input: '${ .wait }'}}
)";

TEST_P(EngineTest, ExamplesEndWell) {
  const std::map<std::string, std::pair<Json, Json>> examples = {
      {"pipeline", {{{"text", "one two three"}}, {{"words", 3}, {"text", "one two three"}}}},
      {"parallel", {{{"question", "q"}}, {{"question", "q"}, {"answer", "yes"}}}},
      {"reflect", {{{"topic", "tea"}}, "On tea, at length, at length"}},
      {"graph", {{{"n", 7}}, {{"square", "49"}, {"half", "3.5"}}}},
      {"adaptive", {{{"q", 3}}, {{"answer", 3}}}},
      {"for-each",
       {{{"expressions", {"1/2", "2^10", "nonsense"}}}, {{"values", {"0.5", "1024", nullptr}}, {"left", 1}}}},
  };
  for (const auto& [name, given] : examples) {
    SCOPED_TRACE(name);
    v1::StartRunRequest request;
    *request.mutable_spec() = Example(name);
    auto run = Start(std::move(request), given.first, 30);
    ASSERT_THAT(run, IsOk());
    EXPECT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
    EXPECT_EQ(ToJson(run->output()), given.second);
  }
  v1::StartRunRequest team;
  *team.mutable_spec() = Example("supervisor");
  auto run = Start(std::move(team), {{"task", "Summarise the findings. Calculate the budget."}}, 30);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
  EXPECT_THAT(ToJson(run->output()).dump(), HasSubstr("## Calculate the budget"));
  std::map<std::string, std::string> targets;
  for (const auto& step : StepsOf(run->run_id())) targets[step.path()] = step.target();
  EXPECT_EQ(targets["team/round-1/task-part_2/work"], "accountant");
  EXPECT_EQ(targets["team/round-1/task-part_1/work"], "librarian");
}

TEST_P(EngineTest, AnApprovalSurvivesACrashAndTakesOnlyAnApproversAnswer) {
  v1::StartRunRequest request;
  *request.mutable_spec() = Example("approval");
  auto run = Start(request, {{"amount", 120}});
  auto refused = Start(request, {{"amount", 5}});
  ASSERT_THAT(run, IsOk());
  ASSERT_THAT(refused, IsOk());
  ASSERT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_WAITING));
  ASSERT_TRUE(Becomes(refused->run_id(), v1::RUN_STATE_WAITING));
  EXPECT_GT(Get(run->run_id()).wake_time().seconds(), 0);
  bool asked = false;
  for (const auto& step : StepsOf(run->run_id())) asked |= step.wait().title() == "Spend 120?";
  EXPECT_TRUE(asked);
  suite_->Kill9();
  ASSERT_TRUE(suite_->Start());
  EXPECT_THAT(Signal(run->run_id(), "decision", {{"approved", true}}, "clerk"),
              HasCode(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(Signal(run->run_id(), "decision", {{"approved", "yes"}}, "boss"),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "approved"));
  EXPECT_THAT(Signal(run->run_id(), "decision", {{"approved", true}}, "boss", "one"), IsOk());
  EXPECT_THAT(Signal(run->run_id(), "decision", {{"approved", false}}, "boss", "one"), IsOk()) << "the same signal";
  EXPECT_THAT(Signal(refused->run_id(), "decision", {{"approved", false}, {"note", "too dear"}}, "deputy"), IsOk());
  v1::Run ended = WaitForEnd(*suite_, run->run_id(), 15);
  EXPECT_EQ(ended.state(), v1::RUN_STATE_SUCCEEDED) << ended.error().message();
  ended = WaitForEnd(*suite_, refused->run_id(), 15);
  EXPECT_EQ(ended.state(), v1::RUN_STATE_FAILED);
  EXPECT_THAT(ended.error().message(), HasSubstr("refused: too dear"));
  int undone = 0;
  for (const auto& step : StepsOf(refused->run_id())) undone += step.path() == "booking/compensate/cancel_booking";
  EXPECT_EQ(undone, 1);
  EXPECT_THAT(Signal(run->run_id(), "decision", {{"approved", true}}, "boss"),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_P(EngineTest, SleepsGoOnByThemselvesAlsoAfterACrash) {
  auto run = StartSpec("name: naps\nsteps:\n- {id: nap, sleep: {duration: 3s}}\n- {id: after, agent: {agent: echo}}\n");
  ASSERT_THAT(run, IsOk());
  ASSERT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_WAITING, 2));
  suite_->Kill9();
  ASSERT_TRUE(suite_->Start());
  v1::Run ended = WaitForEnd(*suite_, run->run_id(), 15);
  ASSERT_EQ(ended.state(), v1::RUN_STATE_SUCCEEDED);
  double took = static_cast<double>(ended.end_time().seconds() - ended.create_time().seconds()) +
                1e-9 * (ended.end_time().nanos() - ended.create_time().nanos());
  EXPECT_GE(took, 3.0) << "a timer fired early";
}

TEST_P(EngineTest, PauseHoldsResumeLetsGoAndTerminateEndsAtOnce) {
  auto run = StartSpec(kWaits);
  ASSERT_THAT(run, IsOk());
  ASSERT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_WAITING));
  EXPECT_THAT(Call(&v1::RunService::Stub::PauseRun, For<v1::PauseRunRequest>(run->run_id())), IsOk());
  EXPECT_THAT(Call(&v1::RunService::Stub::PauseRun, For<v1::PauseRunRequest>(run->run_id())), IsOk());
  EXPECT_THAT(Signal(run->run_id(), "go", "now"), IsOk());
  ASSERT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_PAUSED));
  for (const auto& step : StepsOf(run->run_id())) EXPECT_NE(step.path(), "after") << "nothing begins while it is held";
  EXPECT_THAT(Call(&v1::RunService::Stub::ResumeRun, For<v1::ResumeRunRequest>(run->run_id())), IsOk());
  EXPECT_EQ(ToJson(WaitForEnd(*suite_, run->run_id(), 15).output()), "now");

  auto other = StartSpec(kWaits);
  ASSERT_THAT(other, IsOk());
  v1::TerminateRunRequest terminate = For<v1::TerminateRunRequest>(other->run_id());
  terminate.set_reason("enough");
  v1::TerminateRunResponse terminated;
  EXPECT_THAT(Call(&v1::RunService::Stub::TerminateRun, terminate, &terminated), IsOk());
  EXPECT_EQ(terminated.run().state(), v1::RUN_STATE_CANCELLED);
  EXPECT_THAT(terminated.run().error().message(), HasSubstr("enough"));
  EXPECT_THAT(Call(&v1::RunService::Stub::PauseRun, For<v1::PauseRunRequest>(other->run_id())),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_P(EngineTest, ACancelCompensatesAWaitingRun) {
  v1::StartRunRequest request;
  *request.mutable_spec() = Example("approval");
  auto run = Start(request, {{"amount", 1}});
  ASSERT_THAT(run, IsOk());
  ASSERT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_WAITING));
  EXPECT_THAT(Call(&v1::RunService::Stub::CancelRun, For<v1::CancelRunRequest>(run->run_id())), IsOk());
  EXPECT_EQ(WaitForEnd(*suite_, run->run_id(), 15).state(), v1::RUN_STATE_CANCELLED);
  bool undone = false;
  for (const auto& step : StepsOf(run->run_id())) undone |= step.path() == "booking/compensate/cancel_booking";
  EXPECT_TRUE(undone);
}

TEST_P(EngineTest, AFailedRunIsRetriedFromItsFailedStepAndForked) {
  auto run = StartSpec(R"(
name: fails
steps:
- {id: one, agent: {agent: echo, input: first}}
- {id: two, agent: {agent: echo, input: '${ .input.x }'}, preconditions: [{expression: .input.x == 1}]}
)",
                       {{"x", 2}}, 15);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_FAILED);
  EXPECT_THAT(Call(&v1::RunService::Stub::RetryRun, For<v1::RetryRunRequest>(run->run_id())), IsOk());
  EXPECT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_FAILED)) << "the input is as it was";
  v1::Run again = Get(run->run_id());
  for (const auto& step : again.steps()) {
    if (step.path() == "two") {
      EXPECT_EQ(step.attempt(), 2);
    } else if (step.path() == "one") {
      EXPECT_EQ(step.attempt(), 1);
    }
  }
  v1::ForkRunRequest fork = For<v1::ForkRunRequest>(run->run_id());
  fork.set_from_step("two");
  fork.set_request_id("fork-1");
  ToProto(Json{{"x", 1}}, fork.mutable_input());
  v1::ForkRunResponse forked, same;
  ASSERT_THAT(Call(&v1::RunService::Stub::ForkRun, fork, &forked), IsOk());
  ASSERT_THAT(Call(&v1::RunService::Stub::ForkRun, fork, &same), IsOk());
  EXPECT_EQ(forked.run().run_id(), same.run().run_id());
  const auto [audit, listed] = Shell(
      absl::StrCat("curl -s '", suite_->http_url(), "/v1/audit/records?action=runs.fork' | grep -o runs/[0-9a-z]*"));
  EXPECT_EQ(audit, absl::StrCat("runs/", run->run_id(), "\n")) << "once";
  v1::Run ended = WaitForEnd(*suite_, forked.run().run_id(), 15);
  ASSERT_EQ(ended.state(), v1::RUN_STATE_SUCCEEDED) << ended.error().message();
  EXPECT_EQ(ended.forked_from(), run->run_id());
  EXPECT_EQ(Get(run->run_id()).state(), v1::RUN_STATE_FAILED) << "the original is not touched";
  fork.set_from_step("nowhere");
  fork.set_request_id("");
  EXPECT_THAT(Call(&v1::RunService::Stub::ForkRun, fork), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Call(&v1::RunService::Stub::RetryRun, For<v1::RetryRunRequest>(ended.run_id())),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_P(EngineTest, SubWorkflowsRunAsRunsOfTheirOwn) {
  ASSERT_THAT(
      Apply("name: child\ninput_schema: {type: object, required: [n]}\nsteps:\n- {id: nap, sleep: {duration: 0.5s}}\n- "
            "{id: out, transform: {value: {twice: '${ .input.n * 2 }'}}}\n"),
      IsOk());
  auto run = StartSpec(R"(
name: parent
steps:
- id: each
  for_each:
    items: .input.list
    max_concurrency: 4
    steps: [{id: child, sub_workflow: {workflow: child, input: {n: '${ .item }'}, output: .output.twice}}]
)",
                       {{"list", {1, 2, 3, 4, 5, 6}}}, 30);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
  EXPECT_EQ(ToJson(run->output()), (Json{2, 4, 6, 8, 10, 12}));
  auto parent = StartSpec("name: parent\nsteps:\n- {id: child, sub_workflow: {workflow: none, input: {}}}\n");
  ASSERT_THAT(parent, IsOk());
  EXPECT_EQ(WaitForEnd(*suite_, parent->run_id(), 15).state(), v1::RUN_STATE_FAILED) << "there is no such workflow";
}

TEST_P(EngineTest, ChildrenEndWithTheirParents) {
  for (const char* yaml : {"name: leaf\nsteps:\n- {id: nap, sleep: {duration: 3600s}}\n",
                           "name: middle\nsteps:\n- {id: child, sub_workflow: {workflow: leaf, input: {}}}\n"}) {
    ASSERT_THAT(Apply(yaml), IsOk());
  }
  auto child_of = [this](const std::string& run_id) {
    std::string child;
    EXPECT_TRUE(Eventually(
        [&] {
          for (const auto& step : StepsOf(run_id)) child = step.wait().child_run_id();
          return !child.empty();
        },
        15));
    return child;
  };
  for (bool terminate : {false, true}) {
    v1::StartRunRequest request;
    *request.mutable_spec() =
        SpecFromYaml("name: parent\nsteps:\n- {id: child, sub_workflow: {workflow: middle, input: {}}}\n");
    request.set_tenant("acme");
    request.set_priority(5);
    auto parent = Start(request);
    ASSERT_THAT(parent, IsOk());
    const std::string middle = child_of(parent->run_id()), leaf = child_of(middle);
    EXPECT_EQ(Get(leaf).tenant(), "acme");
    EXPECT_EQ(Get(leaf).priority(), 5);
    if (terminate) {
      EXPECT_THAT(Call(&v1::RunService::Stub::TerminateRun, For<v1::TerminateRunRequest>(parent->run_id())), IsOk());
    } else {
      EXPECT_THAT(Call(&v1::RunService::Stub::CancelRun, For<v1::CancelRunRequest>(parent->run_id())), IsOk());
    }
    for (const auto& run : {parent->run_id(), middle, leaf}) EXPECT_TRUE(Becomes(run, v1::RUN_STATE_CANCELLED)) << run;
  }
}

TEST_P(EngineTest, AnEqualRequestIdOfTwoStartsIsOneRun) {
  v1::StartRunRequest request;
  *request.mutable_spec() = SpecFromYaml(kWaits);
  request.set_request_id("once");
  auto one = Start(request), two = Start(request);
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(two, IsOk());
  EXPECT_EQ(one->run_id(), two->run_id());
  // A caller that waits gets the run as it is when its time is over.
  auto waited = Start(request, Json::object(), 1);
  ASSERT_THAT(waited, IsOk());
  EXPECT_EQ(waited->run_id(), one->run_id());
  EXPECT_NE(waited->state(), v1::RUN_STATE_SUCCEEDED);
}

INSTANTIATE_TEST_SUITE_P(Stores, EngineTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Postgres" : "Sqlite"; });

}  // namespace
}  // namespace tutti::testing
