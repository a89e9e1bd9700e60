// Runs, journals, leases and definitions, on every engine.
#include <set>
#include <thread>

#include "services/state-manager/store/shards.h"
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class StoreTest : public StoreFixture {};
TUTTI_ON_ALL_ENGINES(StoreTest);

TEST_P(StoreTest, WhatIsAcknowledgedIsThereAfterReopening) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 3), IsOk());
  if (Persists()) Reopen();
  EXPECT_EQ(JournalOf("r1").size(), 3u);
  EXPECT_EQ(JournalOf("r1")[2].seq(), 3);
  EXPECT_EQ(Get("r1").usage().input_tokens(), 30);
  EXPECT_EQ(Get("r1").usage().cost_nano_units(), 9);
}

TEST_P(StoreTest, TheSameRequestIdStartsNothingTwice) {
  auto first = Create("r1", nullptr, "abc");
  auto second = Create("r2", nullptr, "abc");
  ASSERT_THAT(second, IsOk());
  EXPECT_TRUE(first->created());
  EXPECT_FALSE(second->created());
  EXPECT_EQ(second->run().run_id(), "r1");
}

TEST_P(StoreTest, RepeatedAppendIsAcceptedAndWrittenOnce) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2), IsOk());
  EXPECT_EQ(JournalOf("r1").size(), 2u);
  EXPECT_EQ(Get("r1").usage().calls(), 2);
  EXPECT_THAT(Append("r1", 1, 5), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "writer_seq 5 after 2"));
}

TEST_P(StoreTest, RefusesAppendFromAnOlderEpoch) {
  auto old_engine = Register("e1", "1");
  ASSERT_THAT(Create("r1", &old_engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  time_.Advance(absl::Seconds(6));  // no heartbeat came
  auto new_engine = Register("e2", "1");
  auto claimed = Claim(new_engine);
  ASSERT_THAT(claimed, IsOk());
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(claimed->runs(0).lease_epoch(), 2);
  EXPECT_THAT(Append("r1", 1, 2), HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(Append("r1", 2, 1), IsOk());
  EXPECT_EQ(JournalOf("r1").size(), 2u);
}

TEST_P(StoreTest, ALivingOwnersRunsAreNotClaimed) {
  auto engine = Register("e1", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  auto other = Register("e2", "1");
  time_.Advance(absl::Seconds(4));
  v1::HeartbeatRequest beat;
  *beat.mutable_instance() = engine;
  ASSERT_THAT(Write(store_->leases, &Leases::Heartbeat, beat), IsOk());
  *beat.mutable_instance() = other;
  ASSERT_THAT(Write(store_->leases, &Leases::Heartbeat, beat), IsOk());
  time_.Advance(absl::Seconds(4));
  EXPECT_EQ(Claim(other)->runs_size(), 0);
}

TEST_P(StoreTest, EnginesAreToldTheirPlaceAmongTheLiving) {
  auto rank = [&](const v1::InstanceRef& engine) {
    v1::HeartbeatRequest beat;
    *beat.mutable_instance() = engine;
    auto answer = Write(store_->leases, &Leases::Heartbeat, beat);
    EXPECT_THAT(answer, IsOk());
    return std::pair(answer->rank().rank(), answer->rank().engines());
  };
  auto first = Register("e1", "1");
  EXPECT_EQ(rank(first), std::pair(0, 1));
  v1::RegisterInstanceRequest request;
  request.mutable_instance()->set_name("e2");
  request.mutable_instance()->set_incarnation("1");
  request.mutable_lease_duration()->set_seconds(10);
  auto second = Write(store_->leases, &Leases::RegisterInstance, request);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->rank().rank(), 1);
  EXPECT_EQ(second->rank().engines(), 2);
  EXPECT_EQ(rank(first), std::pair(0, 2));
  time_.Advance(absl::Seconds(9));  // the first one's lease has ended
  EXPECT_EQ(rank(request.instance()), std::pair(0, 1));
}

TEST_P(StoreTest, ANewIncarnationTakesOverAtOnce) {
  auto before = Register("e", "1");
  ASSERT_THAT(Create("r1", &before), IsOk());
  auto after = Register("e", "2");
  EXPECT_EQ(Claim(after)->runs_size(), 1);
  EXPECT_THAT(Claim(before), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Create("r2", &before), HasCode(absl::StatusCode::kFailedPrecondition));
}

// The store remembers what runs were like after their last append; what others wrote since is seen all the same.
TEST_P(StoreTest, AppendsGoOnAfterOthersWroteToTheRun) {
  auto engine = Register("e", "1");
  for (const char* id : {"r1", "r2"}) {
    ASSERT_THAT(Create(id, &engine), IsOk());
    for (int64_t seq : {1, 2}) ASSERT_THAT(Append(id, 1, seq), IsOk());
  }
  v1::RequestCancelRequest cancel;
  cancel.set_run_id("r1");
  ASSERT_THAT(Write(store_->control, &RunControl::RequestCancel, cancel), IsOk());
  for (const char* id : {"r1", "r2"}) ASSERT_THAT(Append(id, 1, 3), IsOk());
  auto journal = JournalOf("r1");
  ASSERT_EQ(journal.size(), 4u);
  EXPECT_TRUE(journal[2].has_cancel_requested());
  EXPECT_EQ(journal[3].seq(), 4);
  EXPECT_EQ(JournalOf("r2").size(), 3u);
  ASSERT_THAT(Sql("UPDATE runs SET lease_epoch = 2, last_writer_seq = 0 WHERE run_id = 'r2'"), IsOk());
  EXPECT_THAT(Append("r2", 1, 4), HasCodeAndText(absl::StatusCode::kAborted, "epoch 2"));
  EXPECT_THAT(Append("r2", 2, 1), IsOk());
}

TEST_P(StoreTest, AnEndedRunTakesNothingMore) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2, /*finish=*/true), IsOk());
  EXPECT_EQ(Get("r1").outcome(), v1::OUTCOME_SUCCEEDED);
  EXPECT_EQ(Get("r1").output().data(), "42");
  EXPECT_THAT(Append("r1", 1, 3), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Append("none", 1, 1), HasCode(absl::StatusCode::kNotFound));
}

TEST_P(StoreTest, CancelIsJournalledOnce) {
  ASSERT_THAT(Create("r1"), IsOk());
  v1::RequestCancelRequest request;
  request.set_run_id("r1");
  request.set_reason("enough");
  ASSERT_THAT(Write(store_->control, &RunControl::RequestCancel, request), IsOk());
  ASSERT_THAT(Write(store_->control, &RunControl::RequestCancel, request), IsOk());
  ASSERT_EQ(JournalOf("r1").size(), 1u);
  EXPECT_EQ(JournalOf("r1")[0].cancel_requested().reason(), "enough");
  EXPECT_TRUE(Get("r1").cancel_requested());
}

TEST_P(StoreTest, ManyWritersAreCommittedTogetherAndKeepTheirOrder) {
  auto engine = Register("e", "1");
  constexpr int kRuns = 50, kAppends = 40;
  for (int r = 0; r < kRuns; ++r) ASSERT_THAT(Create(absl::StrCat("run", r), &engine), IsOk());
  std::atomic<int> answered{0}, failed{0};
  std::promise<void> all;
  for (int i = 1; i <= kAppends; ++i) {
    for (int r = 0; r < kRuns; ++r) {
      v1::AppendRequest request;
      request.set_run_id(absl::StrCat("run", r));
      request.set_lease_epoch(1);
      request.set_writer_seq(i);
      request.add_entries()->mutable_step_started()->set_path(absl::StrCat("s", i));
      store_->journal.Append(*database_, request, [&](v1::AppendResponse response) {
        if (response.status().code() != 0) ++failed;
        if (++answered == kRuns * kAppends) all.set_value();
      });
    }
  }
  all.get_future().wait();
  EXPECT_EQ(failed, 0);
  for (int r = 0; r < kRuns; ++r) {
    auto journal = JournalOf(absl::StrCat("run", r));
    ASSERT_EQ(journal.size(), static_cast<size_t>(kAppends));
    for (int i = 0; i < kAppends; ++i)
      EXPECT_EQ(journal[static_cast<size_t>(i)].step_started().path(), absl::StrCat("s", i + 1));
  }
}

TEST_P(StoreTest, ListsByStateLabelAndPage) {
  auto engine = Register("e", "1");
  for (int i = 0; i < 5; ++i) ASSERT_THAT(Create(absl::StrCat("r", i), &engine), IsOk());
  ASSERT_THAT(Append("r3", 1, 1, 1, /*finish=*/true), IsOk());
  v1::ListRunsRequest request;
  request.set_page_size(2);
  auto page = Read(store_->runs, &Runs::ListRuns, request);
  ASSERT_THAT(page, IsOk());
  EXPECT_EQ(page->runs(0).run_id(), "r4");
  EXPECT_TRUE(page->has_more());
  request.set_state("SUCCEEDED");
  page = Read(store_->runs, &Runs::ListRuns, request);
  ASSERT_EQ(page->runs_size(), 1);
  EXPECT_EQ(page->runs(0).run_id(), "r3");
  EXPECT_FALSE(page->has_more());
  request.clear_state();
  (*request.mutable_labels())["team"] = "x";
  EXPECT_EQ(Read(store_->runs, &Runs::ListRuns, request)->runs_size(), 0);
}

TEST_P(StoreTest, AWorkflowsVersionNeverChanges) {
  v1::PutWorkflowRequest put;
  put.mutable_workflow()->set_name("w");
  put.mutable_workflow()->mutable_spec()->set_data("one");
  EXPECT_EQ(Write(store_->workflows, &Workflows::PutWorkflow, put)->workflow().version(), 1);
  EXPECT_EQ(Write(store_->workflows, &Workflows::PutWorkflow, put)->workflow().version(), 1)
      << "equal bytes store nothing";
  put.mutable_workflow()->mutable_spec()->set_data("two");
  EXPECT_EQ(Write(store_->workflows, &Workflows::PutWorkflow, put)->workflow().version(), 2);
  v1::GetWorkflowRequest get;
  get.set_name("w");
  get.set_version(1);
  EXPECT_EQ(Read(store_->workflows, &Workflows::GetWorkflow, get)->workflow().spec().data(), "one");
  get.set_version(9);
  EXPECT_THAT(Read(store_->workflows, &Workflows::GetWorkflow, get), HasCode(absl::StatusCode::kNotFound));
}

TEST_P(StoreTest, AClaimBringsBackWhatAnEarlierAnswerLost) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Create("r2", &engine), IsOk());
  ASSERT_THAT(Append("r2", 1, 1), IsOk());
  // The engine works on r1 only: the answer that gave it r2 never arrived.
  v1::ClaimRunsRequest request;
  *request.mutable_instance() = engine;
  request.set_max_runs(10);
  request.add_held_run_ids("r1");
  auto claimed = Write(store_->leases, &Leases::ClaimRuns, request);
  ASSERT_THAT(claimed, IsOk());
  EXPECT_EQ(claimed->runs_size(), 0) << "it may still arrive";
  ASSERT_THAT(Append("r2", 1, 2), IsOk());
  PassWithHeartbeats(engine, absl::Seconds(6));
  claimed = Write(store_->leases, &Leases::ClaimRuns, request);
  ASSERT_THAT(claimed, IsOk());
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(claimed->runs(0).run_id(), "r2");
  EXPECT_EQ(claimed->runs(0).lease_epoch(), 2);
  EXPECT_THAT(Append("r2", 1, 3), HasCode(absl::StatusCode::kAborted)) << "the old epoch is over";
}

TEST_P(StoreTest, DeathsOfARunsEngineWithoutProgressAreCounted) {
  auto started = [this](int64_t epoch, int64_t writer_seq) {
    v1::AppendRequest request;
    request.set_run_id("r");
    request.set_lease_epoch(epoch);
    request.set_writer_seq(writer_seq);
    request.add_entries()->mutable_run_started()->set_lease_epoch(epoch);
    auto* step = request.add_entries()->mutable_step_started();
    step->set_path("a");
    step->set_attempt(1);
    return Append(request);
  };
  // Each engine takes the run up, begins its step, and is heard of no more.
  auto take_up = [&](const std::string& incarnation) {
    auto engine = Register("e" + incarnation, incarnation);
    auto claimed = Claim(engine);
    EXPECT_THAT(claimed, IsOk());
    EXPECT_EQ(claimed->runs_size(), 1);
    int strikes = claimed->runs_size() == 1 ? claimed->runs(0).strikes() : -1;
    EXPECT_THAT(started(claimed->runs(0).lease_epoch(), 1), IsOk());
    return strikes;
  };
  auto first = Register("e0", "0");
  ASSERT_THAT(Create("r", &first), IsOk());
  ASSERT_THAT(started(1, 1), IsOk());
  time_.Advance(absl::Seconds(6));
  EXPECT_EQ(take_up("1"), 1);
  time_.Advance(absl::Seconds(6));
  EXPECT_EQ(take_up("2"), 2);
  // One that makes progress before it dies is no death of the run's making.
  ASSERT_THAT(Append("r", 3, 3), IsOk());
  time_.Advance(absl::Seconds(6));
  EXPECT_EQ(take_up("3"), 0);
  time_.Advance(absl::Seconds(6));
  EXPECT_EQ(take_up("4"), 1);
  // One that gives its runs back in good order is none either.
  v1::ReleaseInstanceRequest release;
  release.mutable_instance()->set_name("e4");
  release.mutable_instance()->set_incarnation("4");
  ASSERT_THAT(Write(store_->leases, &Leases::ReleaseInstance, release), IsOk());
  EXPECT_EQ(take_up("5"), 0);
  // Nor is one whose lease expired while its process lived: it comes back under a new name.
  time_.Advance(absl::Seconds(6));
  const std::string process = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  EXPECT_EQ(take_up(process + ".1"), 1);
  time_.Advance(absl::Seconds(6));
  EXPECT_EQ(take_up(process + ".2"), 0);
}

TEST_P(StoreTest, SignalsOfOneNameLeaveRoomForOthers) {
  ASSERT_THAT(Create("r"), IsOk());
  auto signal = [this](const std::string& name, int number) {
    v1::SignalRunRequest request;
    request.set_run_id("r");
    request.mutable_signal()->set_name(name);
    request.mutable_signal()->set_request_id(absl::StrCat(name, number));
    return Write(store_->control, &RunControl::SignalRun, request).status();
  };
  for (int i = 0; i < 1000; ++i) ASSERT_THAT(signal("noise", i), IsOk());
  EXPECT_EQ(ReasonOf(signal("noise", 1000)), "TOO_MANY_SIGNALS");
  EXPECT_THAT(signal("noise", 5), IsOk()) << "one that was sent before";
  EXPECT_THAT(signal("decision", 1), IsOk());
}

TEST_P(StoreTest, ARepeatedCreateOfTheSameRunIsTheFirstOne) {
  auto engine = Register("e", "1");
  ASSERT_TRUE(Create("r1", &engine)->created());
  auto again = Create("r1", &engine);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->run().run_id(), "r1");
  EXPECT_FALSE(again->created()) << "it may have begun since: a claim says whether it is still to be worked on";
  PassWithHeartbeats(engine, absl::Seconds(6));
  auto claimed = Claim(engine);
  ASSERT_THAT(claimed, IsOk());
  EXPECT_EQ(claimed->runs_size(), 1) << "the answer was lost, the run is its creator's";
}

TEST_P(StoreTest, RunsCreatedTogetherAreEachAnswered) {
  auto engine = Register("e", "1");
  v1::PutWorkflowRequest put;
  put.mutable_workflow()->set_name("w");
  for (const char* spec : {"one", "two"}) {
    put.mutable_workflow()->mutable_spec()->set_data(spec);
    ASSERT_THAT(Write(store_->workflows, &Workflows::PutWorkflow, put), IsOk());
  }
  auto run = [](const std::string& id, const std::string& request_id = "") {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    request.mutable_run()->set_workflow("w");
    request.mutable_run()->set_workflow_version(2);
    request.mutable_run()->set_request_id(request_id);
    request.mutable_run()->mutable_input()->set_data("{}");
    return request;
  };
  std::vector<v1::CreateRunRequest> requests = {run("r1", "q"), run("r2", "q"), run("r1"), run("r3"), run("r4"),
                                                run("r5"),      run("r6"),      run("r7"), run("r7")};
  *requests[0].mutable_owner() = engine;
  requests[3].mutable_owner()->set_name("stranger");
  const std::string large(100000, 'x');
  requests[4].mutable_run()->mutable_input()->set_data(large);
  (*requests[4].mutable_run()->mutable_labels())["team"] = "blue";
  requests[5].mutable_run()->set_workflow_version(1);
  requests[5].set_check_latest(true);
  requests[6].set_check_latest(true);
  requests[7].mutable_owner()->set_name("stranger");

  struct Answers {
    std::vector<v1::CreateRunResponse> responses;
    std::vector<absl::Status> statuses;
  };
  auto answers = Transact<Answers>([&](Transaction& tx, Answers& out) {
    out.responses.resize(requests.size());
    out.statuses.resize(requests.size());
    std::vector<Runs::ToCreate> all;
    for (size_t i = 0; i < requests.size(); ++i) all.push_back({&requests[i], &out.responses[i], &out.statuses[i]});
    return store_->runs.CreateAll(tx, all);
  });
  ASSERT_THAT(answers, IsOk());
  const auto& [responses, statuses] = *answers;
  for (size_t i : {0, 1, 2, 4, 6}) EXPECT_THAT(statuses[i], IsOk()) << i;
  EXPECT_TRUE(responses[0].created());
  EXPECT_EQ(responses[0].run().lease_epoch(), 1);
  EXPECT_FALSE(responses[1].created());
  EXPECT_EQ(responses[1].run().run_id(), "r1");
  EXPECT_FALSE(responses[2].created());
  EXPECT_EQ(ReasonOf(statuses[3]), "INSTANCE_UNKNOWN");
  EXPECT_TRUE(responses[4].created());
  EXPECT_EQ(ReasonOf(statuses[5]), "WORKFLOW_CHANGED");
  EXPECT_TRUE(responses[6].created());
  // Of one id only the first is looked at where all are one statement; the other is stored, or is to come again.
  EXPECT_EQ(ReasonOf(statuses[7]), "INSTANCE_UNKNOWN");
  if (!statuses[8].ok()) {
    EXPECT_EQ(ReasonOf(statuses[8]), "RUN_NOT_CREATED");
  }
  EXPECT_EQ(Number("SELECT count(*) FROM runs"), statuses[8].ok() ? 4 : 3);
  EXPECT_EQ(Get("r4").input().data(), large);
  EXPECT_EQ(Get("r4").labels().at("team"), "blue");
  EXPECT_EQ(Get("r1").request_id(), "q");
  EXPECT_GT(Get("r6").create_time().seconds(), 0);
}

TEST_P(StoreTest, ReplicasThatStartAtOnceAgreeOnTheStore) {
  constexpr int kReplicas = 6;
  std::vector<std::thread> replicas;
  std::vector<std::string> ids(kReplicas);
  for (int i = 0; i < kReplicas; ++i) {
    replicas.emplace_back([&, i] {
      auto claimed = Transact<std::string>([&](Transaction& tx, std::string& store_id) {
        return ClaimShard(tx, 0, 2, absl::StrCat("store-", i), store_id);
      });
      EXPECT_THAT(claimed, IsOk());
      if (claimed.ok()) ids[static_cast<size_t>(i)] = *claimed;
    });
  }
  for (auto& replica : replicas) replica.join();
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1u);
  auto claim = [&](size_t index, size_t shards, std::string store_id) {
    return Transact<int>([&](Transaction& tx, int&) { return ClaimShard(tx, index, shards, "new", store_id); })
        .status();
  };
  EXPECT_THAT(claim(0, 2, ids[0]), IsOk());
  for (auto status : {claim(1, 2, ""), claim(0, 3, ""), claim(0, 2, "another")}) {
    EXPECT_THAT(status, HasCodeAndText(absl::StatusCode::kFailedPrecondition, "shard-dsns"));
  }
}

TEST_P(StoreTest, ARunThatAnotherHasTakenIsNotItsCreatorsOwn) {
  auto slow = Register("slow", "1"), quick = Register("quick", "1");
  ASSERT_THAT(Create("r1", nullptr), IsOk());
  auto claimed = Claim(quick);
  ASSERT_THAT(claimed, IsOk());
  ASSERT_EQ(claimed->runs_size(), 1);
  auto late = Create("r1", &slow);
  ASSERT_THAT(late, IsOk());
  EXPECT_FALSE(late->created()) << "two would work on it under one epoch";
}

TEST_P(StoreTest, HeartbeatsTellOfCancelsThatNewsLost) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  v1::RequestCancelRequest cancel;
  cancel.set_run_id("r1");
  ASSERT_THAT(Write(store_->control, &RunControl::RequestCancel, cancel), IsOk());
  v1::HeartbeatRequest beat;
  *beat.mutable_instance() = engine;
  auto answer = Write(store_->leases, &Leases::Heartbeat, beat);
  ASSERT_THAT(answer, IsOk());
  ASSERT_EQ(answer->cancel_run_ids_size(), 1);
  EXPECT_EQ(answer->cancel_run_ids(0), "r1");
}

TEST_P(StoreTest, AnAppendThatMeansNothingIsRefusedForGood) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  EXPECT_THAT(Append(Entries("r1", 1, 1, 0)),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "entries must be given"));
  EXPECT_THAT(Append(Entries("r1", 1, 0)), HasCode(absl::StatusCode::kInvalidArgument));
  auto nul = Entries("r1", 1, 1);
  nul.mutable_entries(0)->mutable_step_completed()->mutable_usage(0)->set_model(std::string("m\0", 2));
  EXPECT_THAT(Append(nul), HasCodeAndText(absl::StatusCode::kInvalidArgument, "NUL"));
  EXPECT_THAT(Append("r1", 1, 1), IsOk());
}

TEST_P(StoreTest, ARefusalAfterAWriteUndoesItsOwnWritesOnly) {
  std::vector<std::promise<absl::Status>> done(50);
  for (int i = 0; i < 50; ++i) {
    WriteOp op;
    op.apply = [i](Transaction& tx) -> absl::Status {
      absl::Status status = tx.Prepare("INSERT INTO meta (key, value) VALUES ($1, $2)")
                                .BindAll(absl::StrCat("k", i), SqlArg::Bytes("v"))
                                .Run();
      return status.ok() && i % 5 == 3 ? absl::InvalidArgumentError("no") : status;
    };
    op.finish = [&done, i](const absl::Status& status) { done[static_cast<size_t>(i)].set_value(status); };
    database_->Write(std::move(op));
  }
  for (int i = 0; i < 50; ++i) {
    EXPECT_THAT(done[static_cast<size_t>(i)].get_future().get(),
                HasCode(i % 5 == 3 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kOk));
  }
  EXPECT_EQ(Number("SELECT count(*) FROM meta WHERE key LIKE 'k%'"), 40);
}

TEST_P(StoreTest, WhatIsThrownIsAnErrorOfOneCall) {
  auto thrown = Transact<int>([](Transaction&, int&) -> absl::Status { throw std::runtime_error("oops"); });
  EXPECT_THAT(thrown, HasCodeAndText(absl::StatusCode::kInternal, "oops"));
  EXPECT_THAT(Query<int>([](Transaction&, int&) -> absl::Status { throw std::runtime_error("oops"); }),
              HasCodeAndText(absl::StatusCode::kInternal, "oops"));
  EXPECT_THAT(Create("r1"), IsOk());
}

TEST_P(StoreTest, ALongRunIsRemovedInSlices) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("long", &engine), IsOk());
  for (int i = 0; i < 13; ++i) ASSERT_THAT(Append("long", 1, 1 + i * 500, 500, /*finish=*/i == 12), IsOk());
  int rounds = 0;
  for (int64_t removed = 10; removed == 10; ++rounds) {
    auto batch = Transact<int64_t>([&](Transaction& tx, int64_t& out) {
      auto count = store_->runs.RemoveEnded(tx, "SUCCEEDED", tx.NowMicros() + 1, 10);
      if (count.ok()) out = *count;
      return count.status();
    });
    ASSERT_THAT(batch, IsOk());
    removed = *batch;
    ASSERT_LT(rounds, 20);
    if (rounds > 0) continue;
    ASSERT_THAT(Sql("UPDATE runs SET status = 'FAILED'"), IsOk());
    v1::ReopenRunRequest reopen;
    reopen.set_run_id("long");
    EXPECT_THAT(Write(store_->control, &RunControl::ReopenRun, reopen),
                HasCodeAndText(absl::StatusCode::kFailedPrecondition, "being removed"));
    ASSERT_THAT(Sql("UPDATE runs SET status = 'SUCCEEDED'"), IsOk());
  }
  EXPECT_GT(rounds, 1);
  for (const char* table : {"runs", "journal", "usage"})
    EXPECT_EQ(Number(absl::StrCat("SELECT count(*) FROM ", table)), 0) << table;
}

TEST_P(StoreTest, RetentionGoesByAgeAndStatus) {
  auto engine = Register("e", "1");
  auto end = [&](const std::string& run, v1::Outcome outcome) {
    ASSERT_THAT(Create(run, &engine), IsOk());
    auto entries = Entries(run, 1, 1, 1, /*finish=*/true);
    auto& last = *entries.mutable_entries()->rbegin();
    last.mutable_run_finished()->set_outcome(outcome);
    // Its owner's clock is a year behind: it has not ended before it was created all the same.
    last.mutable_time()->set_seconds(absl::ToUnixSeconds(time_.Now()) - 365 * 86400);
    ASSERT_THAT(Append(entries), IsOk());
  };
  end("old", v1::OUTCOME_SUCCEEDED);
  end("old-failed", v1::OUTCOME_FAILED);
  ASSERT_THAT(Create("open", &engine), IsOk());
  time_.Advance(absl::Hours(2));
  auto engine_again = Register("e", "1");
  engine = engine_again;
  end("young", v1::OUTCOME_SUCCEEDED);
  auto removed = Transact<int64_t>([&](Transaction& tx, int64_t& out) {
    auto count = store_->runs.RemoveEnded(tx, "SUCCEEDED", tx.NowMicros() - int64_t{3600} * 1000000, 10);
    if (count.ok()) out = *count;
    return count.status();
  });
  ASSERT_THAT(removed, IsOk());
  EXPECT_EQ(*removed, 1);
  EXPECT_EQ(Number("SELECT count(*) FROM runs WHERE run_id = 'old'"), 0);
  EXPECT_EQ(Number("SELECT count(*) FROM runs WHERE run_id IN ('old-failed', 'open', 'young')"), 3);
  EXPECT_EQ(Number("SELECT count(*) FROM runs WHERE end_time > 0 AND end_time < create_time"), 0);
}

TEST_P(StoreTest, EnginesThatAreLongGoneAreForgotten) {
  Register("gone", "1");
  time_.Advance(absl::Hours(30));
  Register("alive", "1");
  auto removed = Transact<int64_t>([&](Transaction& tx, int64_t& out) {
    auto count = store_->leases.RemoveExpired(tx, 10);
    if (count.ok()) out = *count;
    return count.status();
  });
  ASSERT_THAT(removed, IsOk());
  EXPECT_EQ(*removed, 1);
  EXPECT_EQ(Number("SELECT count(*) FROM instances WHERE name = 'alive'"), 1);
}

// What people read with SQL.
TEST_P(StoreTest, TheViewOfStepsTellsHowEachStands) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r", &engine), IsOk());
  v1::AppendRequest request;
  request.set_run_id("r");
  request.set_lease_epoch(1);
  request.set_writer_seq(1);
  int64_t second = 0;
  auto add = [&]() -> v1::JournalEntry& {
    auto& entry = *request.add_entries();
    entry.mutable_time()->set_seconds(1700000000 + ++second);
    return entry;
  };
  for (const char* path : {"retried", "done", "failed", "waits"}) {
    add().mutable_step_started()->set_path(path);
    if (std::string(path) == "waits") continue;
    auto& failed = *add().mutable_step_failed();
    failed.set_path(path);
    failed.set_attempt(1);
    failed.mutable_error()->set_code(14);
  }
  add().mutable_step_started()->set_path("retried");
  add().mutable_step_completed()->set_path("done");
  add().mutable_step_waiting()->set_path("waits");
  ASSERT_THAT(Append(request), IsOk());
  auto count = [&](const std::string& where) { return Number("SELECT count(*) FROM steps WHERE " + where); };
  EXPECT_EQ(count("run_id = 'r'"), 4);
  EXPECT_EQ(count("step_path = 'retried' AND status = 'RUNNING' AND end_time IS NULL AND error_code = 0"), 1);
  EXPECT_EQ(count("step_path = 'waits' AND status = 'RUNNING' AND end_time IS NULL AND error_code = 0"), 1);
  EXPECT_EQ(count("step_path = 'done' AND status = 'COMPLETED' AND end_time IS NOT NULL AND error_code = 0"), 1);
  EXPECT_EQ(count("step_path = 'failed' AND status = 'FAILED' AND end_time IS NOT NULL AND error_code = 14"), 1);
  EXPECT_EQ(Number("SELECT count(*) FROM agent_executions"), 0);
  EXPECT_EQ(Number("SELECT count(*) FROM runs_report WHERE run_id = 'r' AND seconds IS NULL"), 1);
}

TEST_P(StoreTest, ARunThatCannotBeReadDoesNotKeepOthersFromBeingClaimed) {
  ASSERT_THAT(Create("a"), IsOk());
  ASSERT_THAT(Create("b"), IsOk());
  ASSERT_THAT(Sql(GetParam() == Engine::kPostgres ? "UPDATE runs SET input = '\\xff00' WHERE run_id = 'a'"
                                                  : "UPDATE runs SET input = x'ff00' WHERE run_id = 'a'"),
              IsOk());
  auto engine = Register("e", "1");
  auto claimed = Claim(engine, 1);  // the first would be `a`
  ASSERT_THAT(claimed, IsOk());
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(claimed->runs(0).run_id(), "b");
}

}  // namespace
}  // namespace tutti::state_manager::testing
