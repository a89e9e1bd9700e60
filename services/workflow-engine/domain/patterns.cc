// The steps that are made of steps: switch, pipeline with gates, reflect.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

constexpr double kDefaultReflectThreshold = 0.8;
constexpr int kDefaultRounds = 3;
constexpr int kDefaultLessons = 5;

}  // namespace

Task<Interpreter::Result> Interpreter::Record(std::string path, std::string kind, std::string target,
                                              std::function<Task<Result>()> effect, bool replaying) {
  if (const StepHistory* known = history_.Find(path); known && known->result) co_return known->result;
  if (replaying) co_return absl::CancelledError("not done before");
  TUTTI_CO_ASSIGN_OR_RETURN(JsonRef result, co_await effect());
  auto entry = NewEntry();
  auto* completed = entry.mutable_step_completed();
  completed->set_path(path);
  completed->set_kind(kind);
  completed->set_attempt(1);
  completed->set_target(target);
  TUTTI_CO_RETURN_IF_ERROR(CheckResult(*result, completed->mutable_result()));
  TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Commit(std::move(entry)));
  co_return result;
}

Task<Interpreter::Result> Interpreter::RunSwitch(const tutti::workflow::v1::SwitchStep& step, std::string path,
                                                 const Variables& variables, Bounds bounds) {
  // The expressions see only recorded results, so the same way is taken again after a crash.
  Variables inner(&variables);
  for (int i = 0; i < step.cases_size(); ++i) {
    auto holds = co_await EvaluateCondition(step.cases(i).when(), variables);
    if (!holds.ok()) co_return Prefix(holds.status(), absl::StrCat("step ", path, ": case ", i, ": "));
    if (!*holds) {
      TUTTI_CO_RETURN_IF_ERROR(ExpressionChanged(path, step_path::Below(path, step_path::kCase, i)));
      continue;
    }
    for (int k = i + 1; k < step.cases_size(); ++k) {
      TUTTI_CO_RETURN_IF_ERROR(ExpressionChanged(path, step_path::Below(path, step_path::kCase, k)));
    }
    TUTTI_CO_RETURN_IF_ERROR(ExpressionChanged(path, step_path::Below(path, step_path::kDefault)));
    auto result = co_await RunBlock(step.cases(i).steps(), step_path::Below(path, step_path::kCase, i), inner, bounds);
    co_return result;
  }
  auto result = co_await RunBlock(step.default_(), step_path::Below(path, step_path::kDefault), inner, bounds);
  co_return result;
}

Task<Interpreter::Result> Interpreter::RunPipeline(const tutti::workflow::v1::PipelineStep& step, std::string path,
                                                   const Variables& variables, Bounds bounds) {
  Variables seen(&variables);
  JsonRef last = Ref(nullptr), feedback = Ref(nullptr);
  std::vector<int> visits(static_cast<size_t>(step.stages_size()), 0), returns(visits);
  for (int i = 0; i < step.stages_size();) {
    const auto at = static_cast<size_t>(i);
    const auto& stage = step.stages(i);
    int visit = ++visits[at];
    std::string stage_path = step_path::Below(path, stage.id());
    if (visit > 1) stage_path = step_path::Below(stage_path, step_path::kVisit, visit);
    Body body = [this, &stage, &bounds](std::string attempt_path, Variables& inner) {
      return RunBlock(stage.steps(), std::move(attempt_path), inner, bounds);
    };
    if (!stage.has_gate()) {
      Variables inner(&seen);
      inner.Set("feedback", std::exchange(feedback, Ref(nullptr)));
      TUTTI_CO_ASSIGN_OR_RETURN(last, co_await body(stage_path, inner));
      seen.Set(stage.id(), last);
      ++i;
      continue;
    }
    TUTTI_CO_ASSIGN_OR_RETURN(Gated gated, co_await RunGated(stage.gate(), stage_path, seen, bounds,
                                                             std::exchange(feedback, Ref(nullptr)), body));
    if (gated.verdict.passed) {
      last = gated.output;
      seen.Set(stage.id(), last);
      ++i;
      continue;
    }
    const auto& gate = stage.gate();
    if (!gate.go_back_to().empty() &&
        returns[at] < std::max(1, gate.max_returns()) * (1 + history_.forgiven_gates(stage_path))) {
      ++returns[at];
      int back = 0;
      while (step.stages(back).id() != gate.go_back_to()) ++back;
      for (int undone = i; undone >= back; --undone) {  // what is done again must not stand twice
        TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(step_path::Below(path, step.stages(undone).id()), bounds));
      }
      feedback = Ref(gated.verdict.feedback);
      i = back;
      continue;
    }
    if (!gate.fallback().empty()) {
      TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(gated.path, bounds));
      Variables inner(&seen);
      inner.Set("feedback", Ref(gated.verdict.feedback));
      TUTTI_CO_ASSIGN_OR_RETURN(
          last,
          co_await RunBlock(gate.fallback(), step_path::Below(stage_path, step_path::kGateFallback), inner, bounds));
      seen.Set(stage.id(), last);
      ++i;
      continue;
    }
    int attempts = std::max(1, gate.max_attempts()) * (1 + history_.forgiven_gates(stage_path));
    absl::Status failed = Error(absl::StatusCode::kFailedPrecondition, "GATE_FAILED",
                                absl::StrCat("stage ", stage_path, " did not pass its quality gate after ", attempts,
                                             attempts == 1 ? " attempt: " : " attempts: ", gated.verdict.feedback))
                              .Metadata("stage", stage_path)
                              .Metadata("step", stage_path);
    co_return failed;
  }
  co_return last;
}

// One critic of a panel.
Task<bool> Interpreter::AskCritic(const tutti::workflow::v1::Critic& critic, std::string path,
                                  const Variables& variables, Bounds bounds, Result& out) {
  Variables inner(&variables);
  out = co_await RunBlock(critic.steps(), std::move(path), inner, bounds);
  co_return out.ok();
}

// What the critic, or the panel together, says: {score, feedback, …}.
Task<Interpreter::Result> Interpreter::Critique(const tutti::workflow::v1::ReflectStep& step, std::string path,
                                                const Variables& variables, Bounds bounds) {
  if (step.panel().empty()) {
    Variables inner(&variables);
    TUTTI_CO_ASSIGN_OR_RETURN(JsonRef said, co_await RunBlock(step.critique(), path, inner, bounds));
    TUTTI_CO_ASSIGN_OR_RETURN(double score, ScoreOf(*said, path, step.rubric()));
    if (said->is_object() && said->contains("score")) co_return said;
    Json with_score = said->is_object() ? *said : Json::object();
    with_score["score"] = score;
    co_return Ref(std::move(with_score));
  }
  std::vector<Result> said(static_cast<size_t>(step.panel_size()), Ref(nullptr));
  std::vector<Task<bool>> asked;
  for (int i = 0; i < step.panel_size(); ++i) {
    asked.push_back(AskCritic(step.panel(i), step_path::Below(path, step.panel(i).id()), variables, bounds,
                              said[static_cast<size_t>(i)]));
  }
  co_await Join(std::move(asked));
  double sum = 0, weights = 0;
  std::string feedback;
  Json votes = Json::array();
  for (int i = 0; i < step.panel_size(); ++i) {
    const auto& critic = step.panel(i);
    TUTTI_CO_ASSIGN_OR_RETURN(JsonRef answer, said[static_cast<size_t>(i)]);
    TUTTI_CO_ASSIGN_OR_RETURN(double score, ScoreOf(*answer, step_path::Below(path, critic.id()), step.rubric()));
    double weight = critic.weight() == 0 ? 1 : critic.weight();
    sum += weight * score;
    weights += weight;
    std::string text = FeedbackOf(*answer);
    if (!text.empty()) absl::StrAppend(&feedback, feedback.empty() ? "" : "\n", critic.id(), ": ", text);
    votes.push_back({{"critic", critic.id()}, {"score", score}, {"weight", weight}, {"feedback", text}});
  }
  co_return Ref(Json{{"score", sum / weights}, {"feedback", feedback}, {"votes", std::move(votes)}});
}

Task<Interpreter::Result> Interpreter::RecallLessons(const tutti::workflow::v1::ReflectStep& step, std::string path,
                                                     Bounds bounds) {
  if (!step.has_lessons()) co_return Ref(Json::array());
  std::function<Task<Result>()> effect = [this, &step, &bounds]() -> Task<Result> {
    CallContext call = NewCall(bounds);
    int limit = step.lessons().limit() == 0 ? kDefaultLessons : step.lessons().limit();
    auto lessons = co_await deps_.effects.lessons.Recall(call, step.lessons().agent(),
                                                         DumpJson(subject_.input).substr(0, 4000), limit);
    if (!lessons.ok()) co_return Ref(Json::array());  // memory helps; a run does not fail without it
    co_return Ref(Json(*lessons));
  };
  auto result = co_await Record(step_path::Below(path, "lessons"), "lessons", step.lessons().agent(), std::move(effect),
                                bounds.replay_only);
  co_return result;
}

Task<absl::Status> Interpreter::LearnLesson(const tutti::workflow::v1::ReflectStep& step, std::string path,
                                            std::string lesson, double score, Bounds bounds) {
  if (!step.has_lessons() || lesson.empty()) co_return absl::OkStatus();
  std::string learn_path = step_path::Below(path, "learn");
  std::function<Task<Result>()> effect = [this, &step, &bounds, &learn_path, &lesson, score]() -> Task<Result> {
    TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Barrier());
    CallContext call = NewCall(bounds);
    Attempt attempt{subject_.run_id, learn_path, absl::StrCat(subject_.run_id, "/", learn_path, "/1")};
    // What was hard to get right is worth more.
    absl::Status kept = co_await deps_.effects.lessons.Learn(call, std::move(attempt), step.lessons().agent(), lesson,
                                                             std::clamp(1 - score / 2, 0.1, 1.0));
    co_return Ref(Json{{"lesson", lesson}, {"kept", kept.ok()}});
  };
  auto learned = co_await Record(learn_path, "lessons", step.lessons().agent(), std::move(effect), bounds.replay_only);
  co_return learned.status();
}

Task<Interpreter::Result> Interpreter::RunReflect(const tutti::workflow::v1::ReflectStep& step, std::string path,
                                                  const Variables& variables, Bounds bounds) {
  const int rounds = step.max_rounds() == 0 ? kDefaultRounds : step.max_rounds();
  const double threshold = step.has_threshold() ? step.threshold() : kDefaultReflectThreshold;
  JsonRef draft = Ref(nullptr), critique = Ref(nullptr), best;
  Variables around(&variables);
  Json rubric = Json::array();
  for (const auto& criterion : step.rubric()) {
    rubric.push_back({{"name", criterion.name()},
                      {"description", criterion.description()},
                      {"weight", criterion.weight() == 0 ? 1 : criterion.weight()}});
  }
  around.Set("rubric", Ref(std::move(rubric)));
  TUTTI_CO_ASSIGN_OR_RETURN(JsonRef lessons, co_await RecallLessons(step, path, bounds));
  around.Set("lessons", lessons);
  double best_score = -1, first_score = 0;
  int without_gain = 0;
  std::string first_feedback;
  int made_rounds = 0;
  // Money, tokens, calls, or the budget's time.
  auto is_spent = [&](const absl::Status& status) {
    return ReasonOf(status) == "BUDGET_EXCEEDED" ||
           (!status.ok() && !EndsWalk(status) && deps_.clock.Now() >= bounds.budget_end);
  };
  for (int round = 1; round <= rounds; ++round) {
    std::string round_path = step_path::Below(path, step_path::kRound, round);
    Variables inner(&around);
    inner.Set("round", Ref(round));
    inner.Set("draft", draft);
    inner.Set("critique", critique);
    bool first = round == 1 || step.improve().empty();
    auto made = co_await RunBlock(first ? step.generate() : step.improve(),
                                  step_path::Below(round_path, first ? "generate" : "improve"), inner, bounds);
    // Without the means for another version the best one so far stands.
    if (is_spent(made.status()) && best != nullptr) break;
    TUTTI_CO_RETURN_IF_ERROR(made.status());
    draft = *made;
    progress_.Reach(step, (round - 0.5) / rounds);
    inner.Set("draft", draft);
    std::string critique_path = step_path::Below(round_path, "critique");
    auto judged = co_await Critique(step, critique_path, inner, bounds);
    if (is_spent(judged.status())) {
      if (best == nullptr) best = draft;
      break;
    }
    TUTTI_CO_RETURN_IF_ERROR(judged.status());
    critique = *judged;
    made_rounds = round;
    progress_.Reach(step, static_cast<double>(round) / rounds);
    TUTTI_CO_ASSIGN_OR_RETURN(double score, ScoreOf(*critique, critique_path, step.rubric()));
    if (round == 1) {
      first_feedback = FeedbackOf(*critique);
      first_score = score;
    }
    if (score > best_score) {
      best_score = score;
      best = draft;
      without_gain = 0;
    } else {
      ++without_gain;
    }
    if (best_score >= threshold || (step.patience() > 0 && without_gain >= step.patience())) break;
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await LearnLesson(step, path, first_feedback, first_score, bounds));
  if (deps_.observer && made_rounds > 0 && !HasEnded(path)) {
    deps_.observer->Rounds("reflect", made_rounds, best_score);
  }
  co_return best;
}

}  // namespace tutti::engine
