// Whose call goes next.
#include "services/workflow-engine/domain/admission.h"
#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

using Names = std::vector<std::string>;
using Permits = std::vector<Admission::Permit>;

TEST(WaitingRoomTest, CountsWhatItIsToldAndWhatItSees) {
  WaitingRoom room(90);
  room.Assign(60, {{"a", 40}, {"b", 10}, {"gone", 0}});
  EXPECT_EQ(room.Of("a"), 40u);
  EXPECT_EQ(room.Of("gone"), 0u);
  for (int i = 0; i < 12; ++i) room.Leave("not named");  // two more than there are
  EXPECT_EQ(room.all(), 50u);
  for (int i = 0; i < 20; ++i) room.Leave("b");
  EXPECT_EQ(room.all(), 40u);
  EXPECT_EQ(room.Of("b"), 0u);
  for (int i = 0; i < 40; ++i) room.Enter("a");
  EXPECT_FALSE(room.HasRoomFor("a")) << "eight ninths";
  EXPECT_TRUE(room.HasRoomFor("c"));
  room.Assign(3, {{"a", 5}});
  EXPECT_EQ(room.all(), 5u) << "no fewer than are named";
}

class AdmissionTest : public ::testing::Test {
 protected:
  void Limit(Admission::Limits limits) { admission_.emplace(executor_, time_, limits); }
  // Whose permit goes into `permits`, once its turn has come; `order_` has whose came when, by `name`.
  void Enter(Admission::Caller caller, const std::string& name, Permits& permits, std::stop_token stop = {}) {
    scope_.Spawn(executor_, Take(*admission_, std::move(caller), name, order_, permits, stop));
  }
  void Enter(const Admission::Caller& caller, const std::string& name) {
    Enter(caller, name, permits_);
    executor_.RunUntilIdle();
  }
  // All that are under way end together, until nobody waits.
  void EndAll() {
    while (!permits_.empty()) {
      permits_.clear();
      executor_.RunUntilIdle();
    }
  }

  ManualExecutor executor_;
  ManualTime time_;
  std::optional<Admission> admission_;
  Names order_;
  Permits permits_;
  Scope scope_;

 private:
  static Task<void> Take(Admission& admission, Admission::Caller caller, std::string name, Names& order,
                         Permits& permits, std::stop_token stop) {
    Admission::Patience patience{stop};
    auto permit = co_await admission.Enter(std::move(caller), patience);
    if (!permit.ok()) co_return;
    order.push_back(name);
    permits.push_back(*std::move(permit));
  }
};

TEST_F(AdmissionTest, OneTenantsFloodDoesNotStarveAnotherWhateverItsPriority) {
  Limit({.total = 2});
  std::stop_source gone;
  for (int i = 0; i < 5; ++i) Enter({.tenant = "flood"}, "flood0");
  Enter({.tenant = "small"}, "small0");
  Enter({.tenant = "small"}, "gone", permits_, gone.get_token());
  Enter({.tenant = "flood", .priority = 9}, "flood9");
  EXPECT_EQ(order_, (Names{"flood0", "flood0"}));
  gone.request_stop();
  executor_.RunUntilIdle();
  while (!permits_.empty()) {
    permits_.erase(permits_.begin());
    executor_.RunUntilIdle();
  }
  EXPECT_EQ(order_, (Names{"flood0", "flood0", "small0", "flood9", "flood0", "flood0", "flood0"}));
  EXPECT_EQ(admission_->under_way(), 0);
  EXPECT_EQ(admission_->waiting(), 0u);
}

TEST_F(AdmissionTest, AWorkflowAtItsLimitDoesNotBlockOthers) {
  Limit({.total = 10, .per_workflow = 1});
  Enter({.workflow = "busy", .tenant = "a"}, "a");
  Enter({.workflow = "busy", .tenant = "b"}, "b");
  Enter({.workflow = "free", .tenant = "c"}, "c");
  EXPECT_EQ(order_, (Names{"a", "c"}));
  EndAll();
  EXPECT_EQ(order_, (Names{"a", "c", "b"}));
}

TEST_F(AdmissionTest, ATargetAtItsLimitDoesNotBlockOthers) {
  Limit({.total = 10, .per_target = 1});
  Enter({.tenant = "a", .target = "busy"}, "a");
  Enter({.tenant = "b", .target = "busy"}, "b");
  Enter({.tenant = "c", .target = "free"}, "c");
  EXPECT_EQ(order_, (Names{"a", "c"}));
  EndAll();
  EXPECT_EQ(order_, (Names{"a", "c", "b"}));
}

TEST_F(AdmissionTest, EnginesShareTheLimitsThatHoldOverAllOfThem) {
  Limit({.total = 100, .per_tenant = 7});
  auto under_way = [&](const char* tenant) {
    const size_t before = order_.size();
    for (int i = 0; i < 10; ++i) Enter({.tenant = tenant}, tenant);
    return order_.size() - before;
  };
  admission_->Share(3, 0);
  EXPECT_EQ(under_way("first"), 3u) << "7 is 3 + 2 + 2";
  admission_->Share(3, 2);
  EXPECT_EQ(under_way("last"), 2u);
  admission_->Share(20, 19);
  EXPECT_EQ(under_way("least"), 1u) << "no engine stands still";
  admission_->Share(0, 0);
  admission_->Share(2, 2);
  EXPECT_EQ(under_way("nonsense"), 1u) << "no such place";
  // The others have gone: who waits comes at once.
  order_.clear();
  admission_->Share(1, 0);
  executor_.RunUntilIdle();
  EXPECT_EQ(std::count(order_.begin(), order_.end(), "least"), 6);
  EXPECT_EQ(std::count(order_.begin(), order_.end(), "first"), 4);
  EndAll();
}

TEST_F(AdmissionTest, ARunAtItsOwnLimitDoesNotBlockOthers) {
  Limit({.total = 10, .per_run = 1, .max_waiting = 1});
  Enter({.run_id = "r1", .tenant = "a"}, "a");
  Enter({.run_id = "r1", .tenant = "b"}, "b");  // waits for its run
  EXPECT_EQ(admission_->waiting(), 1u);
  Enter({.run_id = "r1", .tenant = "c"}, "c");  // one too many
  EXPECT_EQ(admission_->waiting(), 1u);
  EndAll();
  EXPECT_EQ(order_, (Names{"a", "b"}));
}

TEST_F(AdmissionTest, OneTenantsFloodLeavesRoomToWaitForOthers) {
  Limit({.total = 1, .max_waiting = 90});
  // How many of as many get a place.
  auto flood = [&](const char* tenant, int calls) {
    const size_t before = admission_->waiting();
    for (int i = 0; i < calls; ++i) Enter({.tenant = tenant}, tenant);
    return admission_->waiting() - before;
  };
  EXPECT_EQ(flood("first", 1), 0u);
  EXPECT_EQ(flood("first", 200), 80u) << "eight ninths";
  EXPECT_EQ(flood("second", 5), 5u);
  EXPECT_EQ(flood("first", 200), 0u);
  EXPECT_EQ(flood("second", 200), 4u) << "eight times what is left free";
  EXPECT_EQ(flood("third", 1), 1u);
  EndAll();
  // Their turns alternate from the start: none waits behind the flood.
  EXPECT_LE(std::find(order_.begin(), order_.end(), "third") - order_.begin(), 3);
}

TEST_F(AdmissionTest, OfOnePriorityWhoCameFirstGoesFirstAcrossTargets) {
  Limit({.total = 1, .per_target = 1});
  Enter({.target = "z"}, "z0");  // all there is room for
  for (const char* target : {"x", "z", "x", "y"}) Enter({.target = target, .priority = 1}, absl::StrCat(target, 1));
  Enter({.target = "y", .priority = 2}, "y2");
  EndAll();
  EXPECT_EQ(order_, (Names{"z0", "y2", "x1", "z1", "x1", "y1"}));
}

// Whoever waits behind a limit is not looked at again with each call that comes or goes.
TEST_F(AdmissionTest, AFloodThatIsBlockedCostsOthersNothing) {
  constexpr int kCalls = 50000;
  Limit({.total = 10, .per_target = 1});
  Permits free;
  // Looked at one by one these were 2,500,000,000 looks, minutes: more than the suite's time limit.
  for (int i = 0; i < kCalls; ++i) Enter({.tenant = "flood", .target = "busy"}, "flood");
  for (int i = 0; i < kCalls; ++i) {
    Enter({.tenant = "small", .target = "free"}, "small", free);
    executor_.RunUntilIdle();
    free.clear();
    executor_.RunUntilIdle();
  }
  EXPECT_EQ(order_.size(), 1u + kCalls);
  EXPECT_EQ(admission_->waiting(), kCalls - 1u);
  EndAll();
  EXPECT_EQ(order_.size(), 2u * kCalls);
}

// A release looks at the tenant whose turn it is, not at all that wait.
TEST_F(AdmissionTest, ManyTenantsTakeTurnsAtTheCostOfFew) {
  constexpr int kTenants = 5000, kRounds = 4;
  Limit({.total = 1});
  for (int i = 0; i < kRounds * kTenants; ++i) {
    const std::string tenant = absl::StrCat("t", 10000 + i % kTenants);
    Enter({.tenant = tenant}, tenant, permits_);
  }
  executor_.RunUntilIdle();
  // Sorted anew with each release these were 20,000 * 5,000 names: more than the suite's time limit.
  EndAll();
  ASSERT_EQ(order_.size(), static_cast<size_t>(kRounds * kTenants));
  const std::set<std::string> first(order_.begin() + 1, order_.begin() + 1 + kTenants);
  EXPECT_EQ(first.size(), static_cast<size_t>(kTenants)) << "each once before any twice";
}

TEST_F(AdmissionTest, ManyWhoGaveUpLeaveNothingBehind) {
  Limit({.total = 1});
  std::stop_source gone;
  for (int i = 0; i < 200; ++i) {
    const bool stays = i == 0 || i == 199;
    Enter({.tenant = "t"}, "t", permits_, stays ? std::stop_token() : gone.get_token());
  }
  executor_.RunUntilIdle();
  gone.request_stop();
  executor_.RunUntilIdle();
  EndAll();
  EXPECT_EQ(order_.size(), 2u);
  EXPECT_EQ(admission_->waiting(), 0u);
}

TEST_F(AdmissionTest, WhoseTimeIsOverWhileItWaitsIsToldSo) {
  Limit({.total = 1});
  auto enter = [](Admission& at, absl::Duration at_most,
                  std::optional<absl::StatusOr<Admission::Permit>>& out) -> Task<void> {
    Admission::Caller caller;
    caller.target = "slow";
    Admission::Patience patience{{}, at_most};
    out.emplace(co_await at.Enter(std::move(caller), patience));
  };
  std::optional<absl::StatusOr<Admission::Permit>> first, second, third;
  scope_.Spawn(executor_, enter(*admission_, absl::Seconds(5), first));
  scope_.Spawn(executor_, enter(*admission_, absl::Seconds(5), second));
  scope_.Spawn(executor_, enter(*admission_, absl::Seconds(50), third));
  executor_.RunUntilIdle();
  ASSERT_TRUE(first && first->ok());
  time_.Advance(absl::Seconds(5));
  executor_.RunUntilIdle();
  ASSERT_TRUE(second.has_value());
  EXPECT_THAT(*second, HasCodeAndText(absl::StatusCode::kDeadlineExceeded, "before its turn came: slow"));
  EXPECT_FALSE(third.has_value());
  EXPECT_EQ(admission_->waiting(), 1u);
  first.reset();
  executor_.RunUntilIdle();
  ASSERT_TRUE(third && third->ok());
  EXPECT_EQ(admission_->waiting(), 0u);
  EXPECT_EQ(time_.pending(), 0u) << "no timer is left behind";
}

}  // namespace
}  // namespace tutti::engine::testing
