// The steps that are made of steps: switch, parallel, pipeline with gates, reflect.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/retry.h"

namespace tutti::engine {
namespace {

constexpr double kDefaultGateThreshold = 0.7;
constexpr double kDefaultReflectThreshold = 0.8;
constexpr int kDefaultRounds = 3;
constexpr int kGateCallAttempts = 3;

JsonRef Ref(Json value) { return std::make_shared<const Json>(std::move(value)); }

// The score of a critic's or a gate's answer: `score`, else `passed` as 1 or 0. Clamped to 0..1.
absl::StatusOr<double> ScoreOf(const Json& answer, const std::string& path) {
  if (answer.is_object() && answer.contains("score") && answer["score"].is_number()) {
    double score = answer["score"].get<double>();
    if (std::isfinite(score)) return std::clamp(score, 0.0, 1.0);
  }
  if (answer.is_object() && answer.contains("passed") && answer["passed"].is_boolean()) {
    return answer["passed"].get<bool>() ? 1.0 : 0.0;
  }
  return Error(absl::StatusCode::kFailedPrecondition, "BAD_VERDICT",
               absl::StrCat(path, ": a judge must answer an object with \"score\" (0 to 1) or \"passed\", got ",
                            DumpJson(answer).substr(0, 200)));
}

std::string FeedbackOf(const Json& answer) {
  if (!answer.is_object() || !answer.contains("feedback")) return "";
  const Json& feedback = answer["feedback"];
  return feedback.is_string() ? feedback.get<std::string>() : DumpJson(feedback);
}

}  // namespace

Task<absl::StatusOr<JsonRef>> Interpreter::RunSwitch(const tutti::workflow::v1::SwitchStep& step, std::string path,
                                                     const Variables& variables, Bounds bounds) {
  // The expressions see only recorded results, so the same way is taken again after a crash.
  Variables inner(&variables);
  for (int i = 0; i < step.cases_size(); ++i) {
    auto holds = deps_.evaluator.EvaluateCondition(step.cases(i).when(), variables);
    if (!holds.ok()) co_return Prefix(holds.status(), absl::StrCat("step ", path, ": case ", i, ": "));
    if (!*holds) continue;
    auto result = co_await RunBlock(step.cases(i).steps(), absl::StrCat(path, "/case-", i), inner, bounds);
    co_return result;
  }
  auto result = co_await RunBlock(step.default_(), absl::StrCat(path, "/default"), inner, bounds);
  co_return result;
}

struct Interpreter::Branches {
  Branches(const tutti::workflow::v1::ParallelStep& step, const Variables& variables, std::string path)
      : step(step), variables(variables), path(std::move(path)), results(static_cast<size_t>(step.branches_size())) {}
  const tutti::workflow::v1::ParallelStep& step;
  const Variables& variables;
  const std::string path;
  Bounds bounds;
  std::stop_source stop;
  int next = 0;
  std::vector<JsonRef> results;
  absl::Status failure;
};

// One of `max_concurrency` walkers: takes the next branch until none is left.
Task<bool> Interpreter::RunBranches(Branches& all) {
  while (all.next < all.step.branches_size()) {
    if (!all.failure.ok() && !all.step.allow_failures()) co_return false;
    int i = all.next++;
    const auto& branch = all.step.branches(i);
    Variables inner(&all.variables);
    auto result = co_await RunBlock(branch.steps(), absl::StrCat(all.path, "/", branch.id()), inner, all.bounds);
    if (result.ok()) {
      all.results[static_cast<size_t>(i)] = *result;
      continue;
    }
    bool lost = ReasonOf(result.status()) == "LEASE_LOST";
    if (all.failure.ok() || lost) all.failure = result.status();
    if (!all.step.allow_failures() || lost) all.stop.request_stop();
  }
  co_return true;
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunParallel(const tutti::workflow::v1::ParallelStep& step, std::string path,
                                                       const Variables& variables, Bounds bounds) {
  Branches all(step, variables, path);
  all.bounds = bounds;
  all.bounds.stop = all.stop.get_token();
  std::stop_callback outer(bounds.stop, [&all] { all.stop.request_stop(); });
  int walkers =
      step.max_concurrency() == 0 ? step.branches_size() : std::min(step.max_concurrency(), step.branches_size());
  std::vector<Task<bool>> tasks;
  for (int i = 0; i < walkers; ++i) tasks.push_back(RunBranches(all));
  co_await WhenAll(std::move(tasks));
  if (bounds.stop.stop_requested()) co_return absl::CancelledError("the run was asked to stop");
  if (!all.failure.ok() && (!step.allow_failures() || ReasonOf(all.failure) == "LEASE_LOST")) co_return all.failure;
  Json out = Json::object();
  for (int i = 0; i < step.branches_size(); ++i) {
    const JsonRef& result = all.results[static_cast<size_t>(i)];
    out[step.branches(i).id()] = result ? *result : Json(nullptr);
  }
  co_return Ref(std::move(out));
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunPipeline(const tutti::workflow::v1::PipelineStep& step, std::string path,
                                                       const Variables& variables, Bounds bounds) {
  Variables inner(&variables);
  JsonRef last = Ref(nullptr);
  for (const auto& stage : step.stages()) {
    TUTTI_CO_ASSIGN_OR_RETURN(last, co_await RunStage(stage, absl::StrCat(path, "/", stage.id()), inner, bounds));
    inner.Set(stage.id(), last);
  }
  co_return last;
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunStage(const tutti::workflow::v1::PipelineStep::Stage& stage,
                                                    std::string path, const Variables& variables, Bounds bounds) {
  int attempts = std::max(1, stage.gate().max_attempts());
  JsonRef feedback = Ref(nullptr);
  for (int attempt = 1;; ++attempt) {
    std::string attempt_path = attempt == 1 ? path : absl::StrCat(path, "/attempt-", attempt);
    Variables inner(&variables);
    inner.Set("feedback", feedback);
    TUTTI_CO_ASSIGN_OR_RETURN(JsonRef output, co_await RunBlock(stage.steps(), attempt_path, inner, bounds));
    if (!stage.has_gate()) co_return output;
    Variables judged(&inner);
    judged.Set("output", output);
    TUTTI_CO_ASSIGN_OR_RETURN(Verdict verdict,
                              co_await RunGate(stage.gate(), absl::StrCat(attempt_path, "/gate"), judged, bounds));
    if (verdict.passed) co_return output;
    if (attempt >= attempts) {
      co_return Error(absl::StatusCode::kFailedPrecondition, "GATE_FAILED",
                      absl::StrCat("stage ", path, " did not pass its quality gate after ", attempt,
                                   attempt == 1 ? " attempt: " : " attempts: ", verdict.feedback))
          .Metadata("stage", path);
    }
    feedback = Ref(verdict.feedback);
  }
}

Task<absl::StatusOr<Json>> Interpreter::AskGate(const tutti::workflow::v1::Gate& gate, std::string path,
                                                std::string key, const Variables& variables, Bounds bounds,
                                                std::vector<tutti::type::v1::ModelUsage>& usage) {
  using tutti::workflow::v1::Gate;
  switch (gate.check_case()) {
    case Gate::kExpression: {
      TUTTI_CO_ASSIGN_OR_RETURN(bool passed, deps_.evaluator.EvaluateCondition(gate.expression(), variables));
      std::string feedback = passed ? "" : absl::StrCat("this does not hold: ", gate.expression());
      co_return Json{{"passed", passed}, {"score", passed ? 1 : 0}, {"feedback", feedback}};
    }
    case Gate::kJsonSchema: {
      absl::Status fits = ValidateJson(ToJson(gate.json_schema()), *variables.Find("output"), "output");
      co_return Json{{"passed", fits.ok()}, {"score", fits.ok() ? 1 : 0}, {"feedback", std::string(fits.message())}};
    }
    case Gate::kTool: {
      TUTTI_CO_ASSIGN_OR_RETURN(JsonRef answer,
                                co_await RunTool(gate.tool(), std::move(path), std::move(key), variables, bounds));
      co_return Json(*answer);
    }
    default: {
      TUTTI_CO_ASSIGN_OR_RETURN(
          JsonRef answer, co_await RunAgent(gate.agent(), std::move(path), std::move(key), variables, bounds, usage));
      co_return Json(*answer);
    }
  }
}

Task<absl::StatusOr<Interpreter::Verdict>> Interpreter::RunGate(const tutti::workflow::v1::Gate& gate, std::string path,
                                                                const Variables& variables, Bounds bounds) {
  Json answer;
  const StepHistory* known = history_.Find(path);
  bool recorded = known && known->result;
  std::vector<tutti::type::v1::ModelUsage> usage;
  int attempt = 1;
  if (recorded) {
    answer = *known->result;
  } else {
    TUTTI_CO_RETURN_IF_ERROR(Interrupted(bounds));
    bounds.deadline = std::min(bounds.deadline, deps_.clock.Now() + absl::Seconds(300));
    for (;; ++attempt) {
      auto asked =
          co_await AskGate(gate, path, absl::StrCat(run_id_, "/", path, "/", attempt), variables, bounds, usage);
      if (asked.ok()) {
        answer = *std::move(asked);
        break;
      }
      // A judge that cannot be reached says nothing about what it should judge.
      bool again = asked.status().code() == absl::StatusCode::kUnavailable && attempt < kGateCallAttempts;
      if (!again) co_return Prefix(asked.status(), absl::StrCat(path, ": "));
      if (!co_await Sleep(deps_.timers, deps_.executor, absl::Seconds(attempt), bounds.stop)) {
        co_return absl::CancelledError("the run was asked to stop");
      }
    }
  }
  Verdict verdict;
  TUTTI_CO_ASSIGN_OR_RETURN(verdict.score, ScoreOf(answer, path));
  double threshold = gate.has_threshold() ? gate.threshold() : kDefaultGateThreshold;
  verdict.passed = answer.contains("passed") && answer["passed"].is_boolean() ? answer["passed"].get<bool>()
                                                                              : verdict.score >= threshold;
  verdict.feedback = FeedbackOf(answer);
  if (verdict.passed) progress_.Complete(gate);
  if (!recorded) {
    auto entry = NewEntry();
    auto* completed = entry.mutable_step_completed();
    completed->set_path(path);
    completed->set_kind("gate");
    completed->set_attempt(attempt);
    completed->set_target(gate.has_tool() ? gate.tool().tool() : gate.has_agent() ? gate.agent().agent() : "");
    Json recorded_answer = {{"passed", verdict.passed}, {"score", verdict.score}, {"feedback", verdict.feedback}};
    ToPayload(recorded_answer, completed->mutable_result());
    for (auto& item : usage) *completed->add_usage() = std::move(item);
    TUTTI_CO_RETURN_IF_ERROR(co_await deps_.journal.Commit(std::move(entry)));
  }
  co_return verdict;
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunReflect(const tutti::workflow::v1::ReflectStep& step, std::string path,
                                                      const Variables& variables, Bounds bounds) {
  int rounds = step.max_rounds() == 0 ? kDefaultRounds : step.max_rounds();
  double threshold = step.has_threshold() ? step.threshold() : kDefaultReflectThreshold;
  JsonRef draft = Ref(nullptr), critique = Ref(nullptr), best;
  double best_score = -1;
  for (int round = 1; round <= rounds; ++round) {
    std::string round_path = absl::StrCat(path, "/round-", round);
    Variables inner(&variables);
    inner.Set("round", Ref(round));
    inner.Set("draft", draft);
    inner.Set("critique", critique);
    bool first = round == 1 || step.improve().empty();
    TUTTI_CO_ASSIGN_OR_RETURN(
        draft, co_await RunBlock(first ? step.generate() : step.improve(),
                                 absl::StrCat(round_path, first ? "/generate" : "/improve"), inner, bounds));
    inner.Set("draft", draft);
    std::string critique_path = absl::StrCat(round_path, "/critique");
    TUTTI_CO_ASSIGN_OR_RETURN(critique, co_await RunBlock(step.critique(), critique_path, inner, bounds));
    TUTTI_CO_ASSIGN_OR_RETURN(double score, ScoreOf(*critique, critique_path));
    if (score > best_score) {
      best_score = score;
      best = draft;
    }
    if (best_score >= threshold) break;
  }
  co_return best;
}

}  // namespace tutti::engine
