// What workflows can do, and what they are refused, from outside: HTTP APIs, gates that fall back, budgets over the
// runs they start, limits, and how they are looked at.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "tests/support/ports.h"
#include "tests/support/runs_fixture.h"
#include "tutti/workflow/v1/schedule_service.grpc.pb.h"

namespace tutti::testing {
namespace {

namespace v1 = tutti::workflow::v1;
using ::testing::HasSubstr;

class WorkflowTest : public RunsFixture {
 protected:
  void SetUp() override {
    dir_ = NewTempDir("workflow");
    api_port_ = FreePorts(1)[0];
    api_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{"/usr/bin/python3", SourceDir() + "/tests/clients/http_api.py",
                                 absl::StrCat(api_port_), dir_ + "/api.log"},
        dir_ + "/api.err");
    std::ofstream(dir_ + "/config.yaml") << "tool_service:\n  http:\n    allowed_hosts: [\"127.0.0.1:" << api_port_
                                         << "\"]\n    secrets: [{name: api, value: sesame, hosts: [\"127.0.0.1:"
                                         << api_port_ << "\"]}]\n";
    SuiteProcess::Options options;
    options.data_dir = dir_ + "/data";
    metrics_port_ = FreePorts(1)[0];
    options.flags = {"--config=" + dir_ + "/config.yaml", absl::StrCat("--telemetry.metrics-port=", metrics_port_),
                     "--workflow-engine.max-active-runs=2", "--workflow-engine.max-waiting-runs=9",
                     "--workflow-engine.park-after=60s"};
    suite_ = std::make_unique<SuiteProcess>(options);
    ASSERT_TRUE(suite_->Start());
    ASSERT_TRUE(Eventually([&] { return Shell(absl::StrCat("curl -s ", Api("/up"))).second == 0; }, 20))
        << ReadAll(dir_ + "/api.err");
  }
  void TearDown() override {
    suite_.reset();
    api_.reset();
    std::filesystem::remove_all(dir_);
  }
  std::string Api(const std::string& path) const { return absl::StrCat("http://127.0.0.1:", api_port_, path); }
  std::pair<std::string, int> Cli(const std::string& arguments) {
    return Shell(absl::StrCat(BinDir(), "/tutti --server ", suite_->grpc_address(), " ", arguments, " 2>&1"));
  }
  std::string File(const std::string& name, const std::string& text) {
    std::ofstream(dir_ + "/" + name) << text;
    return dir_ + "/" + name;
  }

  std::string dir_;
  int api_port_ = 0, metrics_port_ = 0;
  std::unique_ptr<ChildProcess> api_;
};

TEST_F(WorkflowTest, HttpStepsTalkToARealApi) {
  auto run = StartSpec(absl::StrCat(R"(
name: calls
steps:
- id: ask
  http:
    method: POST
    url: ')",
                                    Api("/echo/${ .input.name | @uri }"), R"('
    headers: {X-From: 'workflow ${ .run.workflow }'}
    body: {n: '${ .input.n }', list: [1, 2]}
    auth_secret: api
    auth_header: X-Api-Key
    response: '{got: .output.body.got, from: .output.body.from, path: .output.body.path, status: .output.status}'
- id: flaky
  http: {method: POST, url: ')",
                                    Api("/flaky"), R"(', response: .output.body.times}
  retry: {max_attempts: 5, initial_backoff: 0.05s}
- id: pot
  http: {url: ')",
                                    Api("/teapot"), R"(', expected_status: [418], response: .output.status}
- id: caught
  http: {url: ')",
                                    Api("/teapot"), R"('}
  on_error: [{reasons: [HTTP_STATUS], steps: [{id: say, transform: {value: '${ .error.message }'}}]}]
- id: late
  http: {url: ')",
                                    Api("/slow"), R"('}
  timeout: 0.3s
  on_error: [{codes: [DEADLINE_EXCEEDED], steps: [{id: say, transform: {value: too late}}]}]
output: ['${ .ask }', '${ .flaky }', '${ .pot }', '${ .caught }', '${ .late }']
)"),
                       {{"name", "x y"}, {"n", 7}}, 20);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
  const Json output = ToJson(run->output());
  EXPECT_EQ(output[0], (Json{{"got", {{"n", 7}, {"list", {1, 2}}}},
                             {"from", "workflow calls"},
                             {"path", "/echo/x%20y"},
                             {"status", 200}}));
  EXPECT_EQ(output[1], 3);
  EXPECT_EQ(output[2], 418);
  EXPECT_THAT(output[3].get<std::string>(), HasSubstr("answered HTTP 418"));
  EXPECT_EQ(output[4], "too late");
  // Each attempt has a key of its own, which whoever answers may know it by; the secret is in no record of the run.
  std::set<std::string> keys;
  for (absl::string_view line : absl::StrSplit(ReadAll(dir_ + "/api.log"), '\n')) {
    if (absl::StrContains(line, "/flaky")) keys.insert(std::string(line));
  }
  EXPECT_EQ(keys.size(), 3u);
  EXPECT_THAT(*keys.begin(), HasSubstr(run->run_id() + "/flaky/1"));
  EXPECT_THAT(Cli("runs history " + run->run_id() + " -o json").first, ::testing::Not(HasSubstr("sesame")));
  // A secret goes where it may, and nowhere else.
  auto stolen = StartSpec("name: x\nsteps: [{id: a, http: {url: 'http://127.0.0.1:1/', auth_secret: api}}]\n",
                          Json::object(), 10);
  ASSERT_THAT(stolen, IsOk());
  EXPECT_EQ(stolen->state(), v1::RUN_STATE_FAILED);
  EXPECT_THAT(stolen->error().message(), HasSubstr("127.0.0.1"));
}

TEST_F(WorkflowTest, AGateFallsBackAndGoesBack) {
  auto run = StartSpec(R"(
name: gates
steps:
- id: brief
  pipeline:
    stages:
    - id: plan
      steps: [{id: write, agent: {agent: echo, input: {text: plan, feedback: '${ .feedback }'}}}]
    - id: check
      steps: [{id: look, transform: {value: {good: '${ .plan.feedback != null }'}}}]
      gate: {expression: .output.good, go_back_to: plan, max_returns: 1}
    - id: polish
      steps: [{id: write, transform: {value: {words: 3}}}]
      gate:
        json_schema: {type: object, properties: {words: {minimum: 10}}}
        max_attempts: 2
        fallback: [{id: plain, transform: {value: {plain: '${ .feedback }'}}}]
)",
                       Json::object(), 10);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
  EXPECT_THAT(ToJson(run->output())["plain"].get<std::string>(), HasSubstr("words"));
  std::set<std::string> paths;
  for (const auto& step : StepsOf(run->run_id())) paths.insert(step.path());
  for (const char* path : {"brief/plan/visit-2/write", "brief/check/visit-2/gate", "brief/polish/attempt-2/write",
                           "brief/polish/gate-fallback/plain"}) {
    EXPECT_EQ(paths.count(path), 1u) << path;
  }
}

// A run that has begun goes on by the version it began with, also after a restart; a child is of the version its step
// names, or of the latest there is when the step begins.
TEST_F(WorkflowTest, RunsStayOnTheirVersion) {
  auto child = [](int version) {
    return absl::StrCat("name: child\nsteps: [{id: say, transform: {value: child ", version,
                        "}}]\noutput: '${ .say }'\n");
  };
  auto parent = [](int version) {
    return absl::StrCat(
        "name: parent\nsteps:\n- {id: go, wait_for_signal: {signal: go}}\n- {id: own, depends_on: [go], transform: "
        "{value: parent ",
        version,
        "}}\n- {id: pinned, depends_on: [go], sub_workflow: {workflow: child, version: 1}}\n- {id: latest, depends_on: "
        "[go], sub_workflow: {workflow: child}}\noutput: '${ [.own, .pinned, .latest] }'\n");
  };
  ASSERT_THAT(Apply(child(1)), IsOk());
  ASSERT_THAT(Apply(parent(1)), IsOk());
  v1::StartRunRequest start;
  start.set_workflow("parent");
  auto before = Start(start);
  ASSERT_THAT(before, IsOk());
  ASSERT_TRUE(Becomes(before->run_id(), v1::RUN_STATE_WAITING));
  ASSERT_THAT(Apply(child(2)), IsOk());
  ASSERT_THAT(Apply(parent(2)), IsOk());
  auto after = Start(start);
  start.set_workflow_version(1);
  auto named = Start(start);
  ASSERT_THAT(after, IsOk());
  ASSERT_THAT(named, IsOk());
  suite_->Kill9();
  ASSERT_TRUE(suite_->Start());
  const std::pair<std::string, const char*> expected[] = {
      {before->run_id(), "parent 1"}, {after->run_id(), "parent 2"}, {named->run_id(), "parent 1"}};
  for (const auto& [id, own] : expected) {
    ASSERT_THAT(Signal(id, "go", 1), IsOk());
    v1::Run run = WaitForEnd(*suite_, id, 30);
    EXPECT_EQ(ToJson(run.output()), (Json{own, "child 1", "child 2"})) << run.error().message();
  }
}

TEST_F(WorkflowTest, ThousandsOfItems) {
  Json items = Json::array();
  for (int i = 0; i < 5000; ++i) items.push_back(i);
  auto run = StartSpec(
      "name: many\nsteps:\n- id: each\n  for_each: {items: .input.items, max_concurrency: 64, steps: [{id: twice, "
      "transform: {value: '${ .item * 2 }'}}]}\noutput: '${ {count: (.each | length), sum: (.each | add), last: "
      ".each[-1]} }'\n",
      {{"items", items}}, 50);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
  EXPECT_EQ(ToJson(run->output()), (Json{{"count", 5000}, {"sum", 4999 * 5000}, {"last", 9998}}));
}

TEST_F(WorkflowTest, WhatPatternsDoIsInTheMetrics) {
  auto run = StartSpec(R"(
name: counted
steps:
- id: gated
  pipeline:
    stages:
    - id: one
      steps: [{id: say, transform: {value: 1}}]
      gate: {expression: .output == 1}
- id: both
  parallel: {fusion: {method: concat}, branches: [{id: l, steps: [{id: s, transform: {value: [1]}}]}, {id: r, steps: [{id: s, transform: {value: [2]}}]}]}
)",
                       Json::object(), 10);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
  const std::string metrics = Shell(absl::StrCat("curl -s http://127.0.0.1:", metrics_port_, "/metrics")).first;
  for (const char* part : {"tutti_engine_patterns_total{", "pattern=\"pipeline\"", "pattern=\"parallel\"",
                           "tutti_engine_pattern_duration_seconds_count{", "tutti_engine_gates_total{"}) {
    EXPECT_THAT(metrics, HasSubstr(part));
  }
}

TEST_F(WorkflowTest, ABudgetHoldsForTheRunsThatARunStarts) {
  ASSERT_THAT(Apply("name: spender\nsteps:\n- {id: loop, while: {condition: 'true', steps: [{id: ask, agent: {agent: "
                    "echo, input: words}}]}}\n"),
              IsOk());
  auto run = StartSpec(R"(
name: bounded
steps:
- id: bound
  budget: {tokens: 40}
  pipeline:
    stages:
    - id: both
      steps:
      - {id: first, agent: {agent: echo, input: some words}}
      - {id: child, sub_workflow: {workflow: spender, input: {}}, on_error: [{steps: [{id: less, transform: {value: less}}]}]}
      - {id: more, agent: {agent: echo, input: more}}
)",
                       Json::object(), 20);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_FAILED) << "the child has used up what was left";
  EXPECT_THAT(run->error().message(), HasSubstr("step bound has used"));
  std::string child;
  int64_t by_child = 0;
  for (const auto& step : StepsOf(run->run_id())) {
    if (step.kind() != "sub_workflow") continue;
    by_child = step.child_usage().input_tokens() + step.child_usage().output_tokens();
    EXPECT_THAT(step.error().message(), HasSubstr("the run has used"));
    child = step.wait().child_run_id();
  }
  // Also of those that its child starts: here a child between.
  ASSERT_THAT(
      Apply("name: between\nsteps:\n- {id: deeper, sub_workflow: {workflow: spender, input: {}}, on_error: [{steps: "
            "[{id: done, transform: {value: done}}]}]}\n"),
      IsOk());
  auto deep = StartSpec(
      "name: deep\nsteps:\n- id: bound\n  budget: {tokens: 40}\n  pipeline:\n    stages: [{id: all, steps: [{id: "
      "child, "
      "sub_workflow: {workflow: between, input: {}}}, {id: more, agent: {agent: echo, input: more}}]}]\n",
      Json::object(), 20);
  ASSERT_THAT(deep, IsOk());
  EXPECT_EQ(deep->state(), v1::RUN_STATE_FAILED) << "the child's child has used it up";
  EXPECT_THAT(deep->error().message(), HasSubstr("step bound has used"));
  const auto& own = run->usage();
  EXPECT_GE(by_child + own.input_tokens() + own.output_tokens(), 40);
  EXPECT_LE(by_child + own.input_tokens() + own.output_tokens(), 60) << "one call may go beyond, and no more";
}

// By the store's memory of the agent, from one run to the next.
TEST_F(WorkflowTest, WhatOneRunLearnedIsOfferedToTheNext) {
  constexpr char kEssay[] = R"(
name: essay
steps:
- id: essay
  reflect:
    generate: [{id: write, transform: {value: {text: '${ .input.topic }', lessons: '${ .lessons }'}}}]
    improve: [{id: rewrite, transform: {value: {text: '${ .draft.text }, at length', lessons: '${ .lessons }'}}}]
    critique: [{id: judge, transform: {value: {score: '${ if (.draft.text | length) > 20 then 1 else 0.2 end }', feedback: 'An essay on tea names its leaves'}}}]
    max_rounds: 3
    lessons: {agent: writer}
)";
  auto lessons = [&](const std::string& topic) {
    auto run = StartSpec(kEssay, {{"topic", topic}}, 20);
    EXPECT_THAT(run, IsOk());
    EXPECT_EQ(run->state(), v1::RUN_STATE_SUCCEEDED) << run->error().message();
    return ToJson(run->output())["lessons"].dump();
  };
  EXPECT_EQ(lessons("an essay on tea"), "[]");
  EXPECT_THAT(lessons("an essay on tea and its leaves"), HasSubstr("An essay on tea names its leaves"));
}

TEST_F(WorkflowTest, WhatIsTooMuchIsRefusedAndToldWhenToComeAgain) {
  const std::string works = absl::StrCat("name: works\nsteps: [{id: w, http: {url: '", Api("/slow"), "'}}]\n");
  std::vector<std::string> accepted;
  absl::Status refusal;
  // Two are worked on; of the nine that may wait, eight may be of one tenant.
  for (int i = 0; i < 20; ++i) {
    auto run = StartSpec(works);
    if (run.ok()) {
      accepted.push_back(run->run_id());
    } else {
      refusal = run.status();
    }
  }
  EXPECT_THAT(refusal, HasCodeAndText(absl::StatusCode::kResourceExhausted, "runs of the tenant wait already"));
  EXPECT_EQ(ReasonOf(refusal), "TOO_MANY_RUNS");
  EXPECT_GT(RetryDelayOf(refusal), absl::ZeroDuration());
  EXPECT_GE(accepted.size(), 10u);
  EXPECT_LT(accepted.size(), 20u);
  v1::StartRunRequest other;
  *other.mutable_spec() = SpecFromYaml(works);
  other.set_tenant("small");
  auto of_other = Start(other);
  ASSERT_THAT(of_other, IsOk()) << "one tenant's flood leaves room for another";
  accepted.push_back(of_other->run_id());
  // What was accepted ends, and then there is room.
  for (const auto& id : accepted) EXPECT_EQ(WaitForEnd(*suite_, id, 30).state(), v1::RUN_STATE_SUCCEEDED);
  EXPECT_TRUE(Eventually([&] { return StartSpec("name: y\nsteps: [{id: a, transform: {value: 1}}]\n").ok(); }, 10));
}

TEST_F(WorkflowTest, ASchedulesNextTimeDoesWithTheRunBeforeWhatItsPolicySays) {
  ASSERT_THAT(
      Apply("name: waits\nsteps:\n- {id: book, emit: {type: booked, data: 1}, compensation: [{id: unbook, emit: "
            "{type: unbooked, data: 1}}]}\n- {id: w, wait_for_signal: {signal: go}}\n"),
      IsOk());
  auto schedules = v1::ScheduleService::NewStub(suite_->channel());
  auto begin = [&](const std::string& name, v1::OverlapPolicy policy) {
    v1::CreateScheduleRequest request;
    request.mutable_schedule()->set_name(name);
    request.mutable_schedule()->set_workflow("waits");
    request.mutable_schedule()->set_overlap_policy(policy);
    request.mutable_schedule()->mutable_calendar()->mutable_every()->set_seconds(1);
    grpc::ClientContext context;
    v1::CreateScheduleResponse response;
    return FromGrpc(schedules->CreateSchedule(&context, request, &response));
  };
  auto runs = [&](const std::string& name, const std::string& state) {
    v1::ListRunsRequest request;
    request.set_filter(absl::StrCat("labels.tutti.schedule = \"", name, "\" AND state = \"", state, "\""));
    v1::ListRunsResponse response;
    EXPECT_THAT(Call(&v1::RunService::Stub::ListRuns, request, &response), IsOk());
    return std::vector<v1::Run>(response.runs().begin(), response.runs().end());
  };
  auto open = [&](const std::string& name) {
    std::vector<v1::Run> out;
    for (const char* state : {"PENDING", "RUNNING", "WAITING"}) {
      for (auto& run : runs(name, state)) out.push_back(std::move(run));
    }
    return out;
  };
  auto end = [&](const std::string& name) {
    v1::DeleteScheduleRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    v1::DeleteScheduleResponse response;
    EXPECT_THAT(FromGrpc(schedules->DeleteSchedule(&context, request, &response)), IsOk());
    for (const auto& run : open(name)) {
      EXPECT_THAT(Call(&v1::RunService::Stub::TerminateRun, For<v1::TerminateRunRequest>(run.run_id())), IsOk());
    }
  };

  ASSERT_THAT(begin("cancels", v1::OVERLAP_POLICY_CANCEL_OTHER), IsOk());
  EXPECT_TRUE(Eventually([&] { return runs("cancels", "CANCELLED").size() >= 2 && open("cancels").size() == 1; }, 20));
  const auto cancelled = runs("cancels", "CANCELLED");
  end("cancels");
  for (const auto& run : cancelled) {
    bool undone = false;
    for (const auto& step : StepsOf(run.run_id())) undone |= step.path() == "book/compensate/unbook";
    EXPECT_TRUE(undone) << "what is asked to stop undoes what it has done";
  }

  ASSERT_THAT(begin("terminates", v1::OVERLAP_POLICY_TERMINATE_OTHER), IsOk());
  EXPECT_TRUE(
      Eventually([&] { return runs("terminates", "CANCELLED").size() >= 2 && open("terminates").size() == 1; }, 20));
  const auto terminated = runs("terminates", "CANCELLED");
  end("terminates");
  for (const auto& run : terminated) {
    EXPECT_THAT(Get(run.run_id()).error().message(), HasSubstr("the next time of schedule terminates has come"));
    EXPECT_EQ(StepsOf(run.run_id()).size(), 2u) << "nothing is undone";
  }

  ASSERT_THAT(begin("buffers", v1::OVERLAP_POLICY_BUFFER_ONE), IsOk());
  auto state = [&](const std::string& name) {
    grpc::ClientContext context;
    v1::GetScheduleRequest request;
    request.set_name(name);
    v1::GetScheduleResponse response;
    EXPECT_THAT(FromGrpc(schedules->GetSchedule(&context, request, &response)), IsOk());
    return response.schedule().state();
  };
  EXPECT_TRUE(Eventually([&] { return state("buffers").buffered_size() == 1 && state("buffers").skipped() > 0; }, 20));
  auto first = open("buffers");
  ASSERT_EQ(first.size(), 1u);
  ASSERT_THAT(Signal(first[0].run_id(), "go", nullptr), IsOk());
  EXPECT_TRUE(Eventually([&] { return state("buffers").started() == 2; }, 20)) << "what waited begins at the end";
  end("buffers");

  ASSERT_THAT(begin("skips", v1::OVERLAP_POLICY_SKIP), IsOk());
  EXPECT_TRUE(Eventually([&] { return state("skips").skipped() >= 2; }, 20));
  EXPECT_EQ(open("skips").size(), 1u);
  end("skips");
}

TEST_F(WorkflowTest, SignalsOfOneNameCannotKeepOthersAway) {
  auto run = StartSpec(R"(
name: waits
steps:
- {id: noise, wait_for_signal: {signal: noise}}
- {id: more, wait_for_signal: {signal: noise}}
- {id: stop, depends_on: [noise], wait_for_signal: {signal: stop}}
- {id: never, depends_on: [stop], wait_for_signal: {signal: never}}
)");
  ASSERT_THAT(run, IsOk());
  absl::Status unknown = Signal(run->run_id(), "again", nullptr);
  EXPECT_THAT(unknown, HasCodeAndText(absl::StatusCode::kFailedPrecondition, "steps wait for: never, noise, stop"));
  EXPECT_EQ(ReasonOf(unknown), "UNKNOWN_SIGNAL");
  std::atomic<int> taken{0};
  std::vector<absl::Status> refusals(16);
  std::vector<std::thread> senders;
  for (auto& refusal : refusals) {
    senders.emplace_back([&, stub = suite_->runs()] {
      while (refusal.ok() && taken < 1100) {
        grpc::ClientContext context;
        v1::SignalRunRequest request;
        request.set_run_id(run->run_id());
        request.set_signal("noise");
        v1::SignalRunResponse response;
        refusal = FromGrpc(stub->SignalRun(&context, request, &response));
        if (refusal.ok()) ++taken;
      }
    });
  }
  for (auto& sender : senders) sender.join();
  EXPECT_EQ(taken, 1000);
  for (const auto& refusal : refusals) {
    EXPECT_THAT(refusal, HasCodeAndText(absl::StatusCode::kResourceExhausted, "1000 signals named noise"));
    EXPECT_EQ(ReasonOf(refusal), "TOO_MANY_SIGNALS");
  }
  EXPECT_THAT(Signal(run->run_id(), "stop", nullptr), IsOk()) << "the right one is taken";
  EXPECT_THAT(Call(&v1::RunService::Stub::CancelRun, For<v1::CancelRunRequest>(run->run_id())), IsOk());
  EXPECT_TRUE(Becomes(run->run_id(), v1::RUN_STATE_CANCELLED));
}

TEST_F(WorkflowTest, PlansDifferencesAndRunsCanBeLookedAt) {
  const std::string spec = R"(
name: looked-at
steps:
- {id: a, transform: {value: 1}}
- {id: b, depends_on: [a], agent: {agent: echo, input: b}}
- {id: c, depends_on: [a], transform: {value: '${ .a / 0 }'}}
- {id: d, depends_on: [b, c], transform: {value: 4}}
)";
  const std::string file = File("looked-at.yaml", spec);
  auto [plan, planned] = Cli("workflows plan " + file);
  EXPECT_EQ(planned, 0) << plan;
  EXPECT_THAT(plan, HasSubstr("critical path  a -> b -> d"));
  EXPECT_THAT(plan, HasSubstr("at most        2 leaf steps at once"));
  const Json stages = Json::parse(Cli("workflows plan " + file + " -o json").first)["stages"];
  ASSERT_EQ(stages.size(), 3u);
  EXPECT_EQ(stages[1]["steps"].size(), 2u);
  auto [circle, refused] =
      Cli("workflows plan " + File("circle.yaml",
                                   "name: circle\nsteps:\n- {id: a, depends_on: [b], transform: {value: "
                                   "1}}\n- {id: b, depends_on: [a], transform: {value: 1}}\n"));
  EXPECT_EQ(refused, 2);
  EXPECT_THAT(circle, HasSubstr("a -> b -> a"));

  ASSERT_EQ(Cli("workflows apply " + file).second, 0);
  ASSERT_EQ(Cli("workflows apply " + File("looked-at.yaml", spec + "output: '${ .d }'\n")).second, 0);
  auto [diff, compared] = Cli("workflows diff looked-at");
  EXPECT_EQ(compared, 0);
  EXPECT_THAT(diff, HasSubstr("version 1 -> 2"));
  EXPECT_THAT(diff, HasSubstr("output"));

  auto run = StartSpec(spec, Json::object(), 10);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->state(), v1::RUN_STATE_FAILED);
  auto [graph, drawn] = Cli("runs graph " + run->run_id());
  EXPECT_EQ(drawn, 0);
  EXPECT_THAT(graph, ::testing::StartsWith("flowchart"));
  for (const char* part : {"succeeded", "failed"}) EXPECT_THAT(graph, HasSubstr(part)) << graph;
}

}  // namespace
}  // namespace tutti::testing
