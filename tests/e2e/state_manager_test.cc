// The state-manager as processes of its own: killed under load, and two of them over one database.
#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/e2e/state_manager_processes.h"
#include "tutti/state/v1/context_service.grpc.pb.h"
#include "tutti/state/v1/memory_service.grpc.pb.h"

namespace tutti::testing {
namespace {

// On SQLite and on PostgreSQL.
class StateManagerTest : public StateManagerProcesses, public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!GetParam()) return;
    if (SharedPostgres() == nullptr) GTEST_SKIP() << "PostgreSQL is not installed";
    dsn_ = SharedPostgres()->Dsn(*SharedPostgres()->NewDatabase());
  }
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
          // One by one, and three in a message.
          while (fine && sent < mine + 8) {
            v1::AppendRequest request = Entry(absl::StrCat("run", w), ++sent);
            for (int i = 0; i < 2 && w % 2 == 1; ++i) *request.add_also() = Entry(absl::StrCat("run", w), ++sent);
            fine = stream->Write(request);
          }
          fine = fine && stream->Read(&response);
          auto take = [&](const v1::AppendResponse& answer) {
            fine = fine && answer.status().code() == 0;
            if (!fine) return;
            EXPECT_EQ(answer.request_number(), mine + 1) << "answers keep the order of requests";
            ++mine;
            ++total;
          };
          if (fine) take(response);
          for (const auto& answer : response.also()) take(answer);
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
  // A server that does not answer at all: reads and appends are answered before their deadlines all the same.
  auto engine = Register(replica);
  CreateRun(replica, "r", engine);
  (*own)->Signal(SIGSTOP);
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(3));
    auto stream = v1::JournalService::NewStub(replica.channel)->Append(&context);
    v1::AppendResponse response;
    ASSERT_TRUE(stream->Write(Entry("r", 1)) && stream->Read(&response));
    EXPECT_EQ(response.request_number(), 1);
    EXPECT_EQ(response.status().code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(response.status().message(), ::testing::HasSubstr("did not answer before the call's deadline"));
    EXPECT_THAT(response.status().ShortDebugString(), ::testing::HasSubstr("RetryInfo"));
  }
  grpc::Status slow = ask();
  EXPECT_EQ(slow.error_code(), grpc::StatusCode::UNAVAILABLE) << slow.error_message();
  (*own)->Signal(SIGCONT);
  EXPECT_TRUE(Eventually([&] { return ask().error_code() == grpc::StatusCode::NOT_FOUND; }, 30));
  ASSERT_TRUE((*own)->Stop("immediate").ok());
  grpc::Status away = ask();
  EXPECT_EQ(away.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(away.error_message().find("the database cannot be reached"), std::string::npos) << away.error_message();
  EXPECT_NE(away.error_details().find("RetryInfo"), std::string::npos);
  // Health checks hear of it, those who ask and those who watch.
  using grpc::health::v1::HealthCheckResponse;
  auto serves = [&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    HealthCheckResponse response;
    EXPECT_TRUE(grpc::health::v1::Health::NewStub(replica.channel)->Check(&context, {}, &response).ok());
    return response.status() == HealthCheckResponse::SERVING;
  };
  EXPECT_TRUE(Eventually([&] { return !serves(); }, 30));
  grpc::ClientContext watching;
  auto watch = grpc::health::v1::Health::NewStub(replica.channel)->Watch(&watching, {});
  HealthCheckResponse seen;
  ASSERT_TRUE(watch->Read(&seen));
  EXPECT_EQ(seen.status(), HealthCheckResponse::NOT_SERVING);
  ASSERT_TRUE((*own)->StartAgain().ok());
  EXPECT_TRUE(Eventually([&] { return ask().error_code() == grpc::StatusCode::NOT_FOUND; }, 20));
  ASSERT_TRUE(watch->Read(&seen));
  EXPECT_EQ(seen.status(), HealthCheckResponse::SERVING);
  watching.TryCancel();
}

// A reader that stalls costs the server one message, is sent away with its token, and misses nothing by it.
TEST_P(StateManagerTest, ASlowWatcherIsSentAwayWithItsTokenAndGoesOn) {
  constexpr int kEntries = 40;
  Replica replica = NewReplica("one", {"--state-manager.slowest-reader=1s"});
  auto engine = Register(replica);
  CreateRun(replica, "r", engine);
  auto stub = v1::JournalService::NewStub(replica.channel);
  v1::WatchJournalRequest watch;
  watch.set_run_id("r");
  auto slow_context = std::make_unique<grpc::ClientContext>();
  auto slow = stub->WatchJournal(slow_context.get(), watch);
  {
    grpc::ClientContext context;
    auto stream = stub->Append(&context);
    v1::AppendResponse response;
    for (int64_t seq = 1; seq <= kEntries; ++seq) {
      v1::AppendRequest request = Entry("r", seq, seq == kEntries);
      // Far more than the connection holds for a reader that does not read.
      if (seq < kEntries) {
        request.mutable_entries(0)->mutable_step_completed()->mutable_result()->set_data(
            std::string(400000, static_cast<char>('a' + seq % 26)));
      }
      ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
      ASSERT_EQ(response.status().code(), 0) << response.status().message();
    }
    stream->WritesDone();
    (void)stream->Finish();
  }
  auto begin = std::chrono::steady_clock::now();
  Eventually([&] { return std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(1500); }, 10);
  std::vector<int64_t> seen;
  v1::WatchJournalResponse page;
  auto read_all = [&](auto& stream) {
    while (stream->Read(&page)) {
      for (const auto& entry : page.entries()) seen.push_back(entry.seq());
    }
    return stream->Finish();
  };
  grpc::Status away = read_all(slow);
  ASSERT_EQ(away.error_code(), grpc::StatusCode::ABORTED) << away.error_message();
  ASSERT_LT(seen.size(), static_cast<size_t>(kEntries));
  EXPECT_NE(away.error_message().find(absl::StrCat("after_seq = ", seen.back())), std::string::npos)
      << away.error_message();
  EXPECT_NE(away.error_details().find("WATCHER_TOO_SLOW"), std::string::npos);
  watch.set_after_seq(seen.back());
  grpc::ClientContext context;
  auto again = stub->WatchJournal(&context, watch);
  EXPECT_TRUE(read_all(again).ok());
  ASSERT_EQ(seen.size(), static_cast<size_t>(kEntries));
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<int64_t>(i) + 1);
}

// Whose clock says what does not matter: leases begin, hold and end by the database's.
TEST_P(StateManagerTest, ReplicasWhoseClocksAreHoursApartAgreeOnLeases) {
  if (!GetParam()) GTEST_SKIP() << "SQLite has one process";
  Replica right = NewReplica("right"), ahead = NewReplica("ahead", {}, 7200), behind = NewReplica("behind", {}, -7200);
  auto claim = [](Replica& replica, const v1::InstanceRef& instance) {
    v1::ClaimRunsRequest request;
    *request.mutable_instance() = instance;
    request.set_max_runs(10);
    v1::ClaimRunsResponse response;
    grpc::ClientContext context;
    grpc::Status status = v1::LeaseService::NewStub(replica.channel)->ClaimRuns(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::map<std::string, int64_t> epochs;
    for (const auto& run : response.runs()) epochs[run.run_id()] = run.lease_epoch();
    return epochs;
  };
  auto append = [](Replica& replica, const std::string& run, int64_t epoch) {
    v1::AppendRequest request = Entry(run, 1);
    request.set_lease_epoch(epoch);
    grpc::ClientContext context;
    auto stream = v1::JournalService::NewStub(replica.channel)->Append(&context);
    v1::AppendResponse response;
    EXPECT_TRUE(stream->Write(request) && stream->Read(&response));
    stream->WritesDone();
    (void)stream->Finish();
    return response.status();
  };
  auto lasting = Register(ahead, 60, "lasting"), brief = Register(ahead, 1, "brief"),
       other = Register(behind, 60, "other");
  CreateRun(behind, "held", lasting);
  CreateRun(right, "left", brief);
  EXPECT_EQ(append(behind, "held", 1).code(), 0);
  // The one that nobody prolongs is free after a second, also where it will not be for two hours; the other is not,
  // also where its lease seems to have ended two hours ago.
  std::map<std::string, int64_t> taken;
  EXPECT_TRUE(Eventually(
      [&] {
        taken = claim(behind, other);
        return !taken.empty();
      },
      20));
  EXPECT_EQ(taken, (std::map<std::string, int64_t>{{"left", 2}}));
  EXPECT_TRUE(claim(ahead, lasting).count("left") == 0);
  EXPECT_THAT(append(ahead, "left", 1).message(), ::testing::HasSubstr("leased under epoch 2"));
  EXPECT_EQ(append(ahead, "left", 2).code(), 0);
  v1::GetRunRequest get;
  get.set_run_id("held");
  v1::GetRunResponse got;
  grpc::ClientContext context;
  ASSERT_TRUE(v1::RunStoreService::NewStub(behind.channel)->GetRun(&context, get, &got).ok());
  EXPECT_LT(std::abs(absl::ToDoubleSeconds(absl::Now() - absl::FromUnixSeconds(got.run().create_time().seconds()))),
            60);
}

// The same of contexts: a watcher on any replica sees each version once, and one that stalls goes on after its last.
TEST_P(StateManagerTest, AContextsWatcherSeesEachVersionOnceOnAnyReplica) {
  constexpr int kVersions = 40;
  const std::vector<std::string> flags = {"--state-manager.slowest-reader=1s"};
  Replica one = NewReplica("one", flags);
  std::optional<Replica> two;
  if (GetParam()) two = NewReplica("two", flags);
  auto writer = v1::ContextService::NewStub(one.channel);
  auto reader = v1::ContextService::NewStub(two ? two->channel : one.channel);
  v1::CreateContextRequest create;
  create.set_context_id("shared");
  {
    v1::CreateContextResponse created;
    grpc::ClientContext context;
    ASSERT_TRUE(writer->CreateContext(&context, create, &created).ok());
  }
  v1::WatchContextRequest watch;
  watch.set_context_id("shared");
  grpc::ClientContext slow_context, quick_context;
  auto slow = reader->WatchContext(&slow_context, watch);
  std::vector<int64_t> quick_seen, slow_seen;
  std::thread quick([&] {
    auto stream = reader->WatchContext(&quick_context, watch);
    v1::WatchContextResponse change;
    while (quick_seen.size() < kVersions && stream->Read(&change)) quick_seen.push_back(change.context().version());
    quick_context.TryCancel();
    (void)stream->Finish();
  });
  for (int version = 2; version <= kVersions; ++version) {
    v1::UpdateContextRequest update;
    update.set_context_id("shared");
    update.set_strategy(v1::MERGE_STRATEGY_OVERWRITE);
    // Far more than the connection holds for a reader that does not read.
    update.mutable_document()->set_string_value(std::string(400000, static_cast<char>('a' + version % 26)));
    v1::UpdateContextResponse updated;
    grpc::ClientContext context;
    grpc::Status status = writer->UpdateContext(&context, update, &updated);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(updated.context().version(), version);
  }
  quick.join();
  auto begin = std::chrono::steady_clock::now();
  Eventually([&] { return std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(1500); }, 10);
  v1::WatchContextResponse change;
  while (slow->Read(&change)) slow_seen.push_back(change.context().version());
  grpc::Status away = slow->Finish();
  ASSERT_EQ(away.error_code(), grpc::StatusCode::ABORTED) << away.error_message();
  ASSERT_LT(slow_seen.size(), static_cast<size_t>(kVersions));
  EXPECT_NE(away.error_message().find(absl::StrCat("after_version = ", slow_seen.back())), std::string::npos)
      << away.error_message();
  watch.set_after_version(slow_seen.back());
  grpc::ClientContext again_context;
  auto again = reader->WatchContext(&again_context, watch);
  while (slow_seen.size() < kVersions && again->Read(&change)) slow_seen.push_back(change.context().version());
  again_context.TryCancel();
  (void)again->Finish();
  for (const auto& seen : {quick_seen, slow_seen}) {
    ASSERT_EQ(seen.size(), static_cast<size_t>(kVersions));
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<int64_t>(i) + 1);
  }
}

TEST_P(StateManagerTest, MigrationsAreShownAppliedAndRefused) {
  auto migrate = [&](const std::string& flags) {
    const std::string store =
        dsn_.empty() ? "--state-manager.data-dir=" + dir_ + "/new" : "'--state-manager.postgres.dsn=" + dsn_ + "'";
    return Shell(absl::StrCat(BinDir(), "/tutti-state-manager migrate ", store, " ", flags, " 2>&1"));
  };
  auto [shown, showed] = migrate("--dry-run");
  EXPECT_EQ(showed, 0) << shown;
  EXPECT_NE(shown.find("would apply 1 "), std::string::npos) << shown;
  auto [first, applied] = migrate("--to 3");
  EXPECT_EQ(applied, 0) << first;
  EXPECT_NE(first.find("applying 1 "), std::string::npos) << "the dry run has applied nothing: " << first;
  EXPECT_NE(first.find("applying 3 "), std::string::npos) << first;
  EXPECT_EQ(first.find("applying 4 "), std::string::npos) << first;
  auto [back, refused] = migrate("--to 2");
  EXPECT_EQ(refused, 1) << back;
  auto [unknown, refused_too] = migrate("--to 999");
  EXPECT_EQ(refused_too, 1) << unknown;
  auto [no_number, misused] = migrate("--to x");
  EXPECT_EQ(misused, 2) << no_number;
  auto [rest, applied_rest] = migrate("");
  EXPECT_EQ(applied_rest, 0) << rest;
  EXPECT_EQ(rest.find("applying 3 "), std::string::npos) << rest;
  EXPECT_EQ(migrate(""), (std::pair<std::string, int>{"nothing to apply\n", 0}));
}

TEST_P(StateManagerTest, AConfiguredEmbedderFindsByMeaning) {
  const int port = FreePort();
  ChildProcess embedder({"/usr/bin/python3", SourceDir() + "/tests/clients/embedding_server.py", absl::StrCat(port)},
                        dir_ + "/embedder.log");
  ASSERT_TRUE(Eventually([&] { return Accepts(port); }, 20));
  const std::string base = absl::StrCat("--state-manager.memory.embedder.base-url=http://127.0.0.1:", port, "/v1");
  Replica replica = NewReplica(
      "one", {base, "--state-manager.memory.embedder.model=words-1", "--state-manager.memory.embedder.api-key=sesame"});
  auto stub = v1::MemoryService::NewStub(replica.channel);
  auto remember = [&](const std::string& text) {
    v1::StoreMemoryRequest request;
    request.mutable_memory()->set_content(text);
    v1::StoreMemoryResponse response;
    grpc::ClientContext context;
    grpc::Status status = stub->StoreMemory(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.memory().embedder(), "words-1");
  };
  remember("the automobile is red");
  remember("tea at four");
  v1::SearchMemoriesRequest search;
  search.set_query("car");
  v1::SearchMemoriesResponse found;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->SearchMemories(&context, search, &found).ok());
  }
  ASSERT_GT(found.hits_size(), 0);
  EXPECT_EQ(found.hits(0).memory().content(), "the automobile is red") << "no word in common: found by meaning";
  embedder.Signal(SIGKILL);
  embedder.Wait(10);
  grpc::ClientContext context;
  grpc::Status away = stub->SearchMemories(&context, search, &found);
  EXPECT_EQ(away.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(away.error_message().find("--state-manager.memory.embedder"), std::string::npos) << away.error_message();
}

TEST_P(StateManagerTest, AnOldKeyIsRetiredWhileItRuns) {
  if (GetParam()) GTEST_SKIP() << "the same on both; the store's own test runs on both";
  const std::string keys = dir_ + "/keys";
  std::filesystem::create_directory(keys);
  auto add_key = [&](const std::string& id) { std::ofstream(keys + "/" + id + ".key") << std::string(64, id[0]); };
  add_key("a");
  const std::vector<std::string> flags = {"--state-manager.encryption.key-dir=" + keys,
                                          "--state-manager.encryption.reencrypt=true"};
  Replica replica = NewReplica("one", flags);
  auto engine = Register(replica);
  CreateRun(replica, "r", engine);
  {
    grpc::ClientContext context;
    auto stream = v1::JournalService::NewStub(replica.channel)->Append(&context);
    v1::AppendResponse response;
    for (int64_t seq = 1; seq <= 300; ++seq) {
      ASSERT_TRUE(stream->Write(Entry("r", seq)) && stream->Read(&response));
    }
    stream->WritesDone();
    (void)stream->Finish();
  }
  add_key("b");
  EXPECT_TRUE(Eventually(
      [&] { return ReadAll(replica.log).find("an encryption key is no longer needed") != std::string::npos; }, 60))
      << ReadAll(replica.log);
  replica.process->Signal(SIGTERM);
  EXPECT_EQ(replica.process->Wait(20), 0);
  std::filesystem::remove(keys + "/a.key");
  Replica without = NewReplica("two", flags);
  EXPECT_EQ(Paths(without, "r").size(), 300U);
}

}  // namespace
}  // namespace tutti::testing
