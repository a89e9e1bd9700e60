// The state-manager as processes of its own: killed under load, and two of them over one database.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/support/postgres_server.h"
#include "tests/support/suite_process.h"
#include "tutti/state/v1/journal_service.grpc.pb.h"
#include "tutti/state/v1/lease_service.grpc.pb.h"
#include "tutti/state/v1/run_store_service.grpc.pb.h"

namespace tutti::testing {
namespace {

namespace v1 = tutti::state::v1;

// On SQLite and on PostgreSQL.
class StateManagerTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    dir_ = NewTempDir("state");
    if (!GetParam()) return;
    if (SharedPostgres() == nullptr) GTEST_SKIP() << "PostgreSQL is not installed";
    dsn_ = SharedPostgres()->Dsn(*SharedPostgres()->NewDatabase());
  }
  ~StateManagerTest() override { std::filesystem::remove_all(dir_); }

  // One process and a channel to it.
  struct Replica {
    int port = 0;
    std::vector<std::string> command;
    std::string log;
    std::unique_ptr<ChildProcess> process;
    std::shared_ptr<grpc::Channel> channel;
    void Start() {
      process = std::make_unique<ChildProcess>(command, log);
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
      arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
      arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
      channel =
          grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(), arguments);
    }
    bool Ready() { return channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)); }
  };
  Replica NewReplica(const std::string& name) {
    Replica out;
    out.port = FreePorts(1)[0];
    out.log = dir_ + "/" + name + ".log";
    out.command = {BinDir() + "/tutti-state-manager", absl::StrCat("--state-manager.grpc-port=", out.port),
                   "--telemetry.metrics-port=-1", "--state-manager.data-dir=" + dir_ + "/data"};
    if (!dsn_.empty()) out.command.push_back("--state-manager.postgres.dsn=" + dsn_);
    out.Start();
    EXPECT_TRUE(out.Ready()) << ReadAll(out.log);
    return out;
  }
  v1::InstanceRef Register(Replica& replica) {
    auto stub = v1::LeaseService::NewStub(replica.channel);
    v1::RegisterInstanceRequest request;
    request.mutable_instance()->set_name("e");
    request.mutable_instance()->set_incarnation("1");
    request.mutable_lease_duration()->set_seconds(60);
    v1::RegisterInstanceResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub->RegisterInstance(&context, request, &response).ok());
    return request.instance();
  }
  void CreateRun(Replica& replica, const std::string& id, const v1::InstanceRef& owner) {
    auto stub = v1::RunStoreService::NewStub(replica.channel);
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    *request.mutable_owner() = owner;
    v1::CreateRunResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(stub->CreateRun(&context, request, &response).ok());
  }
  static v1::AppendRequest Entry(const std::string& run, int64_t seq, bool finish = false) {
    v1::AppendRequest request;
    request.set_request_number(seq);
    request.set_run_id(run);
    request.set_lease_epoch(1);
    request.set_writer_seq(seq);
    if (finish) {
      request.add_entries()->mutable_run_finished()->set_outcome(v1::OUTCOME_SUCCEEDED);
    } else {
      request.add_entries()->mutable_step_completed()->set_path(absl::StrCat("s", seq));
    }
    return request;
  }
  static std::vector<std::string> Paths(Replica& replica, const std::string& run) {
    auto stub = v1::JournalService::NewStub(replica.channel);
    v1::ReadJournalRequest request;
    request.set_run_id(run);
    grpc::ClientContext context;
    auto stream = stub->ReadJournal(&context, request);
    std::vector<std::string> paths;
    v1::ReadJournalResponse page;
    while (stream->Read(&page)) {
      for (const auto& entry : page.entries()) paths.push_back(entry.step_completed().path());
    }
    EXPECT_TRUE(stream->Finish().ok());
    return paths;
  }

  std::string dir_, dsn_;
};
INSTANTIATE_TEST_SUITE_P(Stores, StateManagerTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Postgres" : "Sqlite"; });

TEST_P(StateManagerTest, KilledUnderLoadItHasEveryAcknowledgedAppendOnce) {
  Replica replica = NewReplica("one");
  auto engine = Register(replica);
  constexpr int kWriters = 4, kKills = 5;
  for (int w = 0; w < kWriters; ++w) CreateRun(replica, absl::StrCat("run", w), engine);
  std::atomic<bool> stop{false};
  std::atomic<int64_t> total{0};
  std::vector<int64_t> acknowledged(kWriters, 0);
  std::vector<std::thread> writers;
  auto channel = replica.channel;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      auto stub = v1::JournalService::NewStub(channel);
      auto& mine = acknowledged[static_cast<size_t>(w)];
      while (!stop) {
        // A stream with up to eight appends on their way; what is unanswered when it breaks is sent again.
        grpc::ClientContext context;
        context.set_wait_for_ready(true);
        auto stream = stub->Append(&context);
        int64_t sent = mine;
        v1::AppendResponse response;
        for (bool fine = true; fine && !stop;) {
          while (fine && sent < mine + 8) fine = stream->Write(Entry(absl::StrCat("run", w), ++sent));
          fine = fine && stream->Read(&response) && response.status().code() == 0;
          if (fine) {
            EXPECT_EQ(response.request_number(), mine + 1) << "answers keep the order of requests";
            ++mine;
            ++total;
          }
        }
        context.TryCancel();
        (void)stream->Finish();
      }
    });
  }
  for (int kill = 0; kill < kKills; ++kill) {
    int64_t target = total + 150;
    ASSERT_TRUE(Eventually([&] { return total >= target; }, 60)) << ReadAll(replica.log);
    replica.process->Signal(SIGKILL);
    replica.process->Wait(10);
    replica.process = std::make_unique<ChildProcess>(replica.command, replica.log);
  }
  int64_t target = total + 100;
  ASSERT_TRUE(Eventually([&] { return total >= target; }, 60));
  stop = true;
  for (auto& writer : writers) writer.join();
  for (int w = 0; w < kWriters; ++w) {
    auto paths = Paths(replica, absl::StrCat("run", w));
    ASSERT_GE(static_cast<int64_t>(paths.size()), acknowledged[static_cast<size_t>(w)]);
    for (size_t i = 0; i < paths.size(); ++i) ASSERT_EQ(paths[i], absl::StrCat("s", i + 1));
  }
  std::cerr << total << " appends acknowledged over " << kKills << " kills\n";
}

TEST_P(StateManagerTest, WatchersOfAnyReplicaGetEachEntryOnceAlsoOverAFailover) {
  if (!GetParam()) GTEST_SKIP() << "SQLite has one process";
  Replica one = NewReplica("one"), two = NewReplica("two");
  auto engine = Register(one);
  CreateRun(one, "r", engine);
  constexpr int64_t kEntries = 300;
  // Four watchers on the replica that does not write, two on the one that will die; each resumes from its last entry.
  std::vector<std::vector<int64_t>> seen(6);
  std::vector<std::thread> watchers;
  for (size_t i = 0; i < seen.size(); ++i) {
    watchers.emplace_back([&, i] {
      auto& mine = seen[i];
      for (bool ended = false; !ended;) {
        auto stub = v1::JournalService::NewStub((i < 4 || !mine.empty()) ? two.channel : one.channel);
        v1::WatchJournalRequest request;
        request.set_run_id("r");
        request.set_after_seq(mine.empty() ? 0 : mine.back());
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
        auto stream = stub->WatchJournal(&context, request);
        v1::WatchJournalResponse page;
        while (stream->Read(&page)) {
          for (const auto& entry : page.entries()) {
            mine.push_back(entry.seq());
            ended |= entry.has_run_finished();
          }
        }
        grpc::Status status = stream->Finish();
        if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return;
      }
    });
  }
  auto append = [&](Replica& replica, int64_t from, int64_t to) {
    auto stub = v1::JournalService::NewStub(replica.channel);
    grpc::ClientContext context;
    auto stream = stub->Append(&context);
    v1::AppendResponse response;
    for (int64_t seq = from; seq <= to; ++seq) {
      ASSERT_TRUE(stream->Write(Entry("r", seq, seq == kEntries)) && stream->Read(&response));
      ASSERT_EQ(response.status().code(), 0) << response.status().message();
    }
    stream->WritesDone();
    (void)stream->Finish();
  };
  append(one, 1, kEntries / 2);
  one.process->Signal(SIGKILL);
  append(two, kEntries / 2 + 1, kEntries);
  for (auto& watcher : watchers) watcher.join();
  for (const auto& mine : seen) {
    ASSERT_EQ(mine.size(), static_cast<size_t>(kEntries));
    for (size_t i = 0; i < mine.size(); ++i) ASSERT_EQ(mine[i], static_cast<int64_t>(i + 1));
  }
}

TEST_P(StateManagerTest, WithoutItsDatabaseItAnswersInTimeAndSaysWhy) {
  if (!GetParam()) GTEST_SKIP() << "of PostgreSQL";
  auto own = PostgresServer::Start();
  ASSERT_TRUE(own.ok());
  dsn_ = (*own)->Dsn(*(*own)->NewDatabase());
  Replica replica = NewReplica("one");
  auto stub = v1::RunStoreService::NewStub(replica.channel);
  auto ask = [&] {
    v1::GetRunRequest request;
    request.set_run_id("none");
    v1::GetRunResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    return stub->GetRun(&context, request, &response);
  };
  EXPECT_EQ(ask().error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE((*own)->Stop("immediate").ok());
  grpc::Status away = ask();
  EXPECT_EQ(away.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(away.error_message().find("the database cannot be reached"), std::string::npos) << away.error_message();
  EXPECT_NE(away.error_details().find("RetryInfo"), std::string::npos);
  ASSERT_TRUE((*own)->StartAgain().ok());
  EXPECT_TRUE(Eventually([&] { return ask().error_code() == grpc::StatusCode::NOT_FOUND; }, 20));
}

}  // namespace
}  // namespace tutti::testing
