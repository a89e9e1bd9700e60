// What runs and their steps may consume, with the runs that they start.
#include "services/workflow-engine/domain/budget.h"
#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

TEST_F(InterpreterTest, AChildHasWhatIsLeftOfTheBudgetsAroundItAndCountsThere) {
  auto spec = Spec(R"(
budget: {tokens: 2000, calls: 50}
steps:
- id: block
  budget: {tokens: 1000, cost_nano_units: 77}
  pipeline:
    stages:
    - id: both
      steps:
      - {id: ask, agent: {agent: a}}
      - {id: child, sub_workflow: {workflow: other}, retry: {max_attempts: 2}}
      - {id: more, agent: {agent: a}}
)");
  world_.tokens_per_call = 100;
  world_.tokens_per_child = 600;
  world_.children_ended.emplace("child-run1/block/both/child/1", absl::UnavailableError("broke"));
  world_.children_ended.emplace("child-run1/block/both/child/2", Json("done"));
  auto out = Walk(spec, Json::object(), absl::Seconds(1));
  EXPECT_THAT(out, HasCodeAndText(absl::StatusCode::kResourceExhausted, "has used 1300 of its budget of 1000 tokens"))
      << "100, and 600 by each of the two children";
  ASSERT_EQ(world_.child_budgets.size(), 2u);
  EXPECT_EQ(world_.child_budgets[0].tokens(), 900);
  EXPECT_EQ(world_.child_budgets[0].calls(), 49);
  EXPECT_EQ(world_.child_budgets[0].cost_nano_units(), 77);
  EXPECT_EQ(world_.child_budgets[1].tokens(), 300);
  EXPECT_EQ(world_.child_budgets[1].calls(), 49);
  // Also for whoever walks it from the journal alone.
  auto again = Walk(spec, Json::object(), absl::Seconds(1));
  EXPECT_EQ(again.status(), out.status());
  History history;
  for (const auto& entry : world_.journal) ASSERT_THAT(history.Add(entry), IsOk());
  EXPECT_EQ(history.SpentBelow("block").tokens, 1300);
  EXPECT_EQ(history.SpentBelow("").tokens, 1300);
}

TEST_F(InterpreterTest, ARunHasABudgetOfItsOwn) {
  auto spec = Spec(R"(
budget: {calls: 3}
steps:
- {id: loop, while: {condition: 'true', steps: [{id: ask, agent: {agent: a}, retry: {max_attempts: 9}}]}}
)");
  EXPECT_THAT(Walk(spec),
              HasCodeAndText(absl::StatusCode::kResourceExhausted, "the run has used 3 of its budget of 3"));
  EXPECT_EQ(world_.calls.size(), 3u);
  int failures = 0;
  for (const auto& entry : world_.journal) failures += entry.step_failed().path() == "loop/3/ask" ? 1 : 0;
  EXPECT_EQ(failures, 1) << "what is spent does not come back by trying again";
  auto timed = Spec("budget: {time: 5s}\nsteps:\n- {id: nap, sleep: {duration: 60s}}\n");
  world_.journal.clear();
  EXPECT_THAT(Walk(timed, Json::object(), absl::Seconds(1)), HasCode(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(InterpreterTest, ABudgetBindsWhatStandsInItAndNothingElse) {
  world_.tokens_per_call = 100;
  auto inner = Spec(R"(
steps:
- id: block
  retry: {max_attempts: 3}
  switch: {cases: [{when: 'true', steps: [{id: twice, budget: {calls: 1}, for_each: {items: '[1, 2]', steps: [{id: ask, agent: {agent: a}}]}}]}]}
)");
  EXPECT_THAT(Walk(inner, Json::object(), absl::Seconds(1)),
              HasCodeAndText(absl::StatusCode::kResourceExhausted, "step block/attempt-3/case-0/twice has used 1"));
  EXPECT_EQ(world_.calls.size(), 3u) << "one in each attempt";
  for (const char* how : {"fallback: [{id: less, agent: {agent: b, input: less}}]",
                          "on_error: [{steps: [{id: less, agent: {agent: b, input: less}}]}]"}) {
    world_.journal.clear();
    auto out = Walk(Spec(absl::StrCat("steps:\n- id: twice\n  budget: {tokens: 100}\n  ", how,
                                      "\n  for_each: {items: '[1, 2]', steps: [{id: ask, agent: {agent: a}}]}\n")));
    ASSERT_THAT(out, IsOk()) << how;
    EXPECT_EQ(*out, Json("less"));
  }
  world_.journal.clear();
  auto run =
      Walk(Spec("budget: {calls: 1}\nsteps:\n- {id: twice, for_each: {items: '[1, 2]', steps: [{id: ask, agent: "
                "{agent: a}}]}}\non_error: [{steps: [{id: less, agent: {agent: b, input: less}}]}]\n"));
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(*run, Json("less"));
}

TEST_F(InterpreterTest, AChildThatIsGivenUpIsPaidForAsFarAsIsKnown) {
  auto spec = Spec(R"(
steps:
- id: block
  budget: {tokens: 1000}
  switch: {cases: [{when: 'true', steps: [{id: child, timeout: 5s, sub_workflow: {workflow: other}, retry: {max_attempts: 9, initial_backoff: 1s}}]}]}
)");
  on_idle_ = [this] { world_.tokens_per_child = 600; };  // after it was looked at first
  EXPECT_THAT(Walk(spec, Json::object(), absl::Seconds(1)),
              HasCodeAndText(absl::StatusCode::kResourceExhausted, "has used 1200 of its budget of 1000"));
  EXPECT_EQ(world_.child_budgets.size(), 2u);
  History history;
  for (const auto& entry : world_.journal) ASSERT_THAT(history.Add(entry), IsOk());
  EXPECT_EQ(history.SpentBelow("block").tokens, 1200);
}

TEST_F(InterpreterTest, ABudgetEndsCallsBeforeTheyAreMadeAlsoAfterARecovery) {
  auto spec = Spec(R"(
steps:
- id: loop
  budget: {tokens: 250}
  while: {condition: 'true', steps: [{id: ask, agent: {agent: a}}]}
)");
  world_.tokens_per_call = 100;
  world_.commits_until_crash = 2;
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kAborted));
  world_.commits_until_crash = -1;
  EXPECT_THAT(Walk(spec),
              HasCodeAndText(absl::StatusCode::kResourceExhausted, "has used 300 of its budget of 250 tokens"));
  EXPECT_EQ(world_.calls.size(), 4u) << "three, and one that the crash made repeat";
}

TEST_F(InterpreterTest, ABudgetKnowsAllThatWasConsumedWhereverItCrashes) {
  auto spec = Spec(R"(
steps:
- id: all
  budget: {calls: 160}
  retry: {max_attempts: 4, initial_backoff: 1s}
  pipeline:
    stages:
    - {id: flaky, steps: [{id: ask, agent: {agent: b}, retry: {max_attempts: 2, initial_backoff: 1s}}]}
    - id: loop
      steps:
      - {id: turns, while: {condition: '(.last // 0) < 130', max_iterations: 1000, steps: [{id: ask, agent: {agent: a, input: '${ .iteration + 1 }'}}]}}
    - {id: more, steps: [{id: again, while: {condition: 'true', max_iterations: 1000, steps: [{id: ask, agent: {agent: a}}]}}]}
)");
  int b = 0;
  auto answer = [&b](const std::string& target, const Json& input) -> absl::StatusOr<Json> {
    if (target == "b" && ++b < 4) return absl::UnavailableError("away");
    return input;
  };
  auto walk = [&](int crash_after) {
    world_.journal.clear();
    world_.calls.clear();
    world_.next_seq = 1;
    b = 0;
    world_.answer = answer;
    world_.commits_until_crash = crash_after;
    absl::StatusOr<Json> out = Walk(spec, Json::object(), absl::Seconds(5));
    for (int i = 0; i < 3 && ReasonOf(out.status()) == "LEASE_LOST"; ++i) {
      // Another crash, then to the end.
      world_.commits_until_crash = i == 0 ? 20 : -1;
      out = Walk(spec, Json::object(), absl::Seconds(5));
    }
    EXPECT_THAT(out, HasCodeAndText(absl::StatusCode::kResourceExhausted, "its budget of 160 calls")) << crash_after;
    return world_.calls.size();
  };
  ASSERT_EQ(walk(-1), 160u);
  for (int crash_after = 1; crash_after < 170; crash_after += 7) {
    // Each crash repeats at most the one call whose end it lost.
    EXPECT_LE(walk(crash_after), 162u) << crash_after;
  }
}

TEST_F(InterpreterTest, ABudgetKnowsWhatLiesBehindACheckpoint) {
  auto spec = Spec(R"(
steps:
- id: loop
  budget: {calls: 1020, tokens: 1000000}
  while: {condition: 'true', max_iterations: 5000, steps: [{id: ask, agent: {agent: a}}]}
)");
  world_.tokens_per_call = 1;
  world_.commits_until_crash = 1010;
  EXPECT_THAT(Walk(spec), HasCode(absl::StatusCode::kAborted));
  // As a snapshot has it: what lies behind the last checkpoint is gone.
  auto last = std::find_if(world_.journal.rbegin(), world_.journal.rend(),
                           [](const JournalEntry& entry) { return entry.has_loop_checkpoint(); });
  ASSERT_NE(last, world_.journal.rend());
  EXPECT_EQ(last->loop_checkpoint().spent().calls(), 1000);
  EXPECT_EQ(last->loop_checkpoint().spent().input_tokens(), 1000);
  world_.journal.erase(world_.journal.begin(), last.base() - 1);
  world_.commits_until_crash = -1;
  EXPECT_THAT(Walk(spec), HasCodeAndText(absl::StatusCode::kResourceExhausted, "its budget of 1020 calls"));
  EXPECT_LE(world_.calls.size(), 1021u);
}

TEST_F(InterpreterTest, ABudgetKnowsWhatFailedAttemptsConsumed) {
  auto spec = Spec(R"(
steps:
- id: ask
  budget: {tokens: 1000}
  agent: {agent: a}
  retry: {max_attempts: 10, initial_backoff: 1s, retryable_codes: [FAILED_PRECONDITION]}
  postconditions: [{expression: .output == "good"}]
)");
  world_.tokens_per_call = 300;
  world_.answer = [](const std::string&, const Json&) -> absl::StatusOr<Json> { return Json("bad"); };
  world_.commits_until_crash = 3;
  EXPECT_THAT(Walk(spec, Json::object(), absl::Seconds(60)), HasCode(absl::StatusCode::kAborted));
  world_.commits_until_crash = -1;
  EXPECT_THAT(Walk(spec, Json::object(), absl::Seconds(60)), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_LE(world_.calls.size(), 5u);
  int64_t recorded = 0;
  for (const auto& entry : world_.journal) {
    for (const auto& usage : entry.step_failed().usage()) recorded += usage.input_tokens();
  }
  EXPECT_EQ(recorded, 1200);
}

TEST(HistoryTest, WhatAForkHasTakenOverIsPaidForByTheOriginal) {
  History history;
  JournalEntry call, loop, forked;
  call.set_seq(1);
  call.mutable_step_completed()->set_path("ask");
  call.mutable_step_completed()->set_kind("agent");
  call.mutable_step_completed()->set_attempt(2);
  call.mutable_step_completed()->add_usage()->set_input_tokens(7);
  ToPayload(1, call.mutable_step_completed()->mutable_result());
  loop.set_seq(2);
  loop.mutable_loop_checkpoint()->set_path("loop");
  loop.mutable_loop_checkpoint()->set_iteration(500);
  loop.mutable_loop_checkpoint()->mutable_spent()->set_input_tokens(1000);
  ToPayload(1, loop.mutable_loop_checkpoint()->mutable_last());
  forked.set_seq(3);
  forked.mutable_run_forked();
  ASSERT_THAT(history.Add(call), IsOk());
  ASSERT_THAT(history.Add(loop), IsOk());
  EXPECT_EQ(history.SpentBelow("").tokens, 1007);
  EXPECT_EQ(history.SpentBelow("").calls, 2);
  ASSERT_THAT(history.Add(forked), IsOk());
  EXPECT_EQ(history.SpentBelow("").tokens, 0);
  EXPECT_EQ(history.SpentBelow("").calls, 0);
}

}  // namespace
}  // namespace tutti::engine::testing
