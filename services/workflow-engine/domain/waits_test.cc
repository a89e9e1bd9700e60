// What waits: for a time, for a signal, for another run; in memory and out of it.
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

TEST_F(InterpreterTest, SleepNeverEndsEarlyAndGoesOnWhereItWasAfterACrash) {
  auto spec = Spec("steps:\n- {id: nap, sleep: {duration: 3600s}}\n- {id: after, agent: {agent: a}}\n");
  absl::Time start = world_.time.Now();
  may_hang_ = true;
  // Half of it under one engine.
  on_idle_ = [this] { world_.time.Advance(absl::Minutes(30)); };
  (void)Walk(spec);
  halt_ = std::stop_source();
  JournalEntry waiting;
  waiting.mutable_step_waiting()->set_path("nap");
  ToProto(start + absl::Hours(1), waiting.mutable_step_waiting()->mutable_wake_time());
  world_.Write(waiting);
  hung_ = false;
  auto out = Walk(spec, Json::object(), absl::Minutes(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(world_.time.Now() - start, absl::Hours(1)) << "the second engine must not begin anew";
}

TEST_F(InterpreterTest, ASignalIsTakenOnceAlsoWhenItCameBefore) {
  auto spec = Spec(
      "steps:\n- {id: first, wait_for_signal: {signal: go}}\n- {id: second, wait_for_signal: {signal: go}}\n"
      "- {id: out, transform: {value: {a: '${ .first }', b: '${ .second }'}}}\n");
  SendSignal("other", 0);
  SendSignal("go", 1);
  on_idle_ = [this] { SendSignal("go", 2); };
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, (Json{{"a", 1}, {"b", 2}}));
  // A replay takes the same.
  auto again = Walk(spec);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, *out);
}

TEST_F(InterpreterTest, AWaitEndsWithItsDefaultOrFails) {
  auto spec =
      Spec("steps:\n- {id: wait, wait_for_signal: {signal: go, timeout: 2592000s, default: {approved: false}}}\n");
  auto out = Walk(spec, Json::object(), absl::Hours(24));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, (Json{{"approved", false}}));
  world_.journal.clear();
  EXPECT_THAT(Walk(Spec("steps:\n- {id: wait, wait_for_signal: {signal: go, timeout: 10s}}\n"), Json::object(),
                   absl::Seconds(1)),
              HasCodeAndText(absl::StatusCode::kDeadlineExceeded, "no signal \"go\""));
}

TEST_F(InterpreterTest, ARunThatOnlyWaitsIsParkedAndGoesOnWhenItIsTakenUp) {
  park_after_ = absl::Seconds(10);
  auto spec = Spec(
      "steps:\n- {id: a1, agent: {agent: a}}\n- {id: wait, wait_for_signal: {signal: go}}\n- {id: a2, agent: {agent: "
      "a, input: '${ .wait }'}}\n");
  auto out = Walk(spec);
  EXPECT_TRUE(EndsWalk(out.status())) << out.status();
  EXPECT_TRUE(world_.journal.back().has_run_parked());
  EXPECT_FALSE(world_.journal.back().run_parked().has_wake_time());
  SendSignal("go", "now");
  out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("now"));
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/a1/1", "run1/a2/1"}));
}

TEST_F(InterpreterTest, ParkingSaysWhenToGoOnAndWaitsForWhatRunsBeside) {
  park_after_ = absl::Seconds(10);
  auto spec = Spec(R"(
steps:
- {id: work, agent: {agent: a}, depends_on: []}
- {id: nap, sleep: {duration: 3600s}}
- {id: wait, wait_for_signal: {signal: go, timeout: 7200s}}
- {id: end, transform: {value: 1}, depends_on: [work, nap, wait]}
)");
  world_.hold = true;
  bool parked_early = false;
  on_held_ = [&] {
    parked_early = !world_.journal.empty() && world_.journal.back().has_run_parked();
    LetGo(0);
  };
  absl::Time start = world_.time.Now();
  auto out = Walk(spec);
  EXPECT_TRUE(EndsWalk(out.status())) << out.status();
  EXPECT_FALSE(parked_early);
  EXPECT_EQ(world_.journal.back().run_parked().wake_time().seconds(), absl::ToUnixSeconds(start + absl::Hours(1)));
}

TEST_F(InterpreterTest, ASleepOfYearsIsParkedAndEndsOnItsDay) {
  park_after_ = absl::Seconds(10);
  const absl::Duration years = absl::Hours(24 * 365 * 7);
  auto spec = Spec(absl::StrCat("steps:\n- {id: nap, sleep: {duration: ", absl::ToInt64Seconds(years),
                                "s}}\n- {id: after, agent: {agent: a}}\n"));
  const absl::Time wakes = world_.time.Now() + years;
  EXPECT_TRUE(EndsWalk(Walk(spec).status()));
  EXPECT_EQ(world_.journal.back().run_parked().wake_time().seconds(), absl::ToUnixSeconds(wakes));
  world_.time.Advance(years - absl::Minutes(1));  // taken up too early, by a clock that is ahead
  EXPECT_TRUE(EndsWalk(Walk(spec).status()));
  EXPECT_EQ(world_.journal.back().run_parked().wake_time().seconds(), absl::ToUnixSeconds(wakes));
  EXPECT_TRUE(world_.calls.empty());
  world_.time.Advance(absl::Minutes(1));
  ASSERT_THAT(Walk(spec), IsOk());
  EXPECT_EQ(world_.calls, (std::vector<std::string>{"run1/after/1"}));
}

TEST_F(InterpreterTest, ShortWaitsStayInMemory) {
  park_after_ = absl::Seconds(10);
  auto out = Walk(Spec("steps:\n- {id: nap, sleep: {duration: 5s}}\n"), Json::object(), absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  for (const auto& entry : world_.journal) EXPECT_FALSE(entry.has_run_parked());
}

TEST_F(InterpreterTest, APausedRunEndsWhatIsUnderWayAndBeginsNothing) {
  auto spec = Spec("steps:\n- {id: one, agent: {agent: a}}\n- {id: two, agent: {agent: a}}\n");
  world_.hold = true;
  JournalEntry pause, resume;
  pause.mutable_pause_requested();
  resume.mutable_resume_requested();
  size_t calls_while_paused = 0;
  on_held_ = [&] {
    if (world_.calls.size() == 1) Deliver(pause);
    LetGo(0);
  };
  on_idle_ = [&] {
    calls_while_paused = world_.calls.size();
    Deliver(resume);
  };
  ASSERT_THAT(Walk(spec), IsOk());
  EXPECT_EQ(calls_while_paused, 1u);
  EXPECT_EQ(CompletedPaths(), (std::vector<std::string>{"one", "two"}));
}

TEST_F(InterpreterTest, ASubWorkflowIsStartedOnceAndItsEndIsTheSteps) {
  auto spec = Spec(
      "steps:\n- {id: child, sub_workflow: {workflow: other, input: {n: '${ .input.n }'}, output: .output.sum}}\n");
  on_idle_ = [this] {
    world_.children_ended.emplace("child-run1/child/1", Json{{"sum", 5}});
    SendSignal("child/child-run1/child/1", nullptr);
  };
  auto out = Walk(spec, {{"n", 2}});
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json(5));
  EXPECT_EQ(world_.children_started, (std::vector<std::string>{"other {\"n\":2}"}));
}

TEST_F(InterpreterTest, AnEndThatIsToldWhileTheChildIsLookedAtIsNotMissed) {
  world_.on_look = [this](const std::string& run_id) {
    if (world_.children_ended.emplace(run_id, Json("done")).second) SendSignal(ChildEndedSignal(run_id), nullptr);
  };
  auto out = Walk(Spec("steps:\n- {id: child, sub_workflow: {workflow: other}}\n"));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("done"));
  EXPECT_EQ(world_.looks["child-run1/child/1"], 2);
}

TEST_F(InterpreterTest, AChildsEndWakesWhoWaitsForItAndNobodyElse) {
  auto spec = Spec(R"(
steps:
- id: each
  for_each: {items: '[range(20)]', max_concurrency: 20, steps: [{id: child, sub_workflow: {workflow: other}}]}
)");
  std::vector<std::string> children;
  std::function<void()> end_one = [&] {
    if (children.empty()) {
      for (const auto& [run_id, looks] : world_.looks) children.push_back(run_id);
      EXPECT_EQ(children.size(), 20u);
    }
    std::string ends = children.back();
    children.pop_back();
    if (!children.empty()) on_idle_ = end_one;
    world_.children_ended.emplace(ends, Json("done"));
    SendSignal(ChildEndedSignal(ends), nullptr);
  };
  on_idle_ = end_one;
  ASSERT_THAT(Walk(spec), IsOk());
  for (const auto& [run_id, looks] : world_.looks) EXPECT_EQ(looks, 2) << run_id;
}

TEST_F(InterpreterTest, ACancelledParentCancelsItsChildAHaltedOneDoesNot) {
  auto spec = Spec("steps:\n- {id: child, sub_workflow: {workflow: other}}\n");
  may_hang_ = true;
  on_idle_ = [this] { halt_.request_stop(); };
  EXPECT_TRUE(EndsWalk(Walk(spec).status()));
  EXPECT_TRUE(world_.children_cancelled.empty());
  halt_ = std::stop_source();
  on_idle_ = [this] { stop_.request_stop(); };
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kCancelled));
  EXPECT_EQ(world_.children_cancelled, (std::vector<std::string>{"child-run1/child/1"}));
}

TEST_F(InterpreterTest, AParentThatWakesUpToBeCancelledCancelsItsChild) {
  auto spec = Spec(R"(
steps:
- id: each
  for_each: {items: '[1]', steps: [{id: child, sub_workflow: {workflow: other}}]}
)");
  JournalEntry each, child;
  each.mutable_step_started()->set_path("each");
  each.mutable_step_started()->set_kind("for_each");
  each.mutable_step_started()->set_attempt(1);
  child.mutable_step_waiting()->set_path("each/0/child");
  child.mutable_step_waiting()->set_kind("sub_workflow");
  child.mutable_step_waiting()->set_child_run_id("the-child");
  world_.Write(each);
  world_.Write(child);
  stop_.request_stop();
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kCancelled));
  EXPECT_EQ(world_.children_cancelled, (std::vector<std::string>{"the-child"}));
}

TEST_F(InterpreterTest, AStepThatIsTooLateCancelsItsChildUnlessTheRunIsAnothers) {
  auto spec = Spec("steps:\n- {id: child, timeout: 5s, sub_workflow: {workflow: other}}\n");
  on_idle_ = [this] { world_.commits_until_crash = 0; };  // frozen meanwhile, and the lease is lost
  EXPECT_TRUE(EndsWalk(Walk(spec, Json::object(), absl::Seconds(1)).status()));
  EXPECT_TRUE(world_.children_cancelled.empty());
  world_.commits_until_crash = -1;
  EXPECT_THAT(Walk(spec, Json::object(), absl::Seconds(1)), HasCode(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(world_.children_cancelled, (std::vector<std::string>{"child-run1/child/1"}));
}

TEST_F(InterpreterTest, AChildsErrorIsTheSteps) {
  world_.children_ended.emplace("child-run1/child/1", absl::NotFoundError("nothing there"));
  EXPECT_THAT(Walk(Spec("steps:\n- {id: child, sub_workflow: {workflow: other}}\n")),
              HasCodeAndText(absl::StatusCode::kNotFound, "nothing there"));
}

TEST_F(InterpreterTest, AnotherAttemptStartsAnotherChild) {
  auto spec = Spec("steps:\n- {id: child, sub_workflow: {workflow: other}, retry: {max_attempts: 2}}\n");
  park_after_ = absl::Seconds(10);
  EXPECT_TRUE(EndsWalk(Walk(spec).status()));
  world_.children_ended.emplace("child-run1/child/1", absl::UnavailableError("away"));
  world_.children_ended.emplace("child-run1/child/2", Json("second"));
  auto out = Walk(spec, Json::object(), absl::Seconds(1));
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json("second"));
}

TEST_F(InterpreterTest, ASignalThatAFailedWaitTookIsGone) {
  auto spec = Spec(R"(
steps:
- id: ask
  wait_for_signal: {signal: go}
  postconditions: [{expression: .output == 2}]
  on_error: [{steps: [{id: again, wait_for_signal: {signal: go}}]}]
)");
  park_after_ = absl::Seconds(10);
  SendSignal("go", 1);
  EXPECT_TRUE(EndsWalk(Walk(spec).status()));
  SendSignal("go", 3);
  auto out = Walk(spec);
  ASSERT_THAT(out, IsOk());
  EXPECT_EQ(*out, Json(3));
}

}  // namespace
}  // namespace tutti::engine::testing
