// Several ways at once: a limit, hedging, stragglers, and one output out of many.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/fusion.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/retry.h"

namespace tutti::engine {

struct Interpreter::Branches {
  Branches(const tutti::workflow::v1::ParallelStep& step, const Variables& variables, std::string path)
      : step(step), variables(variables), path(std::move(path)), results(static_cast<size_t>(step.branches_size())) {}
  const tutti::workflow::v1::ParallelStep& step;
  const Variables& variables;
  const std::string path;
  Bounds bounds;
  std::stop_token outer;        // of what is around
  std::stop_source stop;        // gives up what is under way
  std::stop_source no_cutting;  // all have ended
  int next = 0;
  int walkers = 0;
  std::vector<JsonRef> results;  // of branches that ended well
  std::vector<int> ended;        // of these, in the order of their ends
  absl::Status failure;
  // Only these count: what came first, or before the deadline, is recorded, for a replay to see the same.
  JsonRef decided;

  bool tolerant() const { return step.allow_failures() || step.has_straggler_deadline() || first_counts(); }
  bool first_counts() const { return step.fusion().method() == "first_success" || step.fusion().method() == "quorum"; }
  bool counts(int index) const {
    if (!decided) return true;
    return std::find(decided->begin(), decided->end(), Json(step.branches(index).id())) != decided->end();
  }
  std::vector<FusionInput> inputs() const {
    std::vector<FusionInput> out;
    auto add = [&](int i) {
      const JsonRef& result = results[static_cast<size_t>(i)];
      if (result && counts(i)) out.push_back({step.branches(i).id(), result});
    };
    if (first_counts() && !decided) {
      for (int i : ended) add(i);
    } else if (first_counts()) {
      for (const auto& id : *decided) {
        for (int i = 0; i < step.branches_size(); ++i) {
          if (step.branches(i).id() == id.get<std::string>()) add(i);
        }
      }
    } else {
      for (int i = 0; i < step.branches_size(); ++i) add(i);
    }
    return out;
  }
  Json ended_ids() const {
    Json out = Json::array();
    for (int i : ended) out.push_back(step.branches(i).id());
    return out;
  }
};

// A branch, or two copies of it when the first takes long: the first good end counts, and what the other had done is
// undone.
Task<bool> Interpreter::HedgeBranch(Branches& all, int index) {
  const auto& branch = all.step.branches(index);
  std::string path = step_path::Below(all.path, branch.id());
  const auto slot = static_cast<size_t>(index);
  struct Race {
    std::stop_source stop, stop_waiting;
    JsonRef result;
    absl::Status failure;
  } race;
  Bounds bounds = all.bounds;
  bounds.stop = race.stop.get_token();
  std::stop_callback outer(all.bounds.stop, [&race] { race.stop.request_stop(); });
  const std::string copy_path = step_path::Below(path, step_path::kHedgeCopy);
  const StepHistory* known = history_.Find(step_path::Below(path, step_path::kHedgeWinner));
  const bool decided = known && known->result;
  bool second_won = decided && *known->result == Json("hedge");
  // However often the run has left memory since the branch began.
  absl::Time hedge_time = absl::InfinitePast();
  if (all.step.has_hedge_after() && !decided) {
    hedge_time = deps_.clock.Now();
    const StepHistory* first =
        branch.steps().empty() ? nullptr : history_.Find(step_path::Below(path, branch.steps(0).id()));
    if (first) hedge_time = std::min(hedge_time, first->start_time);
    hedge_time += FromProto(all.step.hedge_after());
  }
  auto run = [&](std::string at, std::string name, absl::Time begin) -> Task<bool> {
    if (race.result) co_return false;
    if (begin > deps_.clock.Now()) {
      std::stop_source either;
      std::stop_callback on_stop(bounds.stop, [&either] { either.request_stop(); });
      std::stop_callback on_end(race.stop_waiting.get_token(), [&either] { either.request_stop(); });
      Bounds waiting = bounds;
      waiting.stop = either.get_token();
      absl::Status waited = co_await Wait(begin, /*for_news=*/false, waiting);
      if (!waited.ok() || race.result) {
        if (EndsWalk(waited)) race.failure = waited;
        co_return false;
      }
    }
    Variables inner(&all.variables);
    auto result = co_await RunBlock(branch.steps(), at, inner, bounds);
    if (result.ok() && !race.result) {
      race.result = *result;
      second_won = name == "hedge";
      if (all.step.has_hedge_after()) {
        std::function<Task<Result>()> say = [&]() -> Task<Result> { co_return Ref(name); };
        auto recorded = co_await Record(step_path::Below(path, step_path::kHedgeWinner), "hedge", name, std::move(say),
                                        all.bounds.replay_only);
        if (!recorded.ok()) race.failure = recorded.status();
      }
      race.stop.request_stop();
    } else if (!result.ok() && (race.failure.ok() || EndsWalk(result.status()))) {
      race.failure = result.status();
    }
    if (!race.result) race.stop_waiting.request_stop();  // with the first gone nobody waits to begin the second
    co_return true;
  };
  std::vector<Task<bool>> copies;
  if (!second_won) copies.push_back(run(path, "original", absl::InfinitePast()));
  if (all.step.has_hedge_after() && !all.bounds.replay_only && (!decided || second_won)) {
    copies.push_back(run(copy_path, "hedge", hedge_time));
  }
  co_await Join(std::move(copies));
  if (EndsWalk(race.failure) || !race.result) {
    if (race.failure.ok()) race.failure = absl::CancelledError("given up");
    if (all.failure.ok() || EndsWalk(race.failure)) all.failure = race.failure;
    co_return false;
  }
  if (all.step.has_hedge_after() && HasCompensations()) {
    const std::string lost = second_won ? path : copy_path, won = second_won ? copy_path : "";
    if (decided) {  // what it had done is known from the journal alone
      Variables inner(&all.variables);
      Bounds again = all.bounds;
      again.replay_only = true;
      (void)co_await RunBlock(branch.steps(), lost, inner, again);
    }
    absl::Status undone = co_await CompensateExcept(lost, all.bounds, won);
    if (!undone.ok()) all.failure = undone;
  }
  all.results[slot] = race.result;
  all.ended.push_back(index);
  co_return true;
}

// One of `max_concurrency` walkers: takes the next branch until none is left.
Task<bool> Interpreter::RunBranches(Branches& all) {
  while (all.next < all.step.branches_size()) {
    const bool replay = all.bounds.replay_only;
    if (!replay && !all.failure.ok() && (!all.tolerant() || EndsWalk(all.failure))) break;
    if (all.bounds.stop.stop_requested()) break;
    int i = all.next++;
    if (!all.counts(i)) {  // given up by what was decided; what it had done is undone, if that was not finished
      if (!HasCompensations()) continue;
      Variables inner(&all.variables);
      Bounds again = all.bounds;
      again.replay_only = true;
      std::string path = step_path::Below(all.path, all.step.branches(i).id());
      (void)co_await RunBlock(all.step.branches(i).steps(), path, inner, again);
      absl::Status undone = co_await Compensate(path, all.bounds);
      if (!undone.ok()) all.failure = undone;
      continue;
    }
    bool ended = co_await HedgeBranch(all, i);
    if (EndsWalk(all.failure)) break;
    if (!ended) {
      if (!all.tolerant() && !replay) all.stop.request_stop();
      if (all.tolerant() && !all.outer.stop_requested()) {
        std::string path = step_path::Below(all.path, all.step.branches(i).id());
        absl::Status undone = co_await Compensate(path, all.bounds);
        if (!undone.ok()) all.failure = undone;
      }
      continue;
    }
    if (!all.first_counts() || all.decided) continue;
    auto inputs = all.inputs();
    auto decided = co_await IsDecided(all.step.fusion(), inputs, static_cast<size_t>(all.step.branches_size()),
                                      all.variables, deps_.evaluator, evaluation_);
    if (!decided.ok() || !*decided || all.decided) continue;
    all.decided = Ref(all.ended_ids());
    std::function<Task<Result>()> say = [&all]() -> Task<Result> { co_return all.decided; };
    auto recorded = co_await Record(step_path::Below(all.path, step_path::kFusionDecided), "fusion", "", std::move(say),
                                    all.bounds.replay_only);
    if (!recorded.ok()) all.failure = recorded.status();
    all.stop.request_stop();
  }
  if (EndsWalk(all.failure)) all.stop.request_stop();
  if (--all.walkers == 0) all.no_cutting.request_stop();
  co_return true;
}

// At the deadline, what has not ended is given up.
Task<bool> Interpreter::CutStragglers(Branches& all) {
  absl::Time start = deps_.clock.Now();
  if (const StepHistory* known = history_.Find(all.path)) {
    start = std::min(start, known->start_time);
  } else if (const auto block = step_path::Without(all.path, step_path::kAttempt)) {
    // A later attempt stands under a path of its own, and begins with the step's latest.
    if (const StepHistory* step = history_.Find(*block)) start = std::min(start, step->attempt_time);
  }
  absl::Time cut = start + FromProto(all.step.straggler_deadline());
  Bounds bounds = all.bounds;
  std::stop_source either;
  std::stop_callback on_stop(all.bounds.stop, [&either] { either.request_stop(); });
  std::stop_callback on_end(all.no_cutting.get_token(), [&either] { either.request_stop(); });
  bounds.stop = either.get_token();
  absl::Status waited = co_await Wait(cut, /*for_news=*/false, bounds);
  if (EndsWalk(waited)) all.failure = waited;
  if (!waited.ok() || all.decided || deps_.clock.Now() < cut) co_return false;
  all.decided = Ref(all.ended_ids());
  std::function<Task<Result>()> say = [&all]() -> Task<Result> { co_return all.decided; };
  auto recorded =
      co_await Record(step_path::Below(all.path, step_path::kFusionDecided), "stragglers", "", std::move(say));
  if (!recorded.ok()) all.failure = recorded.status();
  all.stop.request_stop();
  co_return true;
}

Task<Interpreter::Result> Interpreter::RunParallel(const tutti::workflow::v1::ParallelStep& step, std::string path,
                                                   const Variables& variables, Bounds bounds) {
  Branches all(step, variables, path);
  all.bounds = bounds;
  all.outer = bounds.stop;
  all.bounds.stop = all.stop.get_token();
  std::stop_callback outer(bounds.stop, [&all] { all.stop.request_stop(); });
  if (const StepHistory* known = history_.Find(step_path::Below(path, step_path::kFusionDecided));
      known && known->result)
    all.decided = known->result;
  all.walkers =
      step.max_concurrency() == 0 ? step.branches_size() : std::min(step.max_concurrency(), step.branches_size());
  std::vector<Task<bool>> tasks;
  for (int i = 0, walkers = all.walkers; i < walkers; ++i) tasks.push_back(RunBranches(all));
  if (step.has_straggler_deadline() && !all.decided && !bounds.replay_only) tasks.push_back(CutStragglers(all));
  co_await Join(std::move(tasks));
  if (EndsWalk(all.failure)) co_return all.failure;
  if (bounds.stop.stop_requested()) co_return absl::CancelledError("the run was asked to stop");
  if (!all.failure.ok() && !all.tolerant()) co_return all.failure;
  if (step.has_fusion()) {
    // Nobody ended well: why not says more than that there is nothing to put together.
    if (all.inputs().empty() && !all.failure.ok()) co_return all.failure;
    auto fused = co_await Fuse(step, path, all, variables, bounds);
    co_return fused;
  }
  Json out = Json::object();
  for (int i = 0; i < step.branches_size(); ++i) {
    const JsonRef& result = all.results[static_cast<size_t>(i)];
    out[step.branches(i).id()] = result && all.counts(i) ? *result : Json(nullptr);
  }
  co_return Ref(std::move(out));
}

Task<Interpreter::Result> Interpreter::Fuse(const tutti::workflow::v1::ParallelStep& step, std::string path,
                                            const Branches& all, const Variables& variables, Bounds bounds) {
  auto inputs = all.inputs();
  if (step.fusion().method() != "agent") {
    TUTTI_CO_ASSIGN_OR_RETURN(
        Json fused, co_await tutti::engine::Fuse(step.fusion(), inputs, static_cast<size_t>(step.branches_size()),
                                                 variables, deps_.evaluator, evaluation_));
    co_return Ref(std::move(fused));
  }
  Json outputs = Json::object();
  for (const auto& input : inputs) outputs[input.branch] = *input.output;
  Variables inner(&variables);
  inner.Set("outputs", Ref(std::move(outputs)));
  Step fuse;
  fuse.set_id("fusion");
  *fuse.mutable_agent() = step.fusion().agent();
  if (!fuse.agent().has_input()) {
    (*fuse.mutable_agent()->mutable_input()->mutable_struct_value()->mutable_fields())["outputs"].set_string_value(
        "${ .outputs }");
  }
  auto result = co_await RunStep(fuse, step_path::Below(path, step_path::kFusionAgent), inner, bounds);
  co_return result;
}

}  // namespace tutti::engine
