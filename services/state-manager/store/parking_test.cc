// Runs that wait outside memory, and what callers do to runs, on every engine.
#include <set>

#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class ParkingTest : public StoreFixture {
 protected:
  // Gives the run back until `wake` from now (zero: for ever), having seen the inbox up to `seen`.
  absl::Status Park(const std::string& run, int64_t epoch, int64_t writer_seq,
                    absl::Duration wake = absl::ZeroDuration(), int64_t seen = 0) {
    v1::AppendRequest request = Entries(run, epoch, writer_seq);
    auto* parked = request.mutable_entries(0)->mutable_run_parked();
    parked->set_inbox_seen(seen);
    if (wake > absl::ZeroDuration()) {
      // An engine's clock may show any time: how long it is to wait is what counts.
      request.mutable_entries(0)->mutable_time()->set_seconds(1000);
      parked->mutable_wake_time()->set_seconds(1000 + absl::ToInt64Seconds(wake));
    }
    return Append(request);
  }
  absl::StatusOr<v1::SignalRunResponse> Signal(const std::string& run, const std::string& request_id = "") {
    v1::SignalRunRequest request;
    request.set_run_id(run);
    request.mutable_signal()->set_name("go");
    request.mutable_signal()->set_request_id(request_id);
    return Write(store_->control, &RunControl::SignalRun, request);
  }
  int64_t WakeDue() {
    auto woken = Transact<int64_t>([&](Transaction& tx, int64_t& runs) {
      auto out = store_->leases.WakeDue(tx, 100);
      if (out.ok()) runs = out->runs;
      return out.status();
    });
    EXPECT_THAT(woken, IsOk());
    return woken.value_or(-1);
  }
};

TEST_P(ParkingTest, AParkedRunIsNobodysUntilItIsSignalled) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  ASSERT_THAT(Park("r1", 1, 2), IsOk());
  EXPECT_TRUE(Get("r1").waiting());
  EXPECT_EQ(Claim(engine)->runs_size(), 0);
  EXPECT_THAT(Append("r1", 1, 3), HasCode(absl::StatusCode::kAborted)) << "who has given it back writes nothing more";
  auto one = Signal("r1", "s"), same = Signal("r1", "s");
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(same, IsOk());
  EXPECT_EQ(one->seq(), same->seq());
  auto claimed = Claim(engine);
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(claimed->runs(0).inbox(), one->seq());
  int64_t epoch = claimed->runs(0).lease_epoch();
  EXPECT_GT(epoch, 1);
  EXPECT_THAT(Append("r1", epoch, 1), IsOk());
}

TEST_P(ParkingTest, ASignalThatCameMeanwhileKeepsARunFromWaiting) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  auto signal = Signal("r1");
  ASSERT_THAT(signal, IsOk());
  ASSERT_THAT(Park("r1", 1, 2, absl::ZeroDuration(), /*seen=*/0), IsOk());
  EXPECT_FALSE(Get("r1").waiting());
  auto claimed = Claim(engine);
  ASSERT_EQ(claimed->runs_size(), 1);
  ASSERT_THAT(Park("r1", claimed->runs(0).lease_epoch(), 1, absl::ZeroDuration(), signal->seq()), IsOk());
  EXPECT_TRUE(Get("r1").waiting()) << "what was seen is no news";
}

TEST_P(ParkingTest, TimersWakeWhenTheirTimeHasComeAndNotBefore) {
  auto engine = Register("e", "1");
  for (const char* id : {"r1", "r2"}) ASSERT_THAT(Create(id, &engine), IsOk());
  ASSERT_THAT(Park("r1", 1, 1, absl::Seconds(3)), IsOk());
  ASSERT_THAT(Park("r2", 1, 1, absl::Hours(1)), IsOk());
  EXPECT_EQ(WakeDue(), 0);
  time_.Advance(absl::Seconds(4));
  EXPECT_EQ(WakeDue(), 1);
  auto claimed = Claim(engine);
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(claimed->runs(0).run_id(), "r1");
}

TEST_P(ParkingTest, TerminateTakesARunFromItsOwnerAndReopenGivesAFailedOneToAnybody) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  v1::TerminateRunRequest terminate;
  terminate.set_run_id("r1");
  ASSERT_THAT(Write(store_->control, &RunControl::TerminateRun, terminate), IsOk());
  ASSERT_THAT(Write(store_->control, &RunControl::TerminateRun, terminate), IsOk());
  EXPECT_EQ(Get("r1").outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_FALSE(Append("r1", 1, 2).ok());
  EXPECT_THAT(Signal("r1"), HasCode(absl::StatusCode::kFailedPrecondition));
  v1::ReopenRunRequest reopen;
  reopen.set_run_id("r1");
  EXPECT_THAT(Write(store_->control, &RunControl::ReopenRun, reopen), HasCode(absl::StatusCode::kFailedPrecondition));

  ASSERT_THAT(Create("r2", &engine), IsOk());
  v1::AppendRequest failed = Entries("r2", 1, 1);
  failed.mutable_entries(0)->mutable_run_finished()->set_outcome(v1::OUTCOME_FAILED);
  ASSERT_THAT(Append(failed), IsOk());
  reopen.set_run_id("r2");
  ASSERT_THAT(Write(store_->control, &RunControl::ReopenRun, reopen), IsOk());
  EXPECT_EQ(Get("r2").outcome(), v1::OUTCOME_UNSPECIFIED);
  EXPECT_FALSE(Append("r2", 1, 2).ok());
  EXPECT_EQ(Claim(engine)->runs_size(), 1);
}

TEST_P(ParkingTest, ClaimsAreFairBetweenTenantsAndGoByPriority) {
  auto engine = Register("e", "1");
  auto create = [&](const std::string& id, const std::string& tenant, int priority) {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    request.mutable_run()->set_tenant(tenant);
    request.mutable_run()->set_priority(priority);
    ASSERT_THAT(Write(store_->runs, &Runs::CreateRun, request), IsOk());
  };
  for (int i = 0; i < 20; ++i) create(absl::StrCat("flood", 10 + i), "flood", i == 15 ? 5 : 0);
  create("small1", "small", 0);
  auto claimed = Claim(engine, 4);
  ASSERT_EQ(claimed->runs_size(), 4);
  std::set<std::string> ids;
  for (const auto& run : claimed->runs()) ids.insert(run.run_id());
  EXPECT_EQ(ids, (std::set<std::string>{"flood10", "flood11", "flood25", "small1"}));
}

TEST_P(ParkingTest, AForkBeginsWithWhatWasDoneBeforeAStep) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  v1::AppendRequest request = Entries("r1", 1, 1, 3);
  const std::string large(5000, 'x');
  for (int i = 0; i < 3; ++i) {
    auto* completed = request.mutable_entries(i)->mutable_step_completed();
    completed->set_path(absl::StrCat("s", i));
    completed->mutable_result()->set_data(absl::StrCat("\"", large, "\""));
    completed->add_usage()->set_calls(1);
  }
  ASSERT_THAT(Append(request), IsOk());
  using Journal = std::vector<v1::JournalEntry>;
  auto entries = Query<Journal>([&](Transaction& tx, Journal& out) {
    auto before = store_->control.EntriesBefore(tx, "r1", "s2");
    if (before.ok()) out = *before;
    return before.status();
  });
  ASSERT_THAT(entries, IsOk());
  ASSERT_EQ(entries->size(), 2u);
  auto forked = Transact<v1::ForkRunResponse>([&](Transaction& tx, v1::ForkRunResponse& response) {
    v1::ForkRunRequest fork;
    fork.set_run_id("r1");
    fork.mutable_run()->set_run_id("r2");
    return store_->control.ForkRun(tx, fork, *entries, response);
  });
  ASSERT_THAT(forked, IsOk());
  auto journal = JournalOf("r2");
  ASSERT_EQ(journal.size(), 3u);
  EXPECT_EQ(journal[1].step_completed().result().data().size(), large.size() + 2);
  EXPECT_TRUE(journal[1].step_completed().usage().empty());
  EXPECT_TRUE(journal[2].has_run_forked());
  EXPECT_EQ(Number("SELECT count(*) FROM payloads"), 1) << "a fork stores no content again";
}

TUTTI_ON_ALL_ENGINES(ParkingTest);

}  // namespace
}  // namespace tutti::state_manager::testing
