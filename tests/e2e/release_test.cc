// Stores of releases: a database that an earlier release left behind, with runs in the middle of everything, is opened
// by this one, and each run ends as its label `expect` says. tests/corpus/corpus_test.cc replays journals one by one.
//
// `RECORD_CORPUS=<release> tutti_release_test` records this release's store, once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/grpc_status.h"
#include "runtime/status/testing/matchers.h"
#include "tests/support/suite_process.h"
#include "tutti/workflow/v1/schedule_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::testing {
namespace {

namespace fs = std::filesystem;
namespace v1 = tutti::workflow::v1;

// Each waits for the signal `go` somewhere.
const std::pair<const char*, Json> kRuns[] = {
    {R"(
name: sequence
steps:
- {id: a, agent: {agent: echo, input: 'from ${ .input.who }'}}
- {id: wait, wait_for_signal: {signal: go}}
- {id: b, agent: {agent: echo, input: '${ .wait.n }'}}
output: {a: '${ .a }', b: '${ .b }'}
)",
     {{"a", "from before"}, {"b", 7}}},
    {R"(
name: graph
steps:
- {id: a, agent: {agent: echo, input: 1}}
- {id: left, depends_on: [a], wait_for_signal: {signal: go}}
- {id: right, depends_on: [a], tool: {tool: calculate, parameters: {expression: '6 * 7'}}}
- {id: sum, depends_on: [left, right], transform: {value: '${ .left.n + (.right.value | tonumber) }'}}
output: '${ .sum }'
)",
     49},
    {R"(
name: parallel
steps:
- id: both
  parallel:
    branches:
    - {id: x, steps: [{id: ask, agent: {agent: echo, input: {x: 1}}}]}
    - {id: y, steps: [{id: wait, wait_for_signal: {signal: go}}]}
    fusion: {method: deep_merge}
)",
     {{"x", 1}, {"n", 7}}},
    {R"(
name: pipeline
steps:
- id: flow
  pipeline:
    stages:
    - {id: one, steps: [{id: make, agent: {agent: echo, input: first}}]}
    - {id: two, steps: [{id: wait, wait_for_signal: {signal: go}}], gate: {expression: .output.n == 7}}
    - {id: three, steps: [{id: make, agent: {agent: echo, input: '${ .one }, ${ .two.n }'}}]}
)",
     "first, 7"},
    {R"(
name: loops
steps:
- id: each
  for_each: {items: '${ [1, 2, 3] }', max_concurrency: 2, steps: [{id: ask, agent: {agent: echo, input: '${ .item * 2 }'}}]}
- id: loop
  while: {condition: '${ (.last // 3) > 0 }', max_iterations: 10, steps: [{id: tick, agent: {agent: echo, input: '${ (.last // 3) - 1 }'}}]}
- {id: wait, wait_for_signal: {signal: go}}
output: {each: '${ .each }', loop: '${ .loop }', n: '${ .wait.n }'}
)",
     {{"each", {2, 4, 6}}, {"loop", 0}, {"n", 7}}},
    {R"(
name: compensated
steps:
- {id: book, agent: {agent: echo, input: booked}, compensation: [{id: undo, agent: {agent: echo, input: undone}}]}
- {id: wait, wait_for_signal: {signal: go}}
- {id: no, fail: {code: ABORTED, message: 'after ${ .wait.n }'}}
on_error: [{steps: [{id: note, transform: {value: '${ .error.message }'}}]}]
)",
     "step no: after 7"},
    {R"(
name: large
steps:
- {id: a, transform: {value: '${ [range(3000)] | map(tostring) | join(",") }'}}
- {id: wait, wait_for_signal: {signal: go}}
output: '${ (.a | length) + .wait.n }'
)",
     13896},
};

class ReleaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    dir_ = NewTempDir("release");
  }
  void TearDown() override {
    suite_.reset();
    fs::remove_all(dir_);
  }
  void Up(const std::string& dir) {
    SuiteProcess::Options options;
    options.data_dir = dir;
    options.flags = {"--workflow-engine.lease-duration=1s", "--workflow-engine.park-after=0.2s"};
    suite_ = std::make_unique<SuiteProcess>(options);
    ASSERT_TRUE(suite_->Start());
  }
  std::vector<v1::Run> Runs() {
    grpc::ClientContext context;
    v1::ListRunsRequest request;
    request.set_page_size(1000);
    v1::ListRunsResponse response;
    EXPECT_TRUE(suite_->runs()->ListRuns(&context, request, &response).ok());
    return {response.runs().begin(), response.runs().end()};
  }
  void Record(const std::string& file);

  std::string dir_;
  std::unique_ptr<SuiteProcess> suite_;
};

void ReleaseTest::Record(const std::string& file) {
  Up(dir_ + "/made");
  for (const auto& [yaml, expected] : kRuns) {
    grpc::ClientContext context;
    v1::StartRunRequest request;
    *request.mutable_spec() = SpecFromYaml(yaml);
    ToProto(Json{{"who", "before"}}, request.mutable_input());
    (*request.mutable_labels())["expect"] = DumpJson(expected);
    v1::StartRunResponse response;
    grpc::Status status = suite_->runs()->StartRun(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  {
    grpc::ClientContext context;
    v1::CreateWorkflowRequest workflow;
    *workflow.mutable_spec() = SpecFromYaml(kRuns[0].first);
    v1::CreateWorkflowResponse stored;
    ASSERT_TRUE(v1::WorkflowService::NewStub(suite_->channel())->CreateWorkflow(&context, workflow, &stored).ok());
    grpc::ClientContext second;
    v1::CreateScheduleRequest request;
    auto& schedule = *request.mutable_schedule();
    schedule.set_name("nightly");
    schedule.set_workflow("sequence");
    schedule.mutable_calendar()->add_cron("30 2 * * *");
    schedule.mutable_calendar()->set_time_zone("Europe/Berlin");
    schedule.set_paused(true);
    v1::CreateScheduleResponse made;
    ASSERT_TRUE(v1::ScheduleService::NewStub(suite_->channel())->CreateSchedule(&second, request, &made).ok());
  }
  ASSERT_TRUE(Eventually(
      [&] {
        int waiting = 0;
        for (const auto& run : Runs()) waiting += run.state() == v1::RUN_STATE_WAITING ? 1 : 0;
        return waiting == static_cast<int>(std::size(kRuns));
      },
      30));
  EXPECT_THAT(suite_->Terminate(), ::testing::Each(0));
  fs::create_directories(fs::path(file).parent_path());
  ASSERT_EQ(Shell(absl::StrCat("gzip -9n <", dir_, "/made/tutti.db >", file)).second, 0);
}

TEST_F(ReleaseTest, RunsInTheStoresOfEarlierReleasesEndAsTheyShould) {
  const std::string corpus = SourceDir() + "/tests/corpus";
  if (const char* release = getenv("RECORD_CORPUS")) Record(absl::StrCat(corpus, "/", release, "/store.db.gz"));
  int stores = 0;
  for (const auto& place : fs::recursive_directory_iterator(corpus)) {
    if (place.path().filename() != "store.db.gz") continue;
    SCOPED_TRACE(place.path());
    const std::string data = absl::StrCat(dir_, "/", ++stores);
    fs::create_directories(data);
    ASSERT_EQ(Shell(absl::StrCat("gzip -dc ", place.path().string(), " >", data, "/tutti.db")).second, 0);
    Up(data);
    std::vector<v1::Run> runs = Runs();
    EXPECT_GE(runs.size(), 7U);
    for (const auto& run : runs) {
      grpc::ClientContext context;
      v1::SignalRunRequest request;
      request.set_run_id(run.run_id());
      request.set_signal("go");
      ToProto(Json{{"n", 7}}, request.mutable_payload());
      v1::SignalRunResponse response;
      EXPECT_TRUE(suite_->runs()->SignalRun(&context, request, &response).ok());
    }
    for (const auto& run : runs) {
      v1::Run ended = WaitForEnd(*suite_, run.run_id(), 30);
      EXPECT_EQ(ended.state(), v1::RUN_STATE_SUCCEEDED) << run.workflow() << ": " << ended.error().message();
      auto expected = ParseJson(run.labels().at("expect"));
      ASSERT_THAT(expected, IsOk());
      EXPECT_EQ(ToJson(ended.output()), *expected) << run.workflow();
    }
    grpc::ClientContext context;
    v1::GetScheduleRequest get;
    get.set_name("nightly");
    v1::GetScheduleResponse schedule;
    EXPECT_TRUE(v1::ScheduleService::NewStub(suite_->channel())->GetSchedule(&context, get, &schedule).ok());
    EXPECT_TRUE(schedule.schedule().paused());
    EXPECT_THAT(suite_->Terminate(), ::testing::Each(0));
  }
  EXPECT_GE(stores, 1);
}

}  // namespace
}  // namespace tutti::testing
