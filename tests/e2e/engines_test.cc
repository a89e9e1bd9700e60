// Several engines over one PostgreSQL, each in a suite of its own: killed, frozen, restarted one after the other, and
// without their database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/grpc_status.h"
#include "runtime/status/testing/matchers.h"
#include "tests/support/postgres_server.h"
#include "tests/support/suite_process.h"
#include "tutti/workflow/v1/schedule_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::testing {
namespace {

namespace v1 = tutti::workflow::v1;

// Some steps with waits between them, so that each run is in the middle of something for two seconds.
constexpr char kWork[] = R"(
name: work
steps:
- {id: a, agent: {agent: echo, input: a}}
- {id: pause, sleep: {duration: 0.4s}}
- {id: b, agent: {agent: echo, input: b}}
- id: loop
  while: {condition: '${ (.last // 4) > 1 }', max_iterations: 10, steps: [{id: nap, sleep: {duration: 0.3s}}, {id: tick, transform: {value: '${ (.last // 4) - 1 }'}}]}
- {id: c, agent: {agent: echo, input: c}}
)";

class EnginesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    dir_ = NewTempDir("engines");
    auto server = PostgresServer::Start();
    if (!server.ok()) GTEST_SKIP() << server.status();
    server_ = *std::move(server);
    auto database = server_->NewDatabase();
    ASSERT_THAT(database, IsOk());
    database_ = *database;
    for (int i = 0; i < 2; ++i) AddSuite(i);
    Apply(kWork);
  }
  void TearDown() override {
    suites_.clear();
    server_.reset();
    std::filesystem::remove_all(dir_);
  }

  void AddSuite(int number, const std::vector<std::string>& flags = {}) {
    SuiteProcess::Options options;
    options.data_dir = absl::StrCat(dir_, "/", number);
    options.flags = {absl::StrCat("--process.instance=engine-", number), "--workflow-engine.lease-duration=2s",
                     "--state-manager.postgres.dsn=" + server_->Dsn(database_)};
    options.flags.insert(options.flags.end(), flags.begin(), flags.end());
    suites_.push_back(std::make_unique<SuiteProcess>(options));
    ASSERT_TRUE(suites_.back()->Start());
  }
  void Apply(const std::string& yaml) {
    grpc::ClientContext context;
    v1::CreateWorkflowRequest request;
    *request.mutable_spec() = SpecFromYaml(yaml);
    v1::CreateWorkflowResponse response;
    grpc::Status status =
        v1::WorkflowService::NewStub(suites_[0]->channel())->CreateWorkflow(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  // Empty while nobody accepts it.
  std::string Start(size_t suite, const std::string& request_id, const std::string& workflow = "work") {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    v1::StartRunRequest request;
    request.set_workflow(workflow);
    request.set_request_id(request_id);
    v1::StartRunResponse response;
    return suites_[suite]->runs()->StartRun(&context, request, &response).ok() ? response.run().run_id() : "";
  }
  int64_t Count(const std::string& sql) {
    auto text = server_->Sql(database_, sql);
    int64_t out = -1;
    EXPECT_TRUE(text.ok() && absl::SimpleAtoi(*text, &out)) << sql << ": " << text.status();
    return out;
  }
  int64_t Open() { return Count("SELECT count(*) FROM runs WHERE status IN ('PENDING', 'RUNNING')"); }
  int64_t Succeeded() { return Count("SELECT count(*) FROM runs WHERE status = 'SUCCEEDED'"); }
  // Steps of the runs that were completed more than once: of loops, the passes have paths of their own.
  int64_t CompletedTwice() {
    return Count(
        "SELECT count(*) FROM (SELECT 1 FROM journal WHERE kind = 'step_completed' GROUP BY run_id, path HAVING "
        "count(*) > 1) AS twice");
  }
  int64_t Entries() { return Count("SELECT count(*) FROM journal"); }
  int64_t OwnedBy(int engine) {
    return Count(absl::StrCat("SELECT count(*) FROM runs WHERE status IN ('PENDING', 'RUNNING') AND owner = 'engine-",
                              engine, "'"));
  }

  // Until when it holds; each heartbeat changes it.
  int64_t Lease(int engine) {
    return Count(absl::StrCat("SELECT expire_time FROM instances WHERE name = 'engine-", engine, "'"));
  }

  std::string dir_, database_;
  std::unique_ptr<PostgresServer> server_;
  std::vector<std::unique_ptr<SuiteProcess>> suites_;
};

TEST_F(EnginesTest, TheRunsOfAKilledEngineGoOnElsewhere) {
  constexpr int kRuns = 60;
  for (int i = 0; i < kRuns; ++i) ASSERT_NE(Start(0, absl::StrCat("k", i)), "");
  ASSERT_TRUE(Eventually([&] { return OwnedBy(0) > 0 && Entries() > kRuns * 3; }, 20));
  suites_[0]->Kill9();
  const auto killed = std::chrono::steady_clock::now();
  EXPECT_TRUE(Eventually([&] { return OwnedBy(0) == 0; }, 20)) << "the other one has taken them all";
  std::cerr << "taken over after " << std::chrono::duration<double>(std::chrono::steady_clock::now() - killed).count()
            << " s\n";
  EXPECT_TRUE(Eventually([&] { return Succeeded() == kRuns; }, 60)) << Open() << " of " << kRuns << " are open";
  EXPECT_EQ(CompletedTwice(), 0);
}

TEST_F(EnginesTest, AFrozenEngineThatWakesUpChangesNothing) {
  constexpr int kRuns = 40;
  for (int i = 0; i < kRuns; ++i) ASSERT_NE(Start(0, absl::StrCat("f", i)), "");
  ASSERT_TRUE(Eventually([&] { return OwnedBy(0) > 0 && Entries() > kRuns * 3; }, 20));
  suites_[0]->Signal(SIGSTOP);
  EXPECT_TRUE(Eventually([&] { return Succeeded() == kRuns; }, 60));
  const int64_t entries = Entries();
  suites_[0]->Signal(SIGCONT);
  // It has found that its lease is gone when it works again.
  std::string run;
  EXPECT_TRUE(Eventually([&] { return !(run = Start(0, "after")).empty(); }, 20));
  EXPECT_TRUE(Eventually([&] { return Succeeded() == kRuns + 1; }, 30));
  EXPECT_EQ(Count(absl::StrCat("SELECT count(*) FROM journal WHERE run_id <> '", run, "'")), entries);
  EXPECT_EQ(CompletedTwice(), 0);
}

TEST_F(EnginesTest, ARollingRestartLosesAndRepeatsNothing) {
  std::atomic<bool> stop{false};
  std::atomic<int> started{0};
  // Whoever does not answer is asked again, here or there: the request's id makes it one run.
  std::thread client([&] {
    for (int i = 0; !stop; ++i) {
      const std::string id = absl::StrCat("r", i);
      for (size_t suite = static_cast<size_t>(i); Start(suite % 2, id).empty() && !stop; ++suite) Pause();
      if (!stop) ++started;
      for (int pause = 0; pause < 5; ++pause) Pause();
    }
  });
  for (size_t round = 0; round < 4; ++round) {
    const int target = started + 10;
    EXPECT_TRUE(Eventually([&] { return started >= target; }, 30));
    EXPECT_THAT(suites_[round % 2]->Terminate(), ::testing::Each(0));
    EXPECT_TRUE(suites_[round % 2]->Start());
  }
  stop = true;
  client.join();
  EXPECT_TRUE(Eventually([&] { return Open() == 0; }, 60)) << Open() << " are open";
  EXPECT_GE(Succeeded(), started);
  EXPECT_EQ(Succeeded(), Count("SELECT count(*) FROM runs"));
  EXPECT_EQ(CompletedTwice(), 0);
  std::cerr << Succeeded() << " runs over 4 restarts\n";
}

TEST_F(EnginesTest, WithoutTheDatabaseNothingIsLostAndWorkGoesOnByItself) {
  constexpr int kRuns = 40;
  for (int i = 0; i < kRuns; ++i) ASSERT_NE(Start(i % 2, absl::StrCat("d", i)), "");
  ASSERT_TRUE(Eventually([&] { return Entries() > kRuns * 2; }, 20));
  ASSERT_THAT(server_->Stop("immediate"), IsOk());
  // Longer than the leases.
  const auto away = std::chrono::steady_clock::now();
  EXPECT_EQ(Start(0, "no"), "");
  Eventually([&] { return std::chrono::steady_clock::now() - away > std::chrono::seconds(4); }, 10);
  ASSERT_THAT(server_->StartAgain(), IsOk());
  EXPECT_TRUE(Eventually([&] { return Succeeded() >= kRuns; }, 60)) << Open() << " are open";
  EXPECT_EQ(CompletedTwice(), 0);
}

// One append, and no other behind it that would bring the stream to life: it is sent again all the same.
TEST_F(EnginesTest, AcrossProcessesARunAloneGoesOnWhenTheDatabaseIsBack) {
  suites_.clear();
  SuiteProcess::Options options;
  options.form = Form::kSixProcesses;
  options.data_dir = dir_ + "/six";
  options.flags = {"--state-manager.postgres.dsn=" + server_->Dsn(database_)};
  suites_.push_back(std::make_unique<SuiteProcess>(options));
  ASSERT_TRUE(suites_[0]->Start());
  ASSERT_TRUE(Eventually([&] { return !Start(0, "alone").empty(); }, 20));
  ASSERT_TRUE(Eventually([&] { return Entries() > 3; }, 20));
  ASSERT_THAT(server_->Stop("immediate"), IsOk());
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(suites_[0]->logs(), "journal append failed for now"); }, 20));
  ASSERT_THAT(server_->StartAgain(), IsOk());
  EXPECT_TRUE(Eventually([&] { return Succeeded() == 1; }, 30)) << suites_[0]->logs();
  EXPECT_EQ(CompletedTwice(), 0);
}

TEST_F(EnginesTest, LimitsOfConcurrentStepsHoldOverAllEngines) {
  const int port = FreePorts(1)[0];
  ChildProcess api(
      {"/usr/bin/python3", SourceDir() + "/tests/clients/http_api.py", absl::StrCat(port), dir_ + "/api.log"},
      dir_ + "/api.err");
  const std::string url = absl::StrCat("http://127.0.0.1:", port, "/busy");
  ASSERT_TRUE(Eventually([&] { return Shell("curl -s " + url).second == 0; }, 20)) << ReadAll(dir_ + "/api.err");
  for (const auto& suite : suites_) suite->Kill9();
  suites_.clear();
  ASSERT_THAT(server_->Sql(database_, "DELETE FROM instances"), IsOk());
  std::ofstream(dir_ + "/config.yaml") << "tool_service: {http: {allowed_hosts: [\"127.0.0.1:" << port << "\"]}}\n";
  for (int i = 0; i < 2; ++i) {
    AddSuite(i, {"--config=" + dir_ + "/config.yaml", "--workflow-engine.max-concurrent-steps-per-workflow=2"});
  }
  ASSERT_TRUE(Eventually([&] { return Count("SELECT count(*) FROM instances") == 2; }, 20));
  // Each has heard of the other when its second heartbeat from now comes: the first one's answer has arrived by then.
  for (int beat = 0; beat < 2; ++beat) {
    const int64_t first = Lease(0), second = Lease(1);
    ASSERT_TRUE(Eventually([&] { return Lease(0) != first && Lease(1) != second; }, 20));
  }
  const std::string name = "asks";
  Apply("name: " + name +
        "\nsteps:\n- id: all\n  for_each: {items: '${ [range(6)] }', max_concurrency: 6, steps: [{id: ask, http: {url: "
        "'" +
        url + "'}}]}\noutput: '${ [.all[].body.at_once] | max }'\n");
  std::vector<std::pair<size_t, std::string>> runs;
  for (size_t i = 0; i < 4; ++i) runs.emplace_back(i % 2, Start(i % 2, absl::StrCat("asks", i), name));
  int most = 0;
  for (const auto& [suite, id] : runs) {
    v1::Run run = WaitForEnd(*suites_[suite], id, 60);
    ASSERT_EQ(run.state(), v1::RUN_STATE_SUCCEEDED) << run.error().message();
    most = std::max(most, static_cast<int>(run.output().number_value()));
  }
  EXPECT_EQ(most, 2) << "of two engines each takes one";
}

TEST_F(EnginesTest, EachTimeOfAScheduleIsOneRunWhoeverDies) {
  {
    grpc::ClientContext context;
    v1::CreateScheduleRequest request;
    auto& schedule = *request.mutable_schedule();
    schedule.set_name("often");
    schedule.set_workflow("work");
    schedule.set_overlap_policy(v1::OVERLAP_POLICY_ALLOW_ALL);
    schedule.mutable_calendar()->mutable_every()->set_seconds(1);
    v1::CreateScheduleResponse response;
    grpc::Status status =
        v1::ScheduleService::NewStub(suites_[0]->channel())->CreateSchedule(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  auto runs = [&] { return Count("SELECT count(*) FROM runs"); };
  for (size_t kill = 0; kill < 3; ++kill) {
    const int64_t target = runs() + 3;
    ASSERT_TRUE(Eventually([&] { return runs() >= target; }, 30));
    suites_[kill % 2]->Kill9();
    ASSERT_TRUE(suites_[kill % 2]->Start());
  }
  {
    grpc::ClientContext context;
    v1::PauseScheduleRequest request;
    request.set_name("often");
    v1::PauseScheduleResponse response;
    ASSERT_TRUE(v1::ScheduleService::NewStub(suites_[0]->channel())->PauseSchedule(&context, request, &response).ok());
    EXPECT_TRUE(Eventually([&] { return Open() == 0; }, 60));
    const auto& state = response.schedule().state();
    EXPECT_EQ(state.missed() + state.skipped() + state.failed(), 0);
    EXPECT_LE(state.started(), Succeeded());
    // Due by the old calendar, waiting to be started when the pause came.
    EXPECT_LE(Succeeded(), state.started() + state.buffered_size());
  }
  // Every second from the first to the last, once.
  EXPECT_EQ(Count("SELECT count(DISTINCT labels) FROM runs"), runs());
  EXPECT_EQ(Count("SELECT (extract(epoch FROM max((labels::jsonb->>'tutti.scheduled_time')::timestamptz) - "
                  "min((labels::jsonb->>'tutti.scheduled_time')::timestamptz)) + 1)::bigint FROM runs"),
            runs());
}

}  // namespace
}  // namespace tutti::testing
