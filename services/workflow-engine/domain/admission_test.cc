// Whose call goes next.
#include "services/workflow-engine/domain/admission.h"
#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

Task<bool> Take(Admission& admission, Admission::Caller caller, std::vector<std::string>& order,
                std::vector<Admission::Permit>& permits, std::stop_token stop) {
  std::string name = absl::StrCat(caller.tenant, caller.priority);
  Admission::Patience patience{stop};
  auto permit = co_await admission.Enter(std::move(caller), patience);
  if (!permit.ok()) co_return false;
  order.push_back(name);
  permits.push_back(*std::move(permit));
  co_return true;
}

Task<void> TakeInto(Admission& admission, Admission::Caller caller, std::vector<std::string>& order,
                    std::vector<Admission::Permit>& permits, std::stop_token stop) {
  co_await Take(admission, std::move(caller), order, permits, stop);
}

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

TEST(AdmissionTest, OneTenantsFloodDoesNotStarveAnotherWhateverItsPriority) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 2});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  auto enter = [&](const char* tenant, int priority, std::stop_token stop = {}) {
    Admission::Caller caller;
    caller.tenant = tenant;
    caller.priority = priority;
    scope.Spawn(executor, TakeInto(admission, caller, order, permits, stop));
    executor.RunUntilIdle();
  };
  std::stop_source gone;
  for (int i = 0; i < 5; ++i) enter("flood", 0);
  enter("small", 0);
  enter("small", 0, gone.get_token());
  enter("flood", 9);
  EXPECT_EQ(order, (std::vector<std::string>{"flood0", "flood0"}));
  gone.request_stop();
  executor.RunUntilIdle();
  while (!permits.empty()) {
    permits.erase(permits.begin());
    executor.RunUntilIdle();
  }
  EXPECT_EQ(order, (std::vector<std::string>{"flood0", "flood0", "small0", "flood9", "flood0", "flood0", "flood0"}));
  EXPECT_EQ(admission.under_way(), 0);
  EXPECT_EQ(admission.waiting(), 0u);
}

TEST(AdmissionTest, AWorkflowOrATargetAtItsLimitDoesNotBlockOthers) {
  for (bool by_target : {false, true}) {
    ManualExecutor executor;
    ManualTime time;
    Admission::Limits limits{.total = 10};
    (by_target ? limits.per_target : limits.per_workflow) = 1;
    Admission admission(executor, time, limits);
    std::vector<std::string> order;
    std::vector<Admission::Permit> permits;
    Scope scope;
    auto enter = [&](const char* tenant, const char* what) {
      Admission::Caller caller;
      caller.tenant = tenant;
      (by_target ? caller.target : caller.workflow) = what;
      scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
      executor.RunUntilIdle();
    };
    enter("a", "busy");
    enter("b", "busy");
    enter("c", "free");
    EXPECT_EQ(order, (std::vector<std::string>{"a0", "c0"})) << by_target;
    permits.erase(permits.begin());
    executor.RunUntilIdle();
    EXPECT_EQ(order, (std::vector<std::string>{"a0", "c0", "b0"})) << by_target;
    permits.clear();
  }
}

TEST(AdmissionTest, OneTenantsFloodLeavesRoomToWaitForOthers) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1, .max_waiting = 90});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  // How many of as many get a place.
  auto flood = [&](const char* tenant, int calls) {
    const size_t before = admission.waiting();
    for (int i = 0; i < calls; ++i) {
      Admission::Caller caller;
      caller.tenant = tenant;
      scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
    }
    executor.RunUntilIdle();
    return admission.waiting() - before;
  };
  EXPECT_EQ(flood("first", 1), 0u);
  EXPECT_EQ(flood("first", 200), 80u) << "eight ninths";
  EXPECT_EQ(flood("second", 5), 5u);
  EXPECT_EQ(flood("first", 200), 0u);
  EXPECT_EQ(flood("second", 200), 4u) << "eight times what is left free";
  EXPECT_EQ(flood("third", 1), 1u);
  while (!permits.empty()) {
    permits.clear();
    executor.RunUntilIdle();
  }
  // Their turns alternate from the start: none waits behind the flood.
  EXPECT_LE(std::find(order.begin(), order.end(), "third0") - order.begin(), 3);
}

TEST(AdmissionTest, OfOnePriorityWhoCameFirstGoesFirstAcrossTargets) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1, .per_target = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  auto enter = [&](const char* target, int priority) {
    Admission::Caller caller;
    caller.target = target;
    caller.priority = priority;
    scope.Spawn(executor,
                [](Admission& at, Admission::Caller who, std::vector<std::string>& seen,
                   std::vector<Admission::Permit>& held) -> Task<void> {
                  std::string name = absl::StrCat(who.target, who.priority);
                  who.tenant = "one";
                  Admission::Patience patience;
                  auto permit = co_await at.Enter(std::move(who), patience);
                  EXPECT_TRUE(permit.ok());
                  seen.push_back(std::move(name));
                  held.push_back(*std::move(permit));
                }(admission, caller, order, permits));
    executor.RunUntilIdle();
  };
  enter("z", 0);  // all there is room for
  for (const char* target : {"x", "z", "x", "y"}) enter(target, 1);
  enter("y", 2);
  std::vector<std::string> all = order;
  while (!permits.empty()) {
    permits.clear();
    order.clear();
    executor.RunUntilIdle();
    all.insert(all.end(), order.begin(), order.end());
  }
  EXPECT_EQ(all, (std::vector<std::string>{"z0", "y2", "x1", "z1", "x1", "y1"}));
}

// Whoever waits behind a limit is not looked at again with each call that comes or goes.
TEST(AdmissionTest, AFloodThatIsBlockedCostsOthersNothing) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 10, .per_target = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> busy, free;
  Scope scope;
  auto enter = [&](const char* tenant, const char* target, std::vector<Admission::Permit>& permits) {
    Admission::Caller caller;
    caller.tenant = tenant;
    caller.target = target;
    scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
    executor.RunUntilIdle();
  };
  // Looked at one by one these were 2,500,000,000 looks, minutes: more than the suite's time limit.
  for (int i = 0; i < 50000; ++i) enter("flood", "busy", busy);
  for (int i = 0; i < 50000; ++i) {
    enter("small", "free", free);
    free.clear();
    executor.RunUntilIdle();
  }
  EXPECT_EQ(order.size(), 1u + 50000u);
  EXPECT_EQ(admission.waiting(), 49999u);
  while (admission.waiting() > 0) {
    busy.clear();
    executor.RunUntilIdle();
  }
  EXPECT_EQ(order.size(), 100000u);
}

// A release looks at the tenant whose turn it is, not at all that wait.
TEST(AdmissionTest, ManyTenantsTakeTurnsAtTheCostOfFew) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  constexpr int kTenants = 5000, kRounds = 4;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kTenants; ++i) {
      Admission::Caller caller;
      caller.tenant = absl::StrCat("t", 10000 + i, "-");
      scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
    }
  }
  executor.RunUntilIdle();
  // Sorted anew with each release these were 20,000 * 5,000 names: more than the suite's time limit.
  while (!permits.empty()) {
    permits.clear();
    executor.RunUntilIdle();
  }
  ASSERT_EQ(order.size(), static_cast<size_t>(kRounds * kTenants));
  std::map<std::string, int> turns;
  for (int i = 1; i <= kTenants; ++i)
    EXPECT_EQ(++turns[order[static_cast<size_t>(i)]], 1) << "each once before any twice";
}

TEST(AdmissionTest, ManyWhoGaveUpLeaveNothingBehind) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  std::stop_source gone;
  for (int i = 0; i < 200; ++i) {
    Admission::Caller caller;
    caller.tenant = "t";
    scope.Spawn(executor,
                TakeInto(admission, caller, order, permits, i == 0 || i == 199 ? std::stop_token() : gone.get_token()));
  }
  executor.RunUntilIdle();
  gone.request_stop();
  executor.RunUntilIdle();
  permits.clear();
  executor.RunUntilIdle();
  EXPECT_EQ(order.size(), 2u);
  EXPECT_EQ(admission.waiting(), 0u);
}

TEST(AdmissionTest, WhoseTimeIsOverWhileItWaitsIsToldSo) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 1});
  auto enter = [](Admission& at, absl::Duration at_most,
                  std::optional<absl::StatusOr<Admission::Permit>>& out) -> Task<void> {
    Admission::Caller caller;
    caller.target = "slow";
    Admission::Patience patience{{}, at_most};
    out.emplace(co_await at.Enter(std::move(caller), patience));
  };
  std::optional<absl::StatusOr<Admission::Permit>> first, second, third;
  Scope scope;
  scope.Spawn(executor, enter(admission, absl::Seconds(5), first));
  scope.Spawn(executor, enter(admission, absl::Seconds(5), second));
  scope.Spawn(executor, enter(admission, absl::Seconds(50), third));
  executor.RunUntilIdle();
  ASSERT_TRUE(first && first->ok());
  time.Advance(absl::Seconds(5));
  executor.RunUntilIdle();
  ASSERT_TRUE(second.has_value());
  EXPECT_THAT(*second, HasCodeAndText(absl::StatusCode::kDeadlineExceeded, "before its turn came: slow"));
  EXPECT_FALSE(third.has_value());
  EXPECT_EQ(admission.waiting(), 1u);
  first.reset();
  executor.RunUntilIdle();
  ASSERT_TRUE(third && third->ok());
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(time.pending(), 0u) << "no timer is left behind";
}

TEST(AdmissionTest, ARunAtItsOwnLimitDoesNotBlockOthers) {
  ManualExecutor executor;
  ManualTime time;
  Admission admission(executor, time, {.total = 10, .per_run = 1, .max_waiting = 1});
  std::vector<std::string> order;
  std::vector<Admission::Permit> permits;
  Scope scope;
  auto enter = [&](const char* run, const char* tenant) {
    Admission::Caller caller;
    caller.run_id = run;
    caller.tenant = tenant;
    scope.Spawn(executor, TakeInto(admission, caller, order, permits, {}));
    executor.RunUntilIdle();
  };
  enter("r1", "a");
  enter("r1", "b");  // waits for its run
  EXPECT_EQ(order.size(), 1u);
  EXPECT_EQ(admission.waiting(), 1u);
  enter("r1", "c");  // one too many
  EXPECT_EQ(admission.waiting(), 1u);
  permits.clear();
  executor.RunUntilIdle();
  EXPECT_EQ(order, (std::vector<std::string>{"a0", "b0"}));
}

}  // namespace
}  // namespace tutti::engine::testing
