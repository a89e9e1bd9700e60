// Runs that wait outside memory, and what callers do to runs, on every engine.
#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "services/state-manager/domain/attempts.h"
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

TEST_P(ParkingTest, AListByStateHasWhatIsInThatState) {
  auto engine = Register("e", "1");
  for (const char* id : {"waits", "runs", "held", "new"}) ASSERT_THAT(Create(id, &engine), IsOk());
  for (const char* id : {"waits", "runs", "held"}) {
    v1::AppendRequest started = Entries(id, 1, 1);
    started.mutable_entries(0)->mutable_run_started()->set_instance("e");
    ASSERT_THAT(Append(started), IsOk());
  }
  ASSERT_THAT(Park("waits", 1, 2), IsOk());
  v1::SetRunPausedRequest pause;
  pause.set_run_id("held");
  pause.set_paused(true);
  ASSERT_THAT(Write(store_->control, &RunControl::SetRunPaused, pause), IsOk());
  for (auto [state, run] :
       {std::pair("PENDING", "new"), {"RUNNING", "runs"}, {"WAITING", "waits"}, {"PAUSED", "held"}}) {
    v1::ListRunsRequest list;
    list.set_state(state);
    auto listed = Read(store_->runs, &Runs::ListRuns, list);
    ASSERT_THAT(listed, IsOk());
    ASSERT_EQ(listed->runs_size(), 1) << state;
    EXPECT_EQ(listed->runs(0).run_id(), run) << state;
  }
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

// The end and the message of it are one transaction, so that no engine's death comes between.
TEST_P(ParkingTest, AChildsEndIsKeptForItsParentAndToldOnce) {
  auto engine = Register("e", "1");
  for (const char* parent : {"p", "gone"}) ASSERT_THAT(Create(parent, &engine), IsOk());
  auto start = [&](const char* id, const char* parent) {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    request.mutable_run()->set_parent_run_id(parent);
    *request.mutable_owner() = engine;
    std::promise<absl::Status> done;
    store_->journal.Create(*database_, request, [&](auto created) { done.set_value(created.status()); });
    return done.get_future().get();
  };
  for (const char* id : {"ends", "terminated", "fails"}) ASSERT_THAT(start(id, "p"), IsOk());
  ASSERT_THAT(start("late", "gone"), IsOk());
  ASSERT_THAT(Append("gone", 1, 1, 1, /*finish=*/true), IsOk());
  auto pending = [&] {
    return Query<std::vector<Outbox::Message>>([&](Transaction& tx, std::vector<Outbox::Message>& out) {
             auto messages = store_->outbox.Pending(tx, 0, "", 100);
             if (messages.ok()) out = *messages;
             return messages.status();
           })
        .value_or(std::vector<Outbox::Message>());
  };
  EXPECT_TRUE(pending().empty()) << "who has no parent tells nobody";
  ASSERT_THAT(Park("p", 1, 1), IsOk());
  ASSERT_THAT(Append("ends", 1, 1), IsOk());  // from here on the store need not read its row
  ASSERT_THAT(Append("ends", 1, 2, 1, /*finish=*/true), IsOk());
  ASSERT_THAT(Append("ends", 1, 2, 1, /*finish=*/true), IsOk()) << "its answer was lost";
  v1::TerminateRunRequest terminate;
  terminate.set_run_id("terminated");
  ASSERT_THAT(Write(store_->control, &RunControl::TerminateRun, terminate), IsOk());
  ASSERT_THAT(Append("late", 1, 1, 1, /*finish=*/true), IsOk());
  v1::AppendRequest failed = Entries("fails", 1, 1);
  failed.mutable_entries(0)->mutable_run_finished()->set_outcome(v1::OUTCOME_FAILED);
  ASSERT_THAT(Append(failed), IsOk());
  if (GetParam() != Engine::kPostgres) {  // whose clock is not the test's, which made the messages' ids
    EXPECT_TRUE(pending().empty()) << "who ended them has a moment to tell it";
  }
  time_.Advance(Outbox::kGrace + absl::Milliseconds(1));
  EXPECT_EQ(pending().size(), 4u);
  EXPECT_TRUE(Get("p").waiting());
  if (Persists()) Reopen();
  auto deliver = [&] {
    for (const Outbox::Message& message : pending()) {
      EXPECT_EQ(Deliveries::LaneKey(message), absl::StrContains(message.body, "late") ? "gone" : "p");
      auto refused =
          Transact<std::vector<Deliveries::Refusal>>([&](Transaction& tx, std::vector<Deliveries::Refusal>& out) {
            return store_->deliveries.Deliver(tx, {message}, out);
          });
      ASSERT_THAT(refused, IsOk());
      EXPECT_TRUE(refused->empty()) << refused->front().why;
    }
  };
  deliver();
  deliver();  // whoever delivered died before it could say so
  auto told = [&] {
    std::vector<std::string> names;
    for (const auto& entry : JournalOf("p")) {
      if (entry.has_signal_received()) names.push_back(entry.signal_received().name());
    }
    std::sort(names.begin(), names.end());
    return names;
  };
  EXPECT_EQ(told(), (std::vector<std::string>{"child/ends", "child/fails", "child/terminated"}));
  EXPECT_FALSE(Get("p").waiting());
  auto messages = pending();
  auto removed = Transact<int>([&](Transaction& tx, int&) { return store_->outbox.Remove(tx, messages); });
  ASSERT_THAT(removed, IsOk());
  EXPECT_TRUE(pending().empty());
}

TEST_P(ParkingTest, AMessageThatIsRefusedIsTriedLaterAndThenSetAside) {
  // No such reservation: the ledger refuses it for as long as there is none.
  v1::Settlement settlement;
  settlement.set_reservation_id("none");
  auto posted = Transact<int>([&](Transaction& tx, int&) {
    return store_->outbox.Post(tx, 0, Outbox::Kind::kSettle, settlement.SerializeAsString());
  });
  ASSERT_THAT(posted, IsOk());
  auto pending = [&] {
    auto messages = Query<std::vector<Outbox::Message>>([&](Transaction& tx, std::vector<Outbox::Message>& out) {
      auto found = store_->outbox.Pending(tx, 0, "", 10);
      if (found.ok()) out = *found;
      return found.status();
    });
    EXPECT_THAT(messages, IsOk());
    return *messages;
  };
  auto list = [&] {
    v1::ListSetAsideMessagesRequest request;
    request.set_page_size(10);
    auto listed = Read(store_->outbox, &Outbox::ListSetAside, request);
    EXPECT_THAT(listed, IsOk());
    return *listed;
  };
  std::string id;
  for (int attempt = 1; attempt <= kMostAttempts; ++attempt) {
    EXPECT_EQ(list().messages_size(), 0) << "attempt " << attempt;
    auto messages = pending();
    ASSERT_EQ(messages.size(), 1U) << "attempt " << attempt;
    id = messages[0].id;
    auto refused = Transact<std::vector<Deliveries::Refusal>>(
        [&](Transaction& tx, auto& out) { return store_->deliveries.Deliver(tx, messages, out); });
    ASSERT_THAT(refused, IsOk());
    ASSERT_EQ(refused->size(), 1U);
    auto note = [&] {
      auto noted = Transact<bool>([&](Transaction& tx, bool& out) {
        auto set_aside = store_->outbox.NoteRefusal(tx, id, refused->front().why);
        if (set_aside.ok()) out = *set_aside;
        return set_aside.status();
      });
      EXPECT_THAT(noted, IsOk());
      return noted.ok() && *noted;
    };
    EXPECT_EQ(note(), attempt == kMostAttempts);
    EXPECT_FALSE(note()) << "another replica tried it at the same time";
    EXPECT_TRUE(pending().empty()) << "not at once";
    time_.Advance(absl::Minutes(6));
  }
  auto listed = list();
  ASSERT_EQ(listed.messages_size(), 1);
  EXPECT_EQ(listed.messages(0).message_id(), id);
  EXPECT_EQ(listed.messages(0).attempts(), kMostAttempts);
  EXPECT_FALSE(listed.messages(0).error().empty());
  EXPECT_TRUE(pending().empty()) << "nobody tries it any more";
  auto retry = [&](const std::string& which) {
    return *Transact<bool>([&](Transaction& tx, bool& out) {
      auto again = store_->outbox.Retry(tx, which);
      if (again.ok()) out = *again;
      return again.status();
    });
  };
  EXPECT_FALSE(retry("other"));
  EXPECT_TRUE(retry(id));
  EXPECT_EQ(list().messages_size(), 0);
  EXPECT_EQ(pending().size(), 1U);
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
  using Counts = std::map<std::string, int64_t>;
  auto count = [&](int64_t most) {
    return Query<Counts>([&](Transaction& tx, Counts& out) {
      auto counts = Leases::CountFree(tx, most);
      if (counts.ok()) out = *counts;
      return counts.status();
    });
  };
  EXPECT_EQ(*count(100), (Counts{{"flood", 20}, {"small", 1}}));
  EXPECT_EQ(count(5)->begin()->second, 5) << "no more than asked for";
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

TEST_P(ParkingTest, WhatWasUndoneIsNeitherKeptByARetryNorInheritedByAFork) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  v1::AppendRequest request = Entries("r1", 1, 1, 9);
  int i = 0;
  for (const char* path : {"s0", "s1-x", "s1/a", "s2", "s2/compensate/c", "s1/compensate/c", "on-error-0/h",
                           "on-error-0/h/compensate/c"}) {
    auto* completed = request.mutable_entries(i++)->mutable_step_completed();
    completed->set_path(path);
    completed->mutable_result()->set_data("1");
  }
  request.mutable_entries(i)->mutable_run_finished()->set_outcome(v1::OUTCOME_FAILED);
  ASSERT_THAT(Append(request), IsOk());
  v1::ReopenRunRequest reopen;
  reopen.set_run_id("r1");
  EXPECT_THAT(Write(store_->control, &RunControl::ReopenRun, reopen),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "fork it from step s1"));
  using Journal = std::vector<v1::JournalEntry>;
  auto before = [&](const std::string& step) {
    return Query<Journal>([&](Transaction& tx, Journal& out) {
      auto entries = store_->control.EntriesBefore(tx, "r1", step);
      if (entries.ok()) out = *entries;
      return entries.status();
    });
  };
  EXPECT_THAT(before("s2"), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "fork from s1"));
  auto kept = before("s1");
  ASSERT_THAT(kept, IsOk());
  ASSERT_EQ(kept->size(), 2u);
  EXPECT_EQ(kept->back().step_completed().path(), "s1-x");
}

TUTTI_ON_ALL_ENGINES(ParkingTest);

}  // namespace
}  // namespace tutti::state_manager::testing
