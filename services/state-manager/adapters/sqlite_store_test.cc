#include "services/state-manager/adapters/sqlite_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "runtime/async/sync_wait.h"
#include "runtime/status/mapping.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/time/testing/manual_time.h"
#include "services/state-manager/domain/watch_hub.h"

namespace tutti::state_manager {
namespace {

using tutti::testing::HasCode;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() : dir_(absl::StrCat(::testing::TempDir(), "/tutti_store_", getpid(), "_", ++counter_)) { Reopen(); }
  ~StoreTest() override {
    store_.reset();
    std::filesystem::remove_all(dir_);
  }
  void Reopen() {
    store_.reset();
    auto store = SqliteStore::Open({.data_dir = dir_}, time_, hub_);
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }
  v1::InstanceRef Register(const std::string& name, const std::string& incarnation) {
    v1::RegisterInstanceRequest request;
    request.mutable_instance()->set_name(name);
    request.mutable_instance()->set_incarnation(incarnation);
    request.mutable_lease_duration()->set_seconds(5);
    EXPECT_THAT(SyncWait(store_->RegisterInstance(loop_, request)), IsOk());
    return request.instance();
  }
  absl::StatusOr<v1::CreateRunResponse> Create(const std::string& id, const v1::InstanceRef* owner = nullptr,
                                               const std::string& request_id = "") {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    request.mutable_run()->set_workflow("w");
    request.mutable_run()->set_request_id(request_id);
    request.mutable_run()->mutable_input()->set_data("{\"n\":1}");
    if (owner) *request.mutable_owner() = *owner;
    return SyncWait(store_->CreateRun(loop_, request));
  }
  absl::Status Append(const std::string& run, int64_t epoch, int64_t writer_seq, int entries = 1, bool finish = false) {
    v1::AppendRequest request;
    request.set_run_id(run);
    request.set_lease_epoch(epoch);
    request.set_writer_seq(writer_seq);
    for (int i = 0; i < entries; ++i) {
      auto* entry = request.add_entries();
      if (finish && i + 1 == entries) {
        entry->mutable_run_finished()->set_outcome(v1::OUTCOME_SUCCEEDED);
        entry->mutable_run_finished()->mutable_output()->set_data("42");
        continue;
      }
      auto* completed = entry->mutable_step_completed();
      completed->set_path(absl::StrCat("s", writer_seq + i));
      auto* usage = completed->add_usage();
      usage->set_agent("a");
      usage->set_provider("p");
      usage->set_model("m");
      usage->set_calls(1);
      usage->set_input_tokens(10);
      usage->set_output_tokens(5);
      usage->set_cost_nano_units(3);
      usage->set_currency_code("USD");
    }
    OneShot<v1::AppendResponse> done;
    store_->Append(request, [&done](v1::AppendResponse response) { done.Set(std::move(response)); });
    return FromRpcStatus(SyncWait(Wait(done)).status());
  }
  Task<v1::AppendResponse> Wait(OneShot<v1::AppendResponse>& done) {
    auto response = co_await done.Wait(loop_);
    co_return response;
  }
  v1::StoredRun Get(const std::string& id) {
    v1::GetRunRequest request;
    request.set_run_id(id);
    auto answer = SyncWait(store_->GetRun(loop_, request));
    EXPECT_THAT(answer, IsOk());
    return answer.ok() ? answer->run() : v1::StoredRun();
  }
  std::vector<v1::JournalEntry> Journal(const std::string& id) {
    auto answer = SyncWait(store_->ReadJournal(loop_, id, 0, 1000));
    EXPECT_THAT(answer, IsOk());
    return {answer->entries().begin(), answer->entries().end()};
  }
  absl::StatusOr<v1::ClaimRunsResponse> Claim(const v1::InstanceRef& instance, int max = 100) {
    v1::ClaimRunsRequest request;
    *request.mutable_instance() = instance;
    request.set_max_runs(max);
    return SyncWait(store_->ClaimRuns(loop_, request));
  }

  static inline int counter_ = 0;
  const std::string dir_;
  tutti::testing::ManualTime time_;
  EventLoop loop_{"test"};
  WatchHub hub_;
  std::unique_ptr<SqliteStore> store_;
};

TEST_F(StoreTest, WhatIsAcknowledgedIsThereAfterReopening) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 3), IsOk());
  Reopen();
  EXPECT_EQ(Journal("r1").size(), 3u);
  EXPECT_EQ(Journal("r1")[2].seq(), 3);
  EXPECT_EQ(Get("r1").usage().input_tokens(), 30);
  EXPECT_EQ(Get("r1").usage().cost_nano_units(), 9);
}

TEST_F(StoreTest, TheSameRequestIdStartsNothingTwice) {
  auto first = Create("r1", nullptr, "abc");
  auto second = Create("r2", nullptr, "abc");
  ASSERT_THAT(second, IsOk());
  EXPECT_TRUE(first->created());
  EXPECT_FALSE(second->created());
  EXPECT_EQ(second->run().run_id(), "r1");
}

TEST_F(StoreTest, RepeatedAppendIsAcceptedAndWrittenOnce) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2), IsOk());
  EXPECT_EQ(Journal("r1").size(), 2u);
  EXPECT_EQ(Get("r1").usage().calls(), 2);
  EXPECT_THAT(Append("r1", 1, 5), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "writer_seq 5 after 2"));
}

TEST_F(StoreTest, RefusesAppendFromAnOlderEpoch) {
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
  EXPECT_EQ(Journal("r1").size(), 2u);
}

TEST_F(StoreTest, ALivingOwnersRunsAreNotClaimed) {
  auto engine = Register("e1", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  auto other = Register("e2", "1");
  time_.Advance(absl::Seconds(4));
  v1::HeartbeatRequest beat;
  *beat.mutable_instance() = engine;
  ASSERT_THAT(SyncWait(store_->Heartbeat(loop_, beat)), IsOk());
  *beat.mutable_instance() = other;
  ASSERT_THAT(SyncWait(store_->Heartbeat(loop_, beat)), IsOk());
  time_.Advance(absl::Seconds(4));
  EXPECT_EQ(Claim(other)->runs_size(), 0);
}

TEST_F(StoreTest, ANewIncarnationTakesOverAtOnce) {
  auto before = Register("e", "1");
  ASSERT_THAT(Create("r1", &before), IsOk());
  auto after = Register("e", "2");
  EXPECT_EQ(Claim(after)->runs_size(), 1);
  EXPECT_THAT(Claim(before), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Create("r2", &before), HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_F(StoreTest, AnEndedRunTakesNothingMore) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2, /*finish=*/true), IsOk());
  EXPECT_EQ(Get("r1").outcome(), v1::OUTCOME_SUCCEEDED);
  EXPECT_EQ(Get("r1").output().data(), "42");
  EXPECT_THAT(Append("r1", 1, 3), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Append("none", 1, 1), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(StoreTest, CancelIsJournalledOnce) {
  ASSERT_THAT(Create("r1"), IsOk());
  v1::RequestCancelRequest request;
  request.set_run_id("r1");
  request.set_reason("enough");
  ASSERT_THAT(SyncWait(store_->RequestCancel(loop_, request)), IsOk());
  ASSERT_THAT(SyncWait(store_->RequestCancel(loop_, request)), IsOk());
  ASSERT_EQ(Journal("r1").size(), 1u);
  EXPECT_EQ(Journal("r1")[0].cancel_requested().reason(), "enough");
  EXPECT_TRUE(Get("r1").cancel_requested());
}

TEST_F(StoreTest, ManyWritersAreCommittedTogetherAndKeepTheirOrder) {
  auto engine = Register("e", "1");
  constexpr int kRuns = 50, kAppends = 40;
  for (int r = 0; r < kRuns; ++r) ASSERT_THAT(Create(absl::StrCat("run", r), &engine), IsOk());
  std::atomic<int> answered{0}, failed{0};
  OneShot<v1::AppendResponse> all;
  for (int i = 1; i <= kAppends; ++i) {
    for (int r = 0; r < kRuns; ++r) {
      v1::AppendRequest request;
      request.set_run_id(absl::StrCat("run", r));
      request.set_lease_epoch(1);
      request.set_writer_seq(i);
      request.add_entries()->mutable_step_started()->set_path(absl::StrCat("s", i));
      store_->Append(request, [&](v1::AppendResponse response) {
        if (response.status().code() != 0) ++failed;
        if (++answered == kRuns * kAppends) all.Set(response);
      });
    }
  }
  SyncWait(Wait(all));
  EXPECT_EQ(failed, 0);
  for (int r = 0; r < kRuns; ++r) {
    auto journal = Journal(absl::StrCat("run", r));
    ASSERT_EQ(journal.size(), static_cast<size_t>(kAppends));
    for (int i = 0; i < kAppends; ++i)
      EXPECT_EQ(journal[static_cast<size_t>(i)].step_started().path(), absl::StrCat("s", i + 1));
  }
}

TEST_F(StoreTest, ListsByStateLabelAndPage) {
  auto engine = Register("e", "1");
  for (int i = 0; i < 5; ++i) ASSERT_THAT(Create(absl::StrCat("r", i), &engine), IsOk());
  ASSERT_THAT(Append("r3", 1, 1, 1, /*finish=*/true), IsOk());
  v1::ListRunsRequest request;
  request.set_page_size(2);
  auto page = SyncWait(store_->ListRuns(loop_, request));
  ASSERT_THAT(page, IsOk());
  EXPECT_EQ(page->runs(0).run_id(), "r4");
  EXPECT_TRUE(page->has_more());
  request.set_state("SUCCEEDED");
  page = SyncWait(store_->ListRuns(loop_, request));
  ASSERT_EQ(page->runs_size(), 1);
  EXPECT_EQ(page->runs(0).run_id(), "r3");
  EXPECT_FALSE(page->has_more());
  request.clear_state();
  (*request.mutable_labels())["team"] = "x";
  EXPECT_EQ(SyncWait(store_->ListRuns(loop_, request))->runs_size(), 0);
}

TEST_F(StoreTest, AWorkflowsVersionNeverChanges) {
  v1::PutWorkflowRequest put;
  put.mutable_workflow()->set_name("w");
  put.mutable_workflow()->mutable_spec()->set_data("one");
  EXPECT_EQ(SyncWait(store_->PutWorkflow(loop_, put))->workflow().version(), 1);
  EXPECT_EQ(SyncWait(store_->PutWorkflow(loop_, put))->workflow().version(), 1) << "equal bytes store nothing";
  put.mutable_workflow()->mutable_spec()->set_data("two");
  EXPECT_EQ(SyncWait(store_->PutWorkflow(loop_, put))->workflow().version(), 2);
  v1::GetWorkflowRequest get;
  get.set_name("w");
  get.set_version(1);
  EXPECT_EQ(SyncWait(store_->GetWorkflow(loop_, get))->workflow().spec().data(), "one");
  get.set_version(9);
  EXPECT_THAT(SyncWait(store_->GetWorkflow(loop_, get)), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(StoreTest, AFolderInUseIsRefused) {
  EXPECT_THAT(SqliteStore::Open({.data_dir = dir_}, time_, hub_),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "another state-manager works on"));
}

TEST_F(StoreTest, ADamagedDatabaseIsRefusedAndLeftAsItIs) {
  ASSERT_THAT(Create("r1"), IsOk());
  store_.reset();
  std::string file = dir_ + "/tutti.db";
  std::filesystem::remove(file + "-wal");
  for (const std::string& rubbish :
       {std::string("this is no database, but it is long enough to look like a file of one"), std::string(8192, 'x')}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << rubbish;
    EXPECT_THAT(SqliteStore::Open({.data_dir = dir_}, time_, hub_),
                HasCodeAndText(absl::StatusCode::kDataLoss, "It is left as it is"));
    std::ifstream in(file, std::ios::binary);
    std::string after((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(after, rubbish) << "never overwritten";
  }
}

TEST_F(StoreTest, ANewerDatabaseIsRefused) {
  store_.reset();
  {
    auto db = SqliteDb::Open(dir_ + "/tutti.db", false);
    ASSERT_THAT(db, IsOk());
    ASSERT_THAT((*db)->Execute("PRAGMA user_version = 999"), IsOk());
  }
  EXPECT_THAT(SqliteStore::Open({.data_dir = dir_}, time_, hub_),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "use the newer program"));
}

TEST_F(StoreTest, AnUnusableFolderIsAClearError) {
  std::string file = dir_ + "/plain";
  std::ofstream(file) << "x";
  EXPECT_THAT(SqliteStore::Open({.data_dir = file + "/below"}, time_, hub_),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "choose another with --state-manager.data-dir"));
}

TEST_F(StoreTest, AClaimBringsBackWhatAnEarlierAnswerLost) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Create("r2", &engine), IsOk());
  ASSERT_THAT(Append("r2", 1, 1), IsOk());
  // The engine works on r1 only: the answer that gave it r2 never arrived.
  v1::ClaimRunsRequest request;
  *request.mutable_instance() = engine;
  request.set_max_runs(10);
  request.add_held_run_ids("r1");
  auto claimed = SyncWait(store_->ClaimRuns(loop_, request));
  ASSERT_THAT(claimed, IsOk());
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(claimed->runs(0).run_id(), "r2");
  EXPECT_EQ(claimed->runs(0).lease_epoch(), 2);
  EXPECT_THAT(Append("r2", 1, 2), HasCode(absl::StatusCode::kAborted)) << "the old epoch is over";
}

TEST_F(StoreTest, ARepeatedCreateOfTheSameRunIsTheFirstOne) {
  auto engine = Register("e", "1");
  ASSERT_TRUE(Create("r1", &engine)->created());
  auto again = Create("r1", &engine);
  ASSERT_THAT(again, IsOk());
  EXPECT_TRUE(again->created()) << "the caller made it; only the answer was lost";
}

TEST_F(StoreTest, HeartbeatsTellOfCancelsThatNewsLost) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  v1::RequestCancelRequest cancel;
  cancel.set_run_id("r1");
  ASSERT_THAT(SyncWait(store_->RequestCancel(loop_, cancel)), IsOk());
  v1::HeartbeatRequest beat;
  *beat.mutable_instance() = engine;
  auto answer = SyncWait(store_->Heartbeat(loop_, beat));
  ASSERT_THAT(answer, IsOk());
  ASSERT_EQ(answer->cancel_run_ids_size(), 1);
  EXPECT_EQ(answer->cancel_run_ids(0), "r1");
}

// A disk of its own, which only root may make.
class SmallDiskTest : public StoreTest {
 protected:
  bool Mount(const std::string& options) {
    return system(absl::StrCat("mount -t tmpfs -o ", options, " tmpfs '", disk_, "' 2>/dev/null").c_str()) == 0;
  }
  bool Remount(const std::string& options) {
    return system(absl::StrCat("mount -o remount,", options, " '", disk_, "' 2>/dev/null").c_str()) == 0;
  }
  ~SmallDiskTest() override {
    store_.reset();
    (void)system(absl::StrCat("umount '", disk_, "' 2>/dev/null").c_str());
  }
  const std::string disk_ = dir_ + "_disk";
};

TEST_F(SmallDiskTest, AFullDiskLosesNothingAndWorksAgainWhenSpaceReturns) {
  std::filesystem::create_directories(disk_);
  if (!Mount("size=1m")) GTEST_SKIP() << "may not mount here";
  store_.reset();
  auto opened = SqliteStore::Open({.data_dir = disk_}, time_, hub_);
  ASSERT_THAT(opened, IsOk());
  store_ = *std::move(opened);
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  int64_t acknowledged = 0;
  absl::Status status;
  while (acknowledged < 1000) {
    status = Append("r1", 1, acknowledged + 1, 50);
    if (!status.ok()) break;
    acknowledged += 50;
  }
  ASSERT_THAT(status, HasCodeAndText(absl::StatusCode::kUnavailable, "is full; nothing was written"));
  EXPECT_GT(acknowledged, 0);
  EXPECT_EQ(Journal("r1").size(), static_cast<size_t>(acknowledged)) << "nothing half-written";
  ASSERT_TRUE(Remount("size=16m"));
  EXPECT_THAT(Append("r1", 1, acknowledged + 1, 50), IsOk());
  EXPECT_EQ(Journal("r1").size(), static_cast<size_t>(acknowledged) + 50);
}

TEST_F(SmallDiskTest, AReadOnlyFolderIsAClearError) {
  std::filesystem::create_directories(disk_);
  if (!Mount("size=1m,ro")) GTEST_SKIP() << "may not mount here";
  EXPECT_THAT(SqliteStore::Open({.data_dir = disk_}, time_, hub_),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "choose another with --state-manager.data-dir"));
}

}  // namespace
}  // namespace tutti::state_manager
