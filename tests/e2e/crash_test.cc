// kill -9 at random moments: every acknowledged run ends by itself, no completed step runs twice.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/status/grpc_status.h"
#include "tests/support/postgres_server.h"
#include "tests/support/suite_process.h"

namespace tutti::testing {
namespace {

namespace v1 = tutti::workflow::v1;

constexpr int kCrashes = 15;

constexpr char kSpec[] = R"(
name: counted
steps:
- {id: t1, tool: {tool: test_count}}
- id: both
  parallel:
    branches:
    - {id: left, steps: [{id: t2, tool: {tool: test_count}}]}
    - {id: right, steps: [{id: a1, agent: {agent: counting, input: hello}, retry: {max_attempts: 20, initial_backoff: 0.1s}}]}
- {id: t3, tool: {tool: test_count}, retry: {max_attempts: 20, initial_backoff: 0.1s}}
)";
const std::set<std::string> kLeaves = {"t1", "both/left/t2", "both/right/a1", "t3"};

// Keys of steps that the journal says are done: read from the file itself, with the suite dead.
std::set<std::string> CompletedKeys(const std::string& data_dir) {
  std::set<std::string> keys;
  sqlite3* db = nullptr;
  if (sqlite3_open((data_dir + "/tutti.db").c_str(), &db) == SQLITE_OK) {
    sqlite3_stmt* rows = nullptr;
    sqlite3_prepare_v2(db, "SELECT run_id, path FROM journal WHERE kind = 'step_completed'", -1, &rows, nullptr);
    while (rows && sqlite3_step(rows) == SQLITE_ROW) {
      std::string path = reinterpret_cast<const char*>(sqlite3_column_text(rows, 1));
      if (kLeaves.count(path))
        keys.insert(absl::StrCat(reinterpret_cast<const char*>(sqlite3_column_text(rows, 0)), "/", path));
    }
    sqlite3_finalize(rows);
  }
  sqlite3_close(db);
  return keys;
}

std::vector<std::string> Lines(const std::string& file) {
  return absl::StrSplit(ReadAll(file), '\n', absl::SkipEmpty());
}

// A key without its attempt: `run/step`.
std::string StepOf(const std::string& key) { return key.substr(0, key.rfind('/')); }

// On SQLite, and on a PostgreSQL of its own.
class CrashTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!GetParam()) return;
    auto started = PostgresServer::Start();
    if (!started.ok()) GTEST_SKIP() << started.status();
    postgres_ = *std::move(started);
    database_ = *postgres_->NewDatabase();
  }
  std::vector<std::string> Flags(const std::string& dir) const {
    std::vector<std::string> flags = {"--config=" + dir + "/config.yaml"};
    if (postgres_) flags.push_back("--state-manager.postgres.dsn=" + postgres_->Dsn(database_));
    return flags;
  }
  std::set<std::string> Completed(const std::string& data_dir) const {
    if (!postgres_) return CompletedKeys(data_dir);
    auto rows = postgres_->Sql(database_, "SELECT run_id || '/' || path FROM journal WHERE kind = 'step_completed'");
    if (!rows.ok()) return {};  // not migrated yet
    return absl::StrSplit(*rows, '\n', absl::SkipEmpty());
  }
  std::unique_ptr<PostgresServer> postgres_;
  std::string database_;
};
INSTANTIATE_TEST_SUITE_P(Stores, CrashTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Postgres" : "Sqlite"; });

TEST_P(CrashTest, EveryAcknowledgedRunEndsAndNoCompletedStepRunsAgain) {
  std::string dir = NewTempDir("crash");
  uint32_t seed = std::random_device()();
  if (const char* given = getenv("TUTTI_TEST_SEED")) seed = static_cast<uint32_t>(std::stoul(given));
  SCOPED_TRACE(absl::StrCat("repeat with TUTTI_TEST_SEED=", seed));
  std::mt19937 random(seed);
  std::string tool_counts = dir + "/tools", agent_counts = dir + "/agents";
  int provider_port = FreePorts(1)[0];
  ChildProcess provider(
      {"/usr/bin/python3", SourceDir() + "/tests/clients/fake_provider.py", absl::StrCat(provider_port), agent_counts},
      dir + "/provider.log");
  std::ofstream(dir + "/config.yaml") << absl::StrCat(
      "agent_manager:\n  openai: {base_url: \"http://127.0.0.1:", provider_port,
      "/v1\", api_key: test-key, model: m}\n  agents:\n  - {name: counting, model: {provider: openai}}\ntool_service: "
      "{test_count_file: ",
      tool_counts, "}\n");
  SuiteProcess suite({.data_dir = dir + "/data", .flags = Flags(dir)});
  std::set<std::string> acknowledged;
  // Steps that were done before a crash, with how often they had been called by then.
  std::map<std::string, int> done_before;
  auto count = [&] {
    std::map<std::string, int> counts;
    for (const auto& key : Lines(tool_counts)) ++counts[StepOf(key)];
    for (const auto& key : Lines(agent_counts))
      ++counts[StepOf(StepOf(key))];  // a provider's key ends in the exchange's number
    return counts;
  };
  for (int crash = 0; crash < kCrashes; ++crash) {
    ASSERT_TRUE(suite.Start());
    std::atomic<bool> stop{false};
    std::set<std::string> mine;
    std::thread starter([&] {
      auto stub = suite.runs();
      v1::StartRunRequest request;
      *request.mutable_spec() = SpecFromYaml(kSpec);
      while (!stop) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
        v1::StartRunResponse response;
        if (stub->StartRun(&context, request, &response).ok()) mine.insert(response.run().run_id());
      }
    });
    auto life = std::chrono::milliseconds(random() % 400);
    auto end = std::chrono::steady_clock::now() + life;
    Eventually([&] { return std::chrono::steady_clock::now() > end; }, 5);
    suite.Kill9();
    stop = true;
    starter.join();
    acknowledged.insert(mine.begin(), mine.end());
    auto counts = count();
    for (const auto& step : Completed(dir + "/data")) done_before.emplace(step, counts[step]);
  }
  ASSERT_TRUE(suite.Start());
  EXPECT_GT(acknowledged.size(), 20u);
  for (const auto& run_id : acknowledged) {
    v1::Run run = WaitForEnd(suite, run_id, 60);
    ASSERT_EQ(run.state(), v1::RUN_STATE_SUCCEEDED) << run_id << " " << run.error().message();
  }
  suite.Terminate();
  auto counts = count();
  for (const auto& run_id : acknowledged) {
    for (const auto& leaf : kLeaves) EXPECT_GE(counts[absl::StrCat(run_id, "/", leaf)], 1) << run_id << "/" << leaf;
  }
  for (const auto& [step, times] : done_before)
    EXPECT_EQ(counts[step], times) << step << " ran again after it was done";
  RecordProperty("acknowledged_runs", static_cast<int>(acknowledged.size()));
  std::cerr << acknowledged.size() << " acknowledged runs over " << kCrashes << " crashes, " << done_before.size()
            << " steps were done before one\n";
  std::filesystem::remove_all(dir);
}

// In six processes one after the other dies under load and comes back; the others go on.
TEST_P(CrashTest, AnyServiceMayDieAloneAndEveryAcknowledgedRunEnds) {
  std::string dir = NewTempDir("crash6");
  uint32_t seed = std::random_device()();
  if (const char* given = getenv("TUTTI_TEST_SEED")) seed = static_cast<uint32_t>(std::stoul(given));
  SCOPED_TRACE(absl::StrCat("repeat with TUTTI_TEST_SEED=", seed));
  std::mt19937 random(seed);
  std::ofstream(dir + "/config.yaml") << "tool_service: {test_count_file: " << dir << "/tools}\n";
  SuiteProcess suite({.form = Form::kSixProcesses, .data_dir = dir + "/data", .flags = Flags(dir)});
  ASSERT_TRUE(suite.Start());
  std::atomic<bool> stop{false};
  std::set<std::string> acknowledged;
  std::thread starter([&] {
    auto stub = suite.runs();
    v1::StartRunRequest request;
    *request.mutable_spec() = SpecFromYaml(R"(
name: counted
steps:
- {id: t1, tool: {tool: test_count}, retry: {max_attempts: 50, initial_backoff: 0.1s, max_backoff: 0.5s}}
- {id: a1, agent: {agent: echo}, retry: {max_attempts: 50, initial_backoff: 0.1s, max_backoff: 0.5s}}
- {id: t2, tool: {tool: test_count}, retry: {max_attempts: 50, initial_backoff: 0.1s, max_backoff: 0.5s}}
)");
    while (!stop) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
      v1::StartRunResponse response;
      if (stub->StartRun(&context, request, &response).ok()) acknowledged.insert(response.run().run_id());
      Pause();
    }
  });
  for (size_t process : {1, 4, 3, 2, 4, 1, 0, 4, 1, 3}) {
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(300 + random() % 300);
    Eventually([&] { return std::chrono::steady_clock::now() > end; }, 5);
    suite.Replace(process);
    if (postgres_ && process == 3) {  // and the database itself
      ASSERT_TRUE(postgres_->Stop("immediate").ok());
      ASSERT_TRUE(postgres_->StartAgain().ok());
    }
  }
  stop = true;
  starter.join();
  EXPECT_GT(acknowledged.size(), 20u);
  for (const auto& run_id : acknowledged) {
    v1::Run run = WaitForEnd(suite, run_id, 60);
    ASSERT_EQ(run.state(), v1::RUN_STATE_SUCCEEDED) << run_id << " " << run.error().message() << "\n" << suite.logs();
  }
  std::cerr << acknowledged.size() << " acknowledged runs over 10 deaths of single services\n";
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace tutti::testing
