// Budgets and the ledger, on every engine.
#include <thread>

#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class LedgerTest : public StoreFixture {
 protected:
  absl::Status Limit(const std::string& scope, int64_t nano, int64_t window_seconds = 0, int64_t calls = -1) {
    v1::SetBudgetRequest request;
    request.mutable_budget()->set_scope(scope);
    if (nano >= 0) request.mutable_budget()->set_limit_nano_units(nano);
    if (calls >= 0) request.mutable_budget()->set_limit_calls(calls);
    if (window_seconds > 0) request.mutable_budget()->mutable_window()->set_seconds(window_seconds);
    return Write(store_->ledger, &Ledger::SetBudget, request).status();
  }
  static v1::Reservation Want(const std::string& id, const std::string& scope, int64_t nano) {
    v1::Reservation reservation;
    reservation.set_reservation_id(id);
    reservation.set_scope(scope);
    reservation.mutable_amount()->set_nano_units(nano);
    reservation.mutable_amount()->set_calls(1);
    return reservation;
  }
  absl::Status Reserve(const v1::Reservation& reservation, Database* database = nullptr) {
    v1::ReserveRequest request;
    *request.mutable_reservation() = reservation;
    return Write(store_->ledger, &Ledger::Reserve, request, database).status();
  }
  absl::Status Reserve(const std::string& id, const std::string& scope, int64_t nano, Database* database = nullptr) {
    return Reserve(Want(id, scope, nano), database);
  }
  absl::Status Settle(const std::string& id, int64_t nano, Database* database = nullptr) {
    v1::SettleRequest request;
    request.mutable_settlement()->set_reservation_id(id);
    request.mutable_settlement()->mutable_spent()->set_nano_units(nano);
    request.mutable_settlement()->mutable_spent()->set_calls(1);
    return Write(store_->ledger, &Ledger::Settle, request, database).status();
  }
  absl::Status Release(const std::string& id) {
    v1::ReleaseRequest request;
    request.set_reservation_id(id);
    return Write(store_->ledger, &Ledger::Release, request).status();
  }
  v1::Budget Budget(const std::string& scope) {
    v1::GetBudgetRequest request;
    request.set_scope(scope);
    auto answer = Read(store_->ledger, &Ledger::GetBudget, request);
    EXPECT_THAT(answer, IsOk());
    return answer.ok() ? answer->budget() : v1::Budget();
  }
};
TUTTI_ON_ALL_ENGINES(LedgerTest);

TEST_P(LedgerTest, AReservationHoldsAgainstEveryLevelAllOrNone) {
  ASSERT_THAT(Limit("tenants/acme", 1000), IsOk());
  ASSERT_THAT(Limit("tenants/acme/projects/web", 100), IsOk());
  const std::string scope = "tenants/acme/projects/web/runs/r1/agents/writer/steps/draft";
  ASSERT_THAT(Reserve("a", scope, 60), IsOk());
  auto refused = Reserve("b", scope, 60);
  EXPECT_THAT(refused, HasCodeAndText(absl::StatusCode::kResourceExhausted,
                                      "the budget of tenants/acme/projects/web allows 100"));
  EXPECT_EQ(Budget("tenants/acme").reserved().nano_units(), 60) << "the refused one is held nowhere";
  ASSERT_THAT(Settle("a", 45), IsOk());
  EXPECT_EQ(Budget("tenants/acme").spent().nano_units(), 45);
  EXPECT_EQ(Budget("tenants/acme").reserved().nano_units(), 0);
  EXPECT_THAT(Reserve("b", scope, 55), IsOk());
  EXPECT_THAT(Reserve("c", "tenants/acme/projects/other", 900), IsOk());
  EXPECT_THAT(Reserve("d", "tenants/acme", 1), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Reserve("e", "tenants/other", 1 << 30), IsOk()) << "no budget, no limit";
}

TEST_P(LedgerTest, ABudgetCountsWhatIsReservedOnceItIsSet) {
  ASSERT_THAT(Reserve("before", "tenants/acme/projects/web", 400), IsOk());
  ASSERT_THAT(Limit("tenants/acme", 100), IsOk());
  ASSERT_THAT(Reserve("after", "tenants/acme/projects/web", 60), IsOk());
  EXPECT_EQ(Budget("tenants/acme").reserved().nano_units(), 60);
  ASSERT_THAT(Settle("before", 300), IsOk());
  EXPECT_EQ(Budget("tenants/acme").reserved().nano_units(), 60) << "it gives back only what it counted";
  EXPECT_EQ(Budget("tenants/acme").spent().nano_units(), 0);
  ASSERT_THAT(Settle("after", 50), IsOk());
  EXPECT_EQ(Budget("tenants/acme").spent().nano_units(), 50);
}

TEST_P(LedgerTest, EverythingMayBeRepeated) {
  ASSERT_THAT(Limit("tenants/a", 100), IsOk());
  ASSERT_THAT(Reserve("x", "tenants/a", 80), IsOk());
  ASSERT_THAT(Reserve("x", "tenants/a", 80), IsOk());
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 80);
  ASSERT_THAT(Settle("x", 70), IsOk());
  ASSERT_THAT(Settle("x", 99), IsOk());
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 70) << "the first settlement counts";
  ASSERT_THAT(Release("x"), IsOk());
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 70);
  EXPECT_THAT(Settle("none", 1), HasCode(absl::StatusCode::kNotFound));
}

TEST_P(LedgerTest, WhatNobodySettlesComesBackAndALateSettlementStillCounts) {
  ASSERT_THAT(Limit("tenants/a", 100), IsOk());
  ASSERT_THAT(Reserve("x", "tenants/a", 80), IsOk());
  time_.Advance(absl::Hours(2));
  auto expire = [&] {
    return Transact<int64_t>([&](Transaction& tx, int64_t& out) {
      auto count = store_->ledger.Expire(tx, 100);
      if (count.ok()) out = *count;
      return count.status();
    });
  };
  EXPECT_EQ(*expire(), 1);
  EXPECT_EQ(*expire(), 0);
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 0);
  // Asked for again, it is held again if there is still room.
  ASSERT_THAT(Reserve("other", "tenants/a", 50), IsOk());
  EXPECT_THAT(Reserve("x", "tenants/a", 80), HasCode(absl::StatusCode::kResourceExhausted));
  ASSERT_THAT(Release("other"), IsOk());
  ASSERT_THAT(Reserve("x", "tenants/a", 80), IsOk());
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 80);
  time_.Advance(absl::Hours(2));
  EXPECT_EQ(*expire(), 1);
  ASSERT_THAT(Settle("x", 30), IsOk());
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 30) << "money spent is never forgotten";
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 0);
}

// What an append to another database reserves here first: a crash before the entry is committed holds it for a minute,
// and once the entry is there it is held for as long as it says, or until it is settled.
TEST_P(LedgerTest, APromiseIsHeldForAMinuteAndKeptWhenItsEntryIsThere) {
  ASSERT_THAT(Limit("tenants/a", 100), IsOk());
  auto promise = [&](const std::string& id, int64_t nano) {
    return Transact<int>([&](Transaction& tx, int&) {
             google::protobuf::RepeatedPtrField<v1::Reservation> reserve;
             *reserve.Add() = Want(id, "tenants/a", nano);
             return store_->ledger.Promise(tx, "run", reserve, {});
           })
        .status();
  };
  auto keep = [&](const std::string& id, int64_t nano) {
    return Transact<int>([&](Transaction& tx, int&) { return store_->ledger.Keep(tx, Want(id, "tenants/a", nano)); })
        .status();
  };
  auto expire = [&] {
    EXPECT_THAT(Transact<int>([&](Transaction& tx, int&) { return store_->ledger.Expire(tx, 100).status(); }), IsOk());
  };
  auto reserved = [&] { return Budget("tenants/a").reserved().nano_units(); };
  ASSERT_THAT(promise("lost", 30), IsOk());
  ASSERT_THAT(promise("kept", 30), IsOk());
  ASSERT_THAT(promise("kept", 30), IsOk()) << "the same append once more";
  EXPECT_THAT(promise("other", 50), HasCode(absl::StatusCode::kResourceExhausted));
  ASSERT_THAT(keep("kept", 30), IsOk());
  ASSERT_THAT(keep("kept", 30), IsOk());
  EXPECT_EQ(reserved(), 60);
  time_.Advance(absl::Seconds(59));
  expire();
  EXPECT_EQ(reserved(), 60);
  time_.Advance(absl::Seconds(2));
  expire();
  EXPECT_EQ(reserved(), 30) << "the one whose entry never came";
  // An entry whose message took longer than that is not forgotten, though its place has been given to another.
  ASSERT_THAT(promise("other", 60), IsOk());
  ASSERT_THAT(keep("other", 60), IsOk());
  ASSERT_THAT(keep("lost", 30), IsOk());
  EXPECT_EQ(reserved(), 120);
  EXPECT_THAT(promise("one more", 1), HasCode(absl::StatusCode::kResourceExhausted));
  // What has ended stays so when its message comes late.
  for (const char* id : {"kept", "other", "lost"}) ASSERT_THAT(Settle(id, 10), IsOk());
  ASSERT_THAT(keep("kept", 30), IsOk());
  EXPECT_EQ(reserved(), 0);
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 30);
}

TEST_P(LedgerTest, ATransactionThatBeganBeforeTheBudgetGivesBackWhatItHeld) {
  ASSERT_THAT(Limit("tenants/a", 100), IsOk());
  time_.Advance(-absl::Seconds(3));
  ASSERT_THAT(Reserve("r", "tenants/a", 40), IsOk());
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 40);
  ASSERT_THAT(Settle("r", 30), IsOk());
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 0);
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 30);
}

TEST_P(LedgerTest, MoneyOfAnotherCurrencyIsNotCounted) {
  ASSERT_THAT(Limit("tenants/a", -1, 0, 10), IsOk());  // calls only; in USD, were it limited
  v1::Reservation euros = Want("r", "tenants/a", 40);
  euros.set_currency_code("EUR");
  ASSERT_THAT(Reserve(euros), IsOk());
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 0);
  EXPECT_EQ(Budget("tenants/a").reserved().calls(), 1);
  ASSERT_THAT(Settle("r", 30), IsOk());
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 0);
  EXPECT_EQ(Budget("tenants/a").spent().calls(), 1);
  EXPECT_EQ(Budget("tenants/a").reserved().calls(), 0);
}

TEST_P(LedgerTest, AWindowBeginsAnewAndKeepsWhatIsHeld) {
  ASSERT_THAT(Limit("tenants/a", 100, /*window_seconds=*/3600), IsOk());
  ASSERT_THAT(Reserve("x", "tenants/a", 90), IsOk());
  ASSERT_THAT(Settle("x", 90), IsOk());
  ASSERT_THAT(Reserve("y", "tenants/a", 10), IsOk());
  EXPECT_THAT(Reserve("z", "tenants/a", 1), HasCode(absl::StatusCode::kResourceExhausted));
  time_.Advance(absl::Hours(1));
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 0);
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 10);
  EXPECT_THAT(Reserve("z", "tenants/a", 91), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Reserve("z", "tenants/a", 90), IsOk());
}

TEST_P(LedgerTest, CommittedWithTheJournalEntryOrNotAtAll) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Limit("tenants/a", 100), IsOk());
  auto request = Entries("r1", 1, 1);
  *request.add_reserve() = Want("r1/s1/1", "tenants/a/runs/r1", 80);
  ASSERT_THAT(Append(request), IsOk());
  ASSERT_THAT(Append(request), IsOk()) << "a repeated append reserves once";
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 80);
  auto second = Entries("r1", 1, 2);
  *second.add_reserve() = Want("r1/s2/1", "tenants/a/runs/r1", 10);
  *second.add_reserve() = Want("r1/s3/1", "tenants/a/runs/r1", 20);
  EXPECT_THAT(Append(second), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(JournalOf("r1").size(), 1u) << "no entry without its reservation";
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 80) << "and no reservation without its entry";
  auto settled = Entries("r1", 1, 2);
  auto* settlement = settled.add_settle();
  settlement->set_reservation_id("r1/s1/1");
  settlement->mutable_spent()->set_nano_units(50);
  ASSERT_THAT(Append(settled), IsOk());
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), 50);
  // An old epoch reserves nothing.
  auto fenced = Entries("r1", 0, 3);
  *fenced.add_reserve() = Want("r1/s4/1", "tenants/a/runs/r1", 1);
  EXPECT_THAT(Append(fenced), HasCode(absl::StatusCode::kAborted));
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 0);
}

// The property: any number of callers over several replicas never pass a cap, and after all have settled the sums agree
// to the nano-unit.
TEST_P(LedgerTest, NoCapIsEverPassedAndTheSumsAgree) {
  constexpr int kThreads = 8, kEach = 40;
  ASSERT_THAT(Limit("tenants/a", 20000), IsOk());
  ASSERT_THAT(Limit("tenants/a/projects/p", 12000), IsOk());
  ASSERT_THAT(Limit("tenants/a/projects/p/runs/0", 2000), IsOk());
  std::vector<std::unique_ptr<WatchHub>> hubs;
  std::vector<std::unique_ptr<Database>> replicas;
  if (GetParam() == Engine::kPostgres) {
    for (int i = 0; i < 2; ++i) {
      hubs.push_back(std::make_unique<WatchHub>());
      replicas.push_back(OpenDatabase(*hubs.back()));
    }
  }
  std::atomic<int64_t> spent{0}, spent_in_p{0}, passed{0};
  std::atomic<int> granted{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Database* database =
          replicas.empty() ? database_.get() : replicas[static_cast<size_t>(t) % replicas.size()].get();
      Xoshiro rng(static_cast<uint64_t>(1000 + t));
      for (int i = 0; i < kEach; ++i) {
        bool in_p = rng.Next() % 3 != 0;
        std::string scope = in_p ? absl::StrCat("tenants/a/projects/p/runs/", rng.Next() % 3) : "tenants/a/projects/q";
        std::string id = absl::StrCat(t, "/", i);
        auto amount = static_cast<int64_t>(rng.Next() % 300);
        absl::Status status = Reserve(id, scope, amount, database);
        if (absl::IsResourceExhausted(status)) {
          ++refused;
          continue;
        }
        EXPECT_THAT(status, IsOk());
        ++granted;
        auto budget = Budget("tenants/a");
        if (budget.spent().nano_units() + budget.reserved().nano_units() > 20000) ++passed;
        budget = Budget("tenants/a/projects/p");
        if (budget.spent().nano_units() + budget.reserved().nano_units() > 12000) ++passed;
        int64_t actual = amount - static_cast<int64_t>(rng.Next() % 100) * amount / 200;
        if (rng.Next() % 10 == 0) {
          EXPECT_THAT(Release(id), IsOk());
          continue;
        }
        EXPECT_THAT(Settle(id, actual, database), IsOk());
        spent += actual;
        if (in_p) spent_in_p += actual;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(passed, 0);
  EXPECT_GT(granted, 0);
  EXPECT_GT(refused, 0) << "the caps were not reached: the test shows nothing";
  EXPECT_EQ(Budget("tenants/a").spent().nano_units(), spent);
  EXPECT_EQ(Budget("tenants/a").reserved().nano_units(), 0);
  EXPECT_EQ(Budget("tenants/a/projects/p").spent().nano_units(), spent_in_p);
  v1::ReportSpendingRequest report;
  auto rows = Read(store_->ledger, &Ledger::ReportSpending, report);
  EXPECT_EQ(rows->rows(0).spent().nano_units(), spent);
}

TEST_P(LedgerTest, ReportsByLevelTimeAndLabel) {
  auto spend = [&](const std::string& id, const std::string& scope, int64_t nano, const std::string& team) {
    auto want = Want(id, scope, nano);
    (*want.mutable_labels())["team"] = team;
    ASSERT_THAT(Reserve(want), IsOk());
    ASSERT_THAT(Settle(id, nano), IsOk());
  };
  spend("1", "tenants/a/projects/p", 10, "x");
  spend("2", "tenants/a/projects/q", 20, "y");
  spend("3", "tenants/ab", 5, "x");
  time_.Advance(absl::Hours(1));
  spend("4", "tenants/a/projects/p/runs/r", 30, "y");
  auto report = [&](const std::string& scope, int level, const std::string& label, int64_t from = 0,
                    int64_t until = 0) {
    v1::ReportSpendingRequest request;
    request.set_scope(scope);
    request.set_level(level);
    request.set_label(label);
    request.mutable_start_time()->set_seconds(from);
    if (until > 0) request.mutable_end_time()->set_seconds(until);
    std::string out;
    auto answer = Read(store_->ledger, &Ledger::ReportSpending, request);
    for (const auto& row : answer->rows()) {
      absl::StrAppend(&out, row.key(), "=", row.spent().nano_units(), " ");
    }
    return out;
  };
  EXPECT_EQ(report("", 1, ""), "tenants/a=60 tenants/ab=5 ");
  EXPECT_EQ(report("tenants/a", 2, ""), "tenants/a/projects/p=40 tenants/a/projects/q=20 ");
  EXPECT_EQ(report("", 0, "team"), "y=50 x=15 ");
  const int64_t later = Number("SELECT max(end_time) FROM reservations") / 1000000 - 1800;
  EXPECT_EQ(report("", 1, "", later), "tenants/a=30 ");
  EXPECT_EQ(report("", 1, "", 0, later), "tenants/a=30 tenants/ab=5 ");

  v1::ReportSpendingRequest request;
  request.set_level(2);
  request.set_page_size(2);
  std::string pages;
  do {
    auto page = Read(store_->ledger, &Ledger::ReportSpending, request);
    ASSERT_THAT(page, IsOk());
    for (const auto& row : page->rows()) absl::StrAppend(&pages, row.key(), "=", row.spent().nano_units(), " ");
    absl::StrAppend(&pages, "| ");
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(pages, "tenants/a/projects/p=40 tenants/a/projects/q=20 | tenants/ab=5 | ");
}

TEST_P(LedgerTest, BadBudgetsAreRefused) {
  EXPECT_THAT(Limit("tenants", 1), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Limit("tenants//x/y", 1), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Limit("tenants/a", 1, 366 * 86400 + 1), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Reserve("x", "tenants/a", -1), HasCodeAndText(absl::StatusCode::kInvalidArgument, "nano_units"));
  ASSERT_THAT(Limit("tenants/a", 100), IsOk());
  auto euro = Want("x", "tenants/a", 1);
  euro.set_currency_code("EUR");
  EXPECT_THAT(Reserve(euro), HasCodeAndText(absl::StatusCode::kInvalidArgument, "is in USD"));
}

}  // namespace
}  // namespace tutti::state_manager::testing
