// Runs spread over two databases.
#include <atomic>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "tests/e2e/state_manager_processes.h"
#include "tutti/state/v1/audit_service.grpc.pb.h"
#include "tutti/state/v1/budget_service.grpc.pb.h"

namespace tutti::testing {
namespace {

class ShardTest : public StateManagerProcesses, public ::testing::Test {
 protected:
  void SetUp() override {
    if (SharedPostgres() == nullptr) GTEST_SKIP() << "PostgreSQL is not installed";
    for (auto& name : databases_) name = *SharedPostgres()->NewDatabase();
    dsn_ = SharedPostgres()->Dsn(databases_[0]);
    shard_dsns_ = {SharedPostgres()->Dsn(databases_[1])};
  }
  // The rule of store/shards.h, said once more: it may never change.
  static size_t ShardOf(const std::string& key) {
    uint64_t hash = 14695981039346656037U;
    for (char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
    return hash % 2;
  }
  static std::string IdOf(size_t shard, int number) {
    for (int i = 0;; ++i) {
      std::string id = absl::StrCat("run-", number, "-", i);
      if (ShardOf(id) == shard) return id;
    }
  }
  std::string Sql(size_t shard, const std::string& sql) { return *SharedPostgres()->Sql(databases_[shard], sql); }

  static grpc::Status Create(Replica& replica, const v1::CreateRunRequest& request, v1::CreateRunResponse& response) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    return v1::RunStoreService::NewStub(replica.channel)->CreateRun(&context, request, &response);
  }
  static v1::AppendResponse Append(Replica& replica, const v1::AppendRequest& request) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    auto stream = v1::JournalService::NewStub(replica.channel)->Append(&context);
    v1::AppendResponse response;
    stream->Write(request);
    if (!stream->Read(&response)) response.mutable_status()->set_code(grpc::StatusCode::UNAVAILABLE);
    stream->WritesDone();
    (void)stream->Finish();
    return response;
  }
  static v1::Budget GetBudget(Replica& replica, const std::string& scope) {
    v1::GetBudgetRequest request;
    request.set_scope(scope);
    v1::GetBudgetResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(v1::BudgetService::NewStub(replica.channel)->GetBudget(&context, request, &response).ok());
    return response.budget();
  }
  static void SetBudget(Replica& replica, const std::string& scope, int64_t limit) {
    v1::SetBudgetRequest request;
    request.mutable_budget()->set_scope(scope);
    request.mutable_budget()->set_limit_nano_units(limit);
    v1::SetBudgetResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(v1::BudgetService::NewStub(replica.channel)->SetBudget(&context, request, &response).ok());
  }

  std::string databases_[2];
};

TEST_F(ShardTest, RunsAreSpreadAndListedAsOne) {
  constexpr int kRuns = 40;
  Replica replica = NewReplica("one");
  auto engine = Register(replica);
  for (int i = 0; i < kRuns; ++i) CreateRun(replica, absl::StrCat("run-", 100 + i), engine);
  int in_each[2];
  for (size_t shard = 0; shard < 2; ++shard) {
    ASSERT_TRUE(absl::SimpleAtoi(Sql(shard, "SELECT count(*) FROM runs"), &in_each[shard]));
    EXPECT_GT(in_each[shard], kRuns / 4);
  }
  EXPECT_EQ(in_each[0] + in_each[1], kRuns);
  auto stub = v1::RunStoreService::NewStub(replica.channel);
  std::vector<std::string> listed;
  for (bool more = true; more;) {
    v1::ListRunsRequest request;
    request.set_page_size(7);
    if (!listed.empty()) request.set_before_run_id(listed.back());
    v1::ListRunsResponse page;
    grpc::ClientContext context;
    ASSERT_TRUE(stub->ListRuns(&context, request, &page).ok());
    for (const auto& run : page.runs()) listed.push_back(run.run_id());
    more = page.has_more();
  }
  ASSERT_EQ(listed.size(), static_cast<size_t>(kRuns));
  for (int i = 0; i < kRuns; ++i) EXPECT_EQ(listed[static_cast<size_t>(i)], absl::StrCat("run-", 100 + kRuns - 1 - i));
  // Another engine takes over from both databases.
  auto leases = v1::LeaseService::NewStub(replica.channel);
  {
    v1::ReleaseInstanceRequest request;
    *request.mutable_instance() = engine;
    v1::ReleaseInstanceResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(leases->ReleaseInstance(&context, request, &response).ok());
  }
  auto next = Register(replica, 60, "e", "2");
  std::set<std::string> claimed;
  for (int i = 0; i < 10 && claimed.size() < kRuns; ++i) {
    v1::ClaimRunsRequest request;
    *request.mutable_instance() = next;
    request.set_max_runs(9);
    for (const auto& id : claimed) request.add_held_run_ids(id);
    v1::ClaimRunsResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(leases->ClaimRuns(&context, request, &response).ok());
    for (const auto& run : response.runs()) EXPECT_TRUE(claimed.insert(run.run_id()).second);
  }
  EXPECT_EQ(claimed.size(), static_cast<size_t>(kRuns));
}

TEST_F(ShardTest, DatabasesInAnotherOrderOrNumberAreRefused) {
  {
    Replica replica = NewReplica("one");
    auto engine = Register(replica);
    for (int i = 0; i < 8; ++i) CreateRun(replica, IdOf(static_cast<size_t>(i % 2), i), engine);
    replica.process->Signal(SIGTERM);
    EXPECT_EQ(replica.process->Wait(20), 0);
  }
  auto refused = [&](const std::string& dsn, const std::string& more) {
    std::string command = absl::StrCat(BinDir(), "/tutti-state-manager --state-manager.grpc-port=", FreePort(),
                                       " --telemetry.metrics-port=-1 --state-manager.postgres.dsn='", dsn, "' ", more);
    auto [out, code] = Shell(absl::StrCat("timeout 30 ", command, " 2>&1"));
    EXPECT_NE(code, 0) << out;
    EXPECT_NE(out.find("--state-manager.postgres.shard-dsns"), std::string::npos) << out;
  };
  refused(shard_dsns_[0], "--state-manager.postgres.shard-dsns='" + dsn_ + "'");
  refused(dsn_, "");
}

TEST_F(ShardTest, ARequestIdStartsOneRunOverDatabasesAndReplicas) {
  Replica replicas[] = {NewReplica("one"), NewReplica("two")};
  auto engine = Register(replicas[0]);
  constexpr int kRequests = 20, kCallers = 6;
  for (int r = 0; r < kRequests; ++r) {
    std::vector<std::thread> callers;
    std::mutex mutex;
    std::set<std::string> answers;
    std::atomic<int> created{0}, failed{0};
    for (int c = 0; c < kCallers; ++c) {
      callers.emplace_back([&, c] {
        v1::CreateRunRequest request;
        request.mutable_run()->set_run_id(absl::StrCat("run-", r, "-", c));
        request.mutable_run()->set_request_id(absl::StrCat("request-", r));
        *request.mutable_owner() = engine;
        v1::CreateRunResponse response;
        if (!Create(replicas[c % 2], request, response).ok()) {
          ++failed;
          return;
        }
        std::lock_guard<std::mutex> lock(mutex);
        answers.insert(response.run().run_id());
        created += response.created() ? 1 : 0;
      });
    }
    for (auto& caller : callers) caller.join();
    EXPECT_EQ(failed, 0);
    EXPECT_EQ(answers.size(), 1U) << "request " << r;
    EXPECT_LE(created, 1);
  }
  EXPECT_EQ(std::stoi(Sql(0, "SELECT count(*) FROM runs")) + std::stoi(Sql(1, "SELECT count(*) FROM runs")), kRequests);
  // A caller died between its claim and its run: the next one creates the run under the claim, for whoever takes it.
  size_t at = ShardOf("/late");
  Sql(at, "INSERT INTO run_requests (tenant, request_id, run_id, use_time) VALUES ('', 'late', 'claimed-before', 1)");
  v1::CreateRunRequest request;
  request.mutable_run()->set_run_id("mine");
  request.mutable_run()->set_request_id("late");
  *request.mutable_owner() = engine;
  v1::CreateRunResponse response;
  ASSERT_TRUE(Create(replicas[0], request, response).ok());
  EXPECT_EQ(response.run().run_id(), "claimed-before");
  EXPECT_FALSE(response.created());
  v1::ClaimRunsRequest claim;
  *claim.mutable_instance() = engine;
  claim.set_max_runs(10);
  v1::ClaimRunsResponse claimed;
  grpc::ClientContext context;
  ASSERT_TRUE(v1::LeaseService::NewStub(replicas[0].channel)->ClaimRuns(&context, claim, &claimed).ok());
  bool found = false;
  for (const auto& run : claimed.runs()) found |= run.run_id() == "claimed-before";
  EXPECT_TRUE(found);
}

// Steps that reserve before they begin and settle when they end, on runs of both databases, while the process is
// killed again and again: no cap is passed, and in the end the sums agree to the nano-unit.
TEST_F(ShardTest, BudgetsHoldOverDatabasesAndKills) {
  constexpr int kRuns = 6, kKills = 4;
  constexpr int64_t kLimit = 20000, kHeld = 700;
  Replica replica = NewReplica("one");
  auto engine = Register(replica);
  SetBudget(replica, "tenants/t", kLimit);
  std::vector<std::string> ids;
  for (int i = 0; i < kRuns; ++i) ids.push_back(IdOf(static_cast<size_t>(i % 2), i));
  for (const auto& id : ids) CreateRun(replica, id, engine);
  std::atomic<int64_t> settled{0};
  std::atomic<int> refused{0}, running{kRuns}, steps{0};
  std::vector<std::thread> writers;
  auto channel = replica.channel;
  for (int w = 0; w < kRuns; ++w) {
    writers.emplace_back([&, w] {
      Replica mine;
      mine.channel = channel;
      const std::string& id = ids[static_cast<size_t>(w)];
      int64_t seq = 0;
      auto until_answered = [&](const v1::AppendRequest& request) {
        for (;;) {
          v1::AppendResponse response = Append(mine, request);
          if (response.status().code() != grpc::StatusCode::UNAVAILABLE) return response;
        }
      };
      for (int step = 0;; ++step) {
        v1::AppendRequest begin = Entry(id, seq + 1);
        auto* reservation = begin.add_reserve();
        reservation->set_reservation_id(absl::StrCat(id, "/", step));
        reservation->set_scope(absl::StrCat("tenants/t/runs/", id));
        reservation->mutable_amount()->set_nano_units(kHeld);
        v1::AppendResponse began = until_answered(begin);
        if (began.status().code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
          ++refused;
          break;
        }
        ASSERT_EQ(began.status().code(), 0) << began.status().message();
        ++seq;
        v1::AppendRequest end = Entry(id, seq + 1);
        auto* settlement = end.add_settle();
        settlement->set_reservation_id(absl::StrCat(id, "/", step));
        int64_t spent = 100 + 37 * (step % 7) + w;
        settlement->mutable_spent()->set_nano_units(spent);
        ASSERT_EQ(until_answered(end).status().code(), 0);
        ++seq;
        ++steps;
        settled += spent;
      }
      --running;
    });
  }
  for (int kill = 0; kill < kKills && running > 0; ++kill) {
    int before = steps;
    Eventually([&] { return steps > before + 5 || running == 0; }, 20);
    replica.process->Signal(SIGKILL);
    replica.process->Wait(10);
    replica.process = std::make_unique<ChildProcess>(replica.command, replica.log);
  }
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(refused, kRuns) << "in the end the budget stops all of them";
  ASSERT_TRUE(replica.Ready());
  EXPECT_TRUE(Eventually([&] { return GetBudget(replica, "tenants/t").spent().nano_units() == settled; }, 30))
      << GetBudget(replica, "tenants/t").ShortDebugString() << " settled " << settled;
  v1::Budget budget = GetBudget(replica, "tenants/t");
  EXPECT_LE(budget.spent().nano_units(), kLimit);
  EXPECT_EQ(budget.reserved().nano_units(), 0);
  EXPECT_TRUE(Eventually([&] { return Sql(1, "SELECT count(*) FROM outbox") == "0"; }, 10));
}

// Nobody else tells it here: the engine is none, and the store dies with its answer.
TEST_F(ShardTest, AChildsEndReachesItsParentWhoeverDies) {
  Replica replica = NewReplica("one");
  auto engine = Register(replica);
  for (size_t shard : {0, 1}) {
    const std::string parent = IdOf(shard, 1), child = IdOf(1, 2 + static_cast<int>(shard));
    v1::CreateRunRequest create;
    v1::CreateRunResponse created;
    *create.mutable_owner() = engine;
    create.mutable_run()->set_run_id(parent);
    // A channel notices by its next call that the process behind it was killed.
    ASSERT_TRUE(Eventually([&] { return Create(replica, create, created).ok(); }, 20));
    create.mutable_run()->set_run_id(child);
    create.mutable_run()->set_parent_run_id(parent);
    ASSERT_TRUE(Create(replica, create, created).ok());
    v1::AppendRequest end = Entry(child, 1);
    end.mutable_entries(0)->mutable_run_finished()->set_outcome(v1::OUTCOME_SUCCEEDED);
    ASSERT_EQ(Append(replica, end).status().code(), 0);
    replica.process->Signal(SIGKILL);
    replica.process->Wait(10);
    auto told = [&] {
      return Sql(shard, absl::StrCat("SELECT count(*) FROM journal WHERE run_id = '", parent,
                                     "' AND kind = 'signal_received' AND target = 'child/", child, "'"));
    };
    EXPECT_EQ(told(), "0");
    replica.process = std::make_unique<ChildProcess>(replica.command, replica.log);
    ASSERT_TRUE(replica.Ready());
    EXPECT_TRUE(Eventually([&] { return told() == "1"; }, 20)) << shard;
    EXPECT_TRUE(Eventually([&] { return Sql(1, "SELECT count(*) FROM outbox") == "0"; }, 20));
    EXPECT_EQ(told(), "1");
  }
}

// Before its entry is committed a reservation of the other database's run is held for a minute, and for as long as it
// says by a message that is committed with the entry. An entry that is refused sends none.
TEST_F(ShardTest, AReservationLastsFromTheMomentItsEntryIsCommitted) {
  Replica replica = NewReplica("one");
  auto engine = Register(replica);
  SetBudget(replica, "tenants/t", 1000);
  const std::string id = IdOf(1, 1);
  CreateRun(replica, id, engine);
  auto reserving = [&](int64_t seq, const char* reservation_id) {
    v1::AppendRequest request = Entry(id, seq);
    auto* reservation = request.add_reserve();
    reservation->set_reservation_id(reservation_id);
    reservation->set_scope("tenants/t");
    reservation->mutable_amount()->set_nano_units(10);
    reservation->mutable_ttl()->set_seconds(5000);
    return request;
  };
  // In seconds, from when it was promised.
  auto held_for = [this](const char* reservation_id) {
    return std::stoi("0" + Sql(0, absl::StrCat("SELECT (expire_time - create_time) / 1000000 FROM reservations WHERE "
                                               "reservation_id = '",
                                               reservation_id, "'")));
  };
  ASSERT_EQ(Append(replica, reserving(1, "committed")).status().code(), 0);
  EXPECT_TRUE(Eventually([&] { return held_for("committed") >= 5000; }, 20)) << held_for("committed");
  ASSERT_NE(Append(replica, reserving(7, "refused")).status().code(), 0) << "a gap in the journal";
  ASSERT_EQ(Append(replica, reserving(2, "after")).status().code(), 0);
  EXPECT_TRUE(Eventually([&] { return held_for("after") >= 5000; }, 20)) << held_for("after");
  EXPECT_EQ(held_for("refused"), 60);
}

TEST_F(ShardTest, WhatHappensElsewhereIsInTheOneAuditLog) {
  Replica replica = NewReplica("one");
  auto engine = Register(replica);
  std::set<std::string> wanted;
  for (size_t shard = 0; shard < 2; ++shard) {
    std::string id = IdOf(shard, 1);
    CreateRun(replica, id, engine);
    v1::RequestCancelRequest request;
    request.set_run_id(id);
    v1::RequestCancelResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(v1::RunStoreService::NewStub(replica.channel)->RequestCancel(&context, request, &response).ok());
    wanted.insert("runs/" + id);
  }
  EXPECT_TRUE(Eventually(
      [&] {
        v1::ListAuditRecordsRequest request;
        v1::ListAuditRecordsResponse response;
        grpc::ClientContext context;
        std::set<std::string> seen;
        if (!v1::AuditService::NewStub(replica.channel)->ListAuditRecords(&context, request, &response).ok())
          return false;
        for (const auto& record : response.records()) seen.insert(record.resource());
        return seen == wanted;
      },
      20));
}

TEST_F(ShardTest, OneDatabaseAwayLeavesTheOthersRunsAtWork) {
  auto own = PostgresServer::Start();
  ASSERT_TRUE(own.ok());
  shard_dsns_ = {(*own)->Dsn(*(*own)->NewDatabase())};
  Replica replica = NewReplica("one");
  auto engine = Register(replica, /*lease_seconds=*/2);
  std::string here = IdOf(0, 1), there = IdOf(1, 1);
  CreateRun(replica, here, engine);
  CreateRun(replica, there, engine);
  ASSERT_TRUE((*own)->Stop("immediate").ok());
  auto beat = [&] {
    v1::HeartbeatRequest request;
    *request.mutable_instance() = engine;
    v1::HeartbeatResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    return v1::LeaseService::NewStub(replica.channel)->Heartbeat(&context, request, &response);
  };
  EXPECT_TRUE(beat().ok());
  EXPECT_EQ(Append(replica, Entry(here, 1)).status().code(), 0);
  EXPECT_EQ(Append(replica, Entry(there, 1)).status().code(), grpc::StatusCode::UNAVAILABLE);
  // Away for longer than the lease: the engine stays registered where it can be, and is again when the other is back.
  auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(Eventually(
      [&] {
        EXPECT_TRUE(beat().ok());
        return std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(2500);
      },
      20));
  // A server may take longer to start than the lease is long: the engine goes on saying that it lives.
  auto started = std::async(std::launch::async, [&] { return (*own)->StartAgain(); });
  EXPECT_TRUE(Eventually([&] { return beat().ok() && Append(replica, Entry(there, 1)).status().code() == 0; }, 60));
  ASSERT_TRUE(started.get().ok());
  // The heartbeat before may have come a moment too early for the other database; one that comes after it is back has
  // the engine there again.
  auto registered = [&] {
    auto living =
        (*own)->Sql("t1", "SELECT count(*) FROM instances WHERE expire_time > extract(epoch FROM now()) * 1000000");
    return living.value_or("?") == "1";
  };
  EXPECT_TRUE(Eventually([&] { return beat().ok() && registered(); }, 20));
  EXPECT_EQ(Paths(replica, there), std::vector<std::string>{"s1"});
}

TEST_F(ShardTest, BackupAndRestoreBringAllDatabasesBack) {
  {
    Replica replica = NewReplica("one");
    auto engine = Register(replica);
    for (size_t shard = 0; shard < 2; ++shard) {
      CreateRun(replica, IdOf(shard, 7), engine);
      ASSERT_EQ(Append(replica, Entry(IdOf(shard, 7), 1)).status().code(), 0);
    }
    std::string flags = absl::StrCat(" --state-manager.postgres.dsn='", dsn_, "' --state-manager.postgres.shard-dsns='",
                                     shard_dsns_[0], "' 2>&1");
    auto [saved, code] = Shell(absl::StrCat(BinDir(), "/tutti-state-manager backup ", dir_, "/saved", flags));
    ASSERT_EQ(code, 0) << saved;
  }
  for (auto& name : databases_) name = *SharedPostgres()->NewDatabase();
  dsn_ = SharedPostgres()->Dsn(databases_[0]);
  shard_dsns_ = {SharedPostgres()->Dsn(databases_[1])};
  std::string flags = absl::StrCat(" --state-manager.postgres.dsn='", dsn_, "' --state-manager.postgres.shard-dsns='",
                                   shard_dsns_[0], "' 2>&1");
  auto [restored, code] = Shell(absl::StrCat(BinDir(), "/tutti-state-manager restore ", dir_, "/saved", flags));
  ASSERT_EQ(code, 0) << restored;
  Replica replica = NewReplica("again");
  for (size_t shard = 0; shard < 2; ++shard) {
    EXPECT_EQ(Paths(replica, IdOf(shard, 7)), std::vector<std::string>{"s1"});
  }
}

}  // namespace
}  // namespace tutti::testing
