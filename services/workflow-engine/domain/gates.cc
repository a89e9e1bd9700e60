// Quality gates: a judge, and doing again what it did not let pass.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

constexpr double kDefaultGateThreshold = 0.7;
constexpr int kGateCallAttempts = 3;

std::string GateTarget(const tutti::workflow::v1::Gate& gate) {
  return gate.has_tool() ? gate.tool().tool() : gate.has_agent() ? gate.agent().agent() : "";
}

}  // namespace

absl::StatusOr<double> ScoreOf(const Json& answer, const std::string& path,
                               const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Criterion>& rubric) {
  if (answer.is_object() && answer.contains("score") && IsNumber(answer["score"])) {
    double score = *ToDouble(answer["score"]);
    if (std::isfinite(score)) return std::clamp(score, 0.0, 1.0);
  }
  if (answer.is_object() && answer.contains("scores") && answer["scores"].is_object() && !rubric.empty()) {
    double sum = 0, weights = 0;
    for (const auto& criterion : rubric) {
      double weight = criterion.weight() == 0 ? 1 : criterion.weight();
      auto given = answer["scores"].find(criterion.name());
      weights += weight;  // a criterion without a score has failed
      if (given == answer["scores"].end() || !IsNumber(*given)) continue;
      double score = *ToDouble(*given);
      if (std::isfinite(score)) sum += weight * std::clamp(score, 0.0, 1.0);
    }
    return sum / weights;
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

Task<absl::StatusOr<Interpreter::Gated>> Interpreter::RunGated(const tutti::workflow::v1::Gate& gate, std::string path,
                                                               const Variables& variables, Bounds bounds,
                                                               JsonRef feedback, Body body, const char* again) {
  // A gate that failed the run has its attempts once more when the run is opened again.
  const int attempts = std::max(1, gate.max_attempts()) * (1 + history_.forgiven_gates(path));
  Gated gated;
  for (int attempt = 1;; ++attempt) {
    gated.path = attempt == 1 ? path : step_path::Below(path, again, attempt);
    Variables inner(&variables);
    inner.Set("feedback", feedback);
    TUTTI_CO_ASSIGN_OR_RETURN(gated.output, co_await body(gated.path, inner));
    Variables judged(&inner);
    judged.Set("output", gated.output);
    TUTTI_CO_ASSIGN_OR_RETURN(gated.verdict,
                              co_await RunGate(gate, step_path::Below(gated.path, step_path::kGate), judged, bounds));
    if (gated.verdict.passed || attempt >= attempts) co_return gated;
    // What is done again must not stand twice.
    TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(gated.path, bounds));
    feedback = Ref(gated.verdict.feedback);
  }
}

Task<absl::StatusOr<Json>> Interpreter::AskGate(const tutti::workflow::v1::Gate& gate, std::string path,
                                                std::string key, const Variables& variables, Bounds bounds,
                                                Usage& usage) {
  using tutti::workflow::v1::Gate;
  switch (gate.check_case()) {
    case Gate::kExpression: {
      TUTTI_CO_ASSIGN_OR_RETURN(bool passed, co_await EvaluateCondition(gate.expression(), variables));
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
  Usage usage;
  int attempt = 1;
  if (recorded) {
    answer = *known->result;
  } else {
    if (known && known->failed_for_good()) co_return known->last_error;
    if (bounds.replay_only) co_return absl::CancelledError("not done before");
    TUTTI_CO_RETURN_IF_ERROR(Interrupted(bounds));
    TUTTI_CO_RETURN_IF_ERROR(co_await HoldWhilePaused(bounds));
    bounds.deadline = std::min(bounds.deadline, deps_.clock.Now() + absl::Seconds(300));
    for (;; ++attempt) {
      std::string key = absl::StrCat(subject_.run_id, "/", path, "/", attempt);
      auto asked = co_await AskGate(gate, path, std::move(key), variables, bounds, usage);
      if (asked.ok()) {
        answer = *std::move(asked);
        break;
      }
      // A judge that cannot be reached says nothing about what it should judge.
      bool again = asked.status().code() == absl::StatusCode::kUnavailable && attempt < kGateCallAttempts;
      if (!again) {
        absl::Status failed = Prefix(asked.status(), absl::StrCat(path, ": "));
        if (!EndsWalk(failed) && !bounds.stop.stop_requested()) {
          // Recorded, or a replay would ask again and go another way.
          auto entry = NewEntry();
          entry.mutable_step_failed()->set_path(path);
          entry.mutable_step_failed()->set_kind("gate");
          entry.mutable_step_failed()->set_attempt(attempt);
          entry.mutable_step_failed()->set_target(GateTarget(gate));
          for (auto& item : usage) *entry.mutable_step_failed()->add_usage() = std::move(item);
          *entry.mutable_step_failed()->mutable_error() = ToRpcStatus(failed);
          TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Commit(std::move(entry)));
        }
        co_return failed;
      }
      TUTTI_CO_RETURN_IF_ERROR(co_await Wait(deps_.clock.Now() + absl::Seconds(attempt), /*for_news=*/false, bounds));
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
    if (deps_.observer) deps_.observer->Judged(verdict.passed);
    auto entry = NewEntry();
    auto* completed = entry.mutable_step_completed();
    completed->set_path(path);
    completed->set_kind("gate");
    completed->set_attempt(attempt);
    completed->set_target(GateTarget(gate));
    Json recorded_answer = {{"passed", verdict.passed}, {"score", verdict.score}, {"feedback", verdict.feedback}};
    ToPayload(recorded_answer, completed->mutable_result());
    for (auto& item : usage) *completed->add_usage() = std::move(item);
    TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Commit(std::move(entry)));
  }
  co_return verdict;
}

}  // namespace tutti::engine
