// Schedules in the store, on every engine.
#include "services/state-manager/store/rows.h"
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class SchedulesTest : public StoreFixture {
 protected:
  absl::StatusOr<v1::StoredSchedule> Put(const std::string& name, int64_t version, absl::Duration in,
                                         const std::string& definition = "definition") {
    v1::PutScheduleRequest request;
    auto& schedule = *request.mutable_schedule();
    schedule.set_name(name);
    schedule.set_workflow("report");
    schedule.set_version(version);
    schedule.mutable_definition()->set_data(definition);
    if (in < absl::InfiniteDuration()) schedule.mutable_next_time()->set_seconds(absl::ToUnixSeconds(Now() + in));
    auto response = Write(store_->schedules, &Schedules::PutSchedule, request);
    if (!response.ok()) return response.status();
    return response->schedule();
  }
  absl::StatusOr<v1::StoredSchedule> Get(const std::string& name) {
    v1::GetScheduleRequest request;
    request.set_name(name);
    auto response = Read(store_->schedules, &Schedules::GetSchedule, request);
    if (!response.ok()) return response.status();
    return response->schedule();
  }
  absl::Time Now() {
    v1::ListSchedulesRequest request;
    request.set_page_size(1);
    auto response = Read(store_->schedules, &Schedules::ListSchedules, request);
    return absl::FromUnixMicros(ToMicros(response->now()));
  }
  std::vector<std::string> Claim(int limit = 10, Database* database = nullptr) {
    v1::ClaimDueSchedulesRequest request;
    request.set_limit(limit);
    request.mutable_claim_duration()->set_seconds(10);
    auto response = Write(store_->schedules, &Schedules::ClaimDueSchedules, request, database);
    EXPECT_THAT(response, IsOk());
    std::vector<std::string> out;
    for (const auto& schedule : response->schedules()) out.push_back(schedule.name());
    return out;
  }
};

TEST_P(SchedulesTest, IsStoredUnderItsVersionAndKeptOverAReopening) {
  const std::string large(100000, 'x');
  auto created = Put("nightly", 0, absl::InfiniteDuration(), large);
  ASSERT_THAT(created, IsOk());
  EXPECT_EQ(created->version(), ToMicros(created->create_time())) << "no version of an earlier one of this name";
  EXPECT_FALSE(created->has_next_time());
  EXPECT_THAT(Put("nightly", 0, absl::Hours(1)), HasCode(absl::StatusCode::kAborted)) << "the name is taken";
  EXPECT_THAT(Put("nightly", created->version() + 1, absl::Hours(1)), HasCode(absl::StatusCode::kAborted))
      << "not the version there is";
  EXPECT_THAT(Put("weekly", 1, absl::Hours(1)), HasCode(absl::StatusCode::kNotFound));
  auto changed = Put("nightly", created->version(), absl::Hours(1), "other");
  ASSERT_THAT(changed, IsOk());
  EXPECT_EQ(changed->version(), created->version() + 1);
  EXPECT_EQ(ToMicros(changed->create_time()), ToMicros(created->create_time()));
  if (Persists()) Reopen();
  auto read = Get("nightly");
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->definition().data(), "other");
  EXPECT_TRUE(read->has_next_time());
  v1::DeleteScheduleRequest remove;
  remove.set_name("nightly");
  EXPECT_THAT(Write(store_->schedules, &Schedules::DeleteSchedule, remove), IsOk());
  EXPECT_THAT(Write(store_->schedules, &Schedules::DeleteSchedule, remove), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Get("nightly"), HasCode(absl::StatusCode::kNotFound));
}

TEST_P(SchedulesTest, WhatIsDueIsClaimedByOneForAWhile) {
  ASSERT_THAT(Put("later", 0, absl::Minutes(5)), IsOk());
  ASSERT_THAT(Put("never", 0, absl::InfiniteDuration()), IsOk());
  ASSERT_THAT(Put("second", 0, -absl::Seconds(5)), IsOk());
  ASSERT_THAT(Put("first", 0, -absl::Seconds(60)), IsOk());
  EXPECT_EQ(Claim(1), std::vector<std::string>{"first"}) << "who waits longest";
  EXPECT_EQ(Claim(), std::vector<std::string>{"second"});
  EXPECT_TRUE(Claim().empty());
  time_.Advance(absl::Seconds(11));
  EXPECT_EQ(Claim().size(), 2U) << "whoever had them is gone";
  // Who has moved it on has given it back.
  ASSERT_THAT(Put("first", Get("first")->version(), -absl::Seconds(1)), IsOk());
  EXPECT_EQ(Claim(), std::vector<std::string>{"first"});
  time_.Advance(absl::Minutes(6));
  EXPECT_EQ(Claim().size(), 3U);
}

TEST_P(SchedulesTest, DeathsOfItsClaimersAreCountedAndThenItComesAlone) {
  ASSERT_THAT(Put("first", 0, -absl::Seconds(60)), IsOk());
  ASSERT_THAT(Put("second", 0, -absl::Seconds(50)), IsOk());
  auto claim = [this](const std::string& incarnation) {
    v1::ClaimDueSchedulesRequest request;
    request.set_limit(10);
    request.mutable_claim_duration()->set_seconds(10);
    request.mutable_instance()->set_incarnation(incarnation);
    auto response = Write(store_->schedules, &Schedules::ClaimDueSchedules, request);
    EXPECT_THAT(response, IsOk());
    std::vector<std::pair<std::string, int>> out;
    for (const auto& schedule : response->schedules()) out.emplace_back(schedule.name(), schedule.strikes());
    time_.Advance(absl::Seconds(11));  // nobody hears of the claimer again
    return out;
  };
  using Claims = std::vector<std::pair<std::string, int>>;
  EXPECT_EQ(claim("a"), (Claims{{"first", 0}, {"second", 0}}));
  EXPECT_EQ(claim("b"), (Claims{{"first", 1}, {"second", 1}}));
  EXPECT_EQ(claim("c"), (Claims{{"first", 2}})) << "two deaths: alone";
  EXPECT_EQ(claim("d"), (Claims{{"first", 3}})) << "its engine died while it did nothing else";
  // A write ends the claim, whether the schedule was kept or set aside.
  ASSERT_THAT(Put("first", Get("first")->version(), absl::Hours(1)), IsOk());
  EXPECT_EQ(claim("e"), (Claims{{"second", 2}})) << "not counted while it waited for its turn";
  ASSERT_THAT(Put("second", Get("second")->version(), -absl::Seconds(1)), IsOk());
  EXPECT_EQ(claim("f"), (Claims{{"second", 0}}));
  // A claimer that lives and could not write is no death.
  auto engine = Register("engine", "01ARZ3NDEKTSV4RRFFQ69G5FAV.1");
  ASSERT_THAT(Put("second", Get("second")->version(), -absl::Seconds(1)), IsOk());
  EXPECT_EQ(claim(engine.incarnation()).size(), 1U);
  engine = Register("engine", "01ARZ3NDEKTSV4RRFFQ69G5FAV.2");
  EXPECT_EQ(claim("g"), (Claims{{"second", 0}}));
}

TEST_P(SchedulesTest, AnEngineThatLeavesInGoodOrderGivesItsClaimsBack) {
  ASSERT_THAT(Put("first", 0, -absl::Seconds(60)), IsOk());
  const auto engine = Register("engine", "01ARZ3NDEKTSV4RRFFQ69G5FAV.1");
  v1::ClaimDueSchedulesRequest request;
  request.set_limit(10);
  request.mutable_claim_duration()->set_seconds(100);
  *request.mutable_instance() = engine;
  ASSERT_EQ(Write(store_->schedules, &Schedules::ClaimDueSchedules, request)->schedules_size(), 1);
  ASSERT_EQ(Write(store_->schedules, &Schedules::ClaimDueSchedules, request)->schedules_size(), 0);
  v1::ReleaseInstanceRequest release;
  *release.mutable_instance() = engine;
  ASSERT_THAT(Write(store_->leases, &Leases::ReleaseInstance, release), IsOk());
  auto again = Write(store_->schedules, &Schedules::ClaimDueSchedules, request);
  ASSERT_EQ(again->schedules_size(), 1);
  EXPECT_EQ(again->schedules(0).strikes(), 0);
}

TEST_P(SchedulesTest, SaysHowLongUntilTheNextOne) {
  auto look = [&] {
    auto out = Transact<v1::ClaimDueSchedulesResponse>([&](Transaction& tx, v1::ClaimDueSchedulesResponse& response) {
      return store_->schedules.LookAhead(tx, response).status();
    });
    EXPECT_THAT(out, IsOk());
    return *out;
  };
  EXPECT_FALSE(look().has_next_in());
  ASSERT_THAT(Put("soon", 0, absl::Seconds(100)), IsOk());
  EXPECT_NEAR(static_cast<double>(look().next_in().seconds()), 99, 2);
  time_.Advance(absl::Seconds(200));
  EXPECT_EQ(look().next_in().seconds(), 0);
  ASSERT_EQ(Claim().size(), 1U);
  EXPECT_FALSE(look().has_next_in()) << "whose claim is over is found by looking";
  time_.Advance(absl::Seconds(11));
  EXPECT_EQ(look().next_in().seconds(), 0);
}

TEST_P(SchedulesTest, IsListedInPages) {
  for (const char* name : {"c", "a", "b"}) ASSERT_THAT(Put(name, 0, absl::Hours(1)), IsOk());
  v1::ListSchedulesRequest request;
  request.set_page_size(2);
  auto page = Read(store_->schedules, &Schedules::ListSchedules, request);
  ASSERT_EQ(page->schedules_size(), 2);
  EXPECT_EQ(page->schedules(0).name(), "a");
  EXPECT_TRUE(page->has_more());
  request.set_after_name("b");
  page = Read(store_->schedules, &Schedules::ListSchedules, request);
  ASSERT_EQ(page->schedules_size(), 1);
  EXPECT_FALSE(page->has_more());
}

TEST_P(SchedulesTest, OneThatCannotBeReadKeepsNobodyFromWork) {
  ASSERT_THAT(Put("broken", 0, -absl::Seconds(60), std::string(100000, 'x')), IsOk());
  ASSERT_THAT(Put("whole", 0, -absl::Seconds(5)), IsOk());
  auto lose = Transact<int>([&](Transaction& tx, int&) { return tx.Execute("DELETE FROM payloads"); });
  ASSERT_THAT(lose, IsOk());
  EXPECT_EQ(Claim(), std::vector<std::string>{"whole"});
  EXPECT_TRUE(Claim().empty());
}

TEST_P(SchedulesTest, LargeOnesComeInTurns) {
  for (const char* name : {"a", "b", "c"})
    ASSERT_THAT(Put(name, 0, -absl::Seconds(5), std::string(1500000, *name)), IsOk());
  EXPECT_EQ(Claim().size(), 2U);
  EXPECT_EQ(Claim().size(), 1U);
  v1::ListSchedulesRequest request;
  request.set_page_size(100);
  auto page = Read(store_->schedules, &Schedules::ListSchedules, request);
  EXPECT_EQ(page->schedules_size(), 2);
  EXPECT_TRUE(page->has_more());
}

INSTANTIATE_TEST_SUITE_P(Engines, SchedulesTest, ::testing::ValuesIn(kAllEngines), EngineName);

}  // namespace
}  // namespace tutti::state_manager::testing
