// A supervisor and its specialists: decompose, route, work, integrate, judge, refine.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/async/semaphore.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/routing.h"

namespace tutti::engine {
namespace {

constexpr double kDefaultThreshold = 0.7;
constexpr int kDefaultRounds = 2;
constexpr int kDefaultConcurrency = 8;
constexpr int kDefaultSubtasks = 50;
constexpr int kMostLevels = 3;
constexpr int kTries = 2;  // specialists that are asked for one subtask
constexpr size_t kMostWaiting = 100000;

int RoundsOf(const tutti::workflow::v1::SupervisorStep& step) {
  return 1 + (step.has_max_rounds() ? step.max_rounds() : kDefaultRounds);
}

std::string TextOf(const Json& object, const char* name) {
  if (!object.is_object() || !object.contains(name)) return "";
  const Json& value = object[name];
  return value.is_string() ? value.get<std::string>() : value.is_null() ? "" : DumpJson(value);
}

bool IsSubtaskId(const std::string& id) {
  return !id.empty() && id.size() <= 63 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return islower(c) || isdigit(c) || c == '_' || c == '-';
  });
}

absl::Status BadPlan(absl::string_view what) {
  return Error(absl::StatusCode::kFailedPrecondition, "BAD_PLAN", absl::StrCat("the decomposer's answer: ", what));
}

}  // namespace

struct Interpreter::Subtask {
  std::string id, text;
  std::vector<std::string> capabilities;
  std::vector<std::string> depends_on, followers;
  bool compound = false;
  size_t waits_for = 0;
  Turn ready;
  std::string path, agent;
  JsonRef result;
  bool stale = true;  // to be done in this round
};

struct Interpreter::Team {
  Team(const tutti::workflow::v1::SupervisorStep& step, Semaphore& permits) : step(step), permits(permits) {}
  const tutti::workflow::v1::SupervisorStep& step;
  Semaphore& permits;  // of all levels together
  std::string path;
  int depth = 1, round = 1, ended = 0;
  Json task, feedback;
  Bounds bounds;
  std::deque<Subtask> subtasks;
  absl::Status failure;

  Subtask& at(const std::string& id) {
    return *std::find_if(subtasks.begin(), subtasks.end(), [&](const auto& subtask) { return subtask.id == id; });
  }
};

// An agent that is no step of the spec.
Task<Interpreter::Result> Interpreter::Ask(std::string agent, Json input, std::string path, Bounds bounds) {
  Variables variables(&root_);
  variables.Set("request", Ref(std::move(input)));
  Step step;
  step.set_id("ask");
  step.mutable_agent()->set_agent(agent);
  // By reference: what users and agents write is no expression.
  step.mutable_agent()->mutable_input()->set_string_value("${ .request }");
  step.mutable_retry()->set_max_attempts(3);
  auto result = co_await RunStep(step, std::move(path), variables, bounds);
  co_return result;
}

Task<absl::Status> Interpreter::Decompose(Team& team, Json task, std::string path, int depth, Json feedback) {
  Json specialists = Json::array();
  for (const auto& specialist : team.step.specialists()) {
    specialists.push_back(
        {{"agent", specialist.agent()},
         {"capabilities", std::vector<std::string>(specialist.capabilities().begin(), specialist.capabilities().end())},
         {"expertise", std::vector<std::string>(specialist.expertise().begin(), specialist.expertise().end())}});
  }
  std::string strategy = team.step.strategy().empty() ? "parallel" : team.step.strategy();
  Json request = {{"task", std::move(task)}, {"strategy", strategy}, {"specialists", std::move(specialists)}};
  if (!feedback.is_null()) request["feedback"] = std::move(feedback);
  TUTTI_CO_ASSIGN_OR_RETURN(JsonRef answer,
                            co_await Ask(team.step.decomposer(), std::move(request), path, team.bounds));
  if (!answer->is_object() || !answer->contains("subtasks") || !(*answer)["subtasks"].is_array()) {
    co_return BadPlan("it must be an object with a list \"subtasks\"");
  }
  const Json& list = (*answer)["subtasks"];
  const auto most = static_cast<size_t>(team.step.max_subtasks() == 0 ? kDefaultSubtasks : team.step.max_subtasks());
  if (list.empty() || list.size() > most) {
    co_return BadPlan(absl::StrCat(list.size(), " subtasks, it must be 1 to ", most));
  }
  std::set<std::string> ids;
  for (const Json& item : list) {
    Subtask& subtask = team.subtasks.emplace_back();
    subtask.id = TextOf(item, "id");
    if (subtask.id.empty()) subtask.id = absl::StrCat("t", team.subtasks.size());
    if (!IsSubtaskId(subtask.id)) co_return BadPlan(absl::StrCat("\"", subtask.id, "\" is no id of a subtask"));
    if (!ids.insert(subtask.id).second) co_return BadPlan(absl::StrCat("two subtasks are called ", subtask.id));
    subtask.text = item.is_string() ? item.get<std::string>() : TextOf(item, "task");
    if (std::string capability = TextOf(item, "capability"); !capability.empty()) subtask.capabilities = {capability};
    if (item.is_object() && item.contains("capabilities") && item["capabilities"].is_array()) {
      for (const Json& capability : item["capabilities"]) {
        if (capability.is_string()) subtask.capabilities.push_back(capability.get<std::string>());
      }
    }
    if (std::string field = TextOf(item, "specialisation"); !field.empty()) {
      absl::StrAppend(&subtask.text, " (", field, ")");
    }
    subtask.compound = strategy == "hierarchical" && depth < kMostLevels && item.is_object() &&
                       item.contains("compound") && item["compound"] == Json(true);
    subtask.path = step_path::Below(team.path, absl::StrCat(step_path::kTask, subtask.id));
    if (strategy == "sequential") {
      if (team.subtasks.size() > 1) subtask.depends_on = {team.subtasks[team.subtasks.size() - 2].id};
    } else if (item.is_object() && item.contains("depends_on") && item["depends_on"].is_array()) {
      for (const Json& name : item["depends_on"]) {
        if (name.is_string()) subtask.depends_on.push_back(name.get<std::string>());
      }
    }
  }
  // In an order in which each comes after what it depends on; what is left over goes in a circle.
  std::set<std::string> ordered;
  for (bool grown = true; grown;) {
    grown = false;
    for (const Subtask& subtask : team.subtasks) {
      bool free = std::all_of(subtask.depends_on.begin(), subtask.depends_on.end(),
                              [&](const auto& name) { return ordered.count(name) > 0; });
      grown |= free && ordered.insert(subtask.id).second;
    }
  }
  for (Subtask& subtask : team.subtasks) {
    for (const auto& name : subtask.depends_on) {
      if (ids.count(name) == 0)
        co_return BadPlan(absl::StrCat(subtask.id, " depends on ", name, ", which is not there"));
      team.at(name).followers.push_back(subtask.id);
    }
    if (ordered.count(subtask.id) == 0) co_return BadPlan(absl::StrCat(subtask.id, " depends on itself, in a circle"));
  }
  co_return absl::OkStatus();
}

// One subtask: waits for what it depends on, finds who does it, has it done.
Task<bool> Interpreter::RunSubtask(Team& team, size_t index) {
  Subtask& subtask = team.subtasks[index];
  if (subtask.waits_for > 0) co_await Await(subtask.ready);
  bool ok = team.failure.ok();
  if (ok && subtask.stale) {
    Json results = Json::object();
    for (const auto& name : subtask.depends_on) results[name] = *team.at(name).result;
    if (subtask.compound) {
      Team inner(team.step, team.permits);
      inner.path = subtask.path;
      inner.depth = team.depth + 1;
      inner.task = {{"task", subtask.text}, {"results", results}};
      inner.feedback = team.feedback;
      inner.bounds = team.bounds;
      absl::Status done =
          co_await Decompose(inner, inner.task, step_path::Below(inner.path, "decompose"), inner.depth, Json(nullptr));
      if (done.ok()) done = co_await RunSubtasks(inner);
      Json parts = Json::object();
      for (const Subtask& part : inner.subtasks) parts[part.id] = part.result ? *part.result : Json(nullptr);
      subtask.result = Ref(std::move(parts));
      subtask.agent = "supervisor";
      if (!done.ok()) team.failure = done;
      ok = done.ok();
    } else {
      Json input = {{"task", team.task},
                    {"subtask", {{"id", subtask.id}, {"task", subtask.text}, {"capabilities", subtask.capabilities}}},
                    {"results", std::move(results)}};
      if (!team.feedback.is_null()) input["feedback"] = team.feedback;
      RouteQuestion question{subtask.text, subtask.capabilities, {}, [this](const std::string& agent) {
                               return DefinitionOf(agent) ? absl::StrCat(spec_.name(), "/", agent) : agent;
                             }};
      co_await team.permits.Acquire();
      ok = team.failure.ok();  // another may have failed while this one waited for its turn
      const int tries = ok ? std::min(kTries, team.step.specialists_size()) : 0;
      for (int attempt = 1; attempt <= tries; ++attempt) {
        std::string try_path = attempt == 1 ? subtask.path : step_path::Below(subtask.path, step_path::kTry, attempt);
        std::vector<RouteScore> ranked = Route(team.step, question, deps_.specialists);
        std::function<Task<Result>()> choose = [&ranked]() -> Task<Result> {
          Json candidates = Json::array();
          for (const RouteScore& score : ranked) {
            Json parts = {{"capability", score.capability},
                          {"success", score.success},
                          {"load", score.load},
                          {"specialisation", score.specialisation}};
            candidates.push_back({{"agent", score.agent}, {"score", score.score}, {"parts", std::move(parts)}});
          }
          std::string chosen = ranked[0].agent;
          co_return Ref(Json{{"agent", chosen}, {"candidates", std::move(candidates)}});
        };
        const std::string route_path = step_path::Below(try_path, "route");
        const std::string work_path = step_path::Below(try_path, "work");
        const StepHistory* known = history_.Find(work_path);
        // Counted when it was done: not when it is read again.
        const bool counts = !team.bounds.replay_only && (!known || (!known->result && !known->failed_for_good()));
        const StepHistory* routed = history_.Find(route_path);
        std::string name =
            question.name_of(routed && routed->result ? TextOf(*routed->result, "agent") : ranked[0].agent);
        // Before the choice is written: those that are chosen meanwhile see it.
        if (counts) deps_.specialists.Begin(name);
        auto route = co_await Record(route_path, "route", ranked[0].agent, std::move(choose), team.bounds.replay_only);
        if (!route.ok()) {
          if (counts) deps_.specialists.End(name, std::nullopt);
          team.failure = route.status();
          ok = false;
          break;
        }
        subtask.agent = TextOf(**route, "agent");
        auto done = co_await Ask(subtask.agent, input, work_path, team.bounds);
        ok = done.ok();
        const bool stopped = !ok && (EndsWalk(done.status()) || team.bounds.stop.stop_requested());
        // Nor does it say anything about who was not asked: no means, or no turn.
        const bool not_asked = absl::IsResourceExhausted(done.status()) || ReasonOf(done.status()) == "NO_TURN";
        if (counts) deps_.specialists.End(name, stopped || not_asked ? std::nullopt : std::optional<bool>(ok));
        if (ok) {
          subtask.result = *done;
          break;
        }
        question.failed.insert(subtask.agent);
        if (stopped || attempt == tries) {
          team.failure = done.status();
          break;
        }
      }
      team.permits.Release();
    }
  }
  if (ok) {
    ++team.ended;
    Advance(team);
  }
  for (const auto& name : subtask.followers) {
    Subtask& follower = team.at(name);
    if (--follower.waits_for == 0 || !ok) Give(follower.ready, ok);
  }
  co_return ok;
}

Task<absl::Status> Interpreter::RunSubtasks(Team& team) {
  std::vector<Task<bool>> tasks;
  for (Subtask& subtask : team.subtasks) {
    subtask.waits_for = subtask.depends_on.size();
  }
  for (size_t i = 0; i < team.subtasks.size(); ++i) tasks.push_back(RunSubtask(team, i));
  co_await Join(std::move(tasks));
  co_return team.failure;
}

void Interpreter::Advance(const Team& team) {
  if (team.depth > 1) return;
  const int rounds = team.step.judge().empty() ? 1 : RoundsOf(team.step);
  // Decomposing, the subtasks, integrating and judging.
  const double done = (1.0 + team.ended) / (2.0 + static_cast<double>(team.subtasks.size()));
  progress_.Reach(team.step, (team.round - 1 + done) / rounds);
}

Task<Interpreter::Result> Interpreter::RunSupervisor(const tutti::workflow::v1::SupervisorStep& step, std::string path,
                                                     const Variables& variables, Bounds bounds) {
  Semaphore permits(deps_.executor, step.max_concurrency() == 0 ? kDefaultConcurrency : step.max_concurrency(),
                    kMostWaiting);
  Team team(step, permits);
  team.bounds = bounds;
  if (step.has_task()) {
    TUTTI_CO_ASSIGN_OR_RETURN(team.task, co_await Expand(ToJson(step.task()), variables));
  } else {
    team.task = *variables.Find("input");
  }
  const int rounds = RoundsOf(step);
  const double threshold = step.has_threshold() ? step.threshold() : kDefaultThreshold;
  Json best;
  double best_score = -1;
  for (int round = 1; round <= rounds; ++round) {
    const std::string round_path = step_path::Below(path, step_path::kRound, round);
    team.path = round_path;
    team.round = round;
    team.ended = 0;
    if (round == 1) {
      TUTTI_CO_RETURN_IF_ERROR(
          co_await Decompose(team, team.task, step_path::Below(round_path, "decompose"), 1, Json(nullptr)));
    }
    Advance(team);
    for (Subtask& subtask : team.subtasks) {
      subtask.path = step_path::Below(round_path, absl::StrCat(step_path::kTask, subtask.id));
      // A Turn serves once; a new round needs new ones.
      std::destroy_at(&subtask.ready);
      std::construct_at(&subtask.ready);
    }
    TUTTI_CO_RETURN_IF_ERROR(co_await RunSubtasks(team));
    Json results = Json::object(), said = Json::array();
    for (const Subtask& subtask : team.subtasks) {
      results[subtask.id] = *subtask.result;
      said.push_back(
          {{"id", subtask.id}, {"task", subtask.text}, {"agent", subtask.agent}, {"result", *subtask.result}});
    }
    JsonRef output = Ref(said);
    if (!step.integrator().empty()) {
      Json request = {{"task", team.task}, {"results", said}};
      if (!team.feedback.is_null()) request["feedback"] = team.feedback;
      TUTTI_CO_ASSIGN_OR_RETURN(output, co_await Ask(step.integrator(), std::move(request),
                                                     step_path::Below(round_path, "integrate"), bounds));
    }
    double score = 1;
    Json verdict = Json::object();
    if (!step.judge().empty()) {
      std::string judge_path = step_path::Below(round_path, "judge");
      Json request = {{"task", team.task}, {"output", *output}, {"draft", *output}};
      TUTTI_CO_ASSIGN_OR_RETURN(JsonRef judged, co_await Ask(step.judge(), std::move(request), judge_path, bounds));
      TUTTI_CO_ASSIGN_OR_RETURN(score, ScoreOf(*judged, judge_path));
      verdict = *judged;
    }
    if (score > best_score) {
      best_score = score;
      best = {{"result", *output}, {"score", score}, {"rounds", round}, {"subtasks", std::move(said)}};
    }
    if (best_score >= threshold) break;
    // Back to those whose parts are wanting, and to those who build on them; to all, when the judge names none.
    team.feedback = FeedbackOf(verdict);
    std::set<std::string> again;
    if (verdict.contains("refine") && verdict["refine"].is_array()) {
      for (const Json& id : verdict["refine"]) {
        if (id.is_string() && results.contains(id.get<std::string>())) again.insert(id.get<std::string>());
      }
    }
    for (bool grown = true; grown;) {
      grown = false;
      for (const Subtask& subtask : team.subtasks) {
        if (again.count(subtask.id) == 0) continue;
        for (const auto& name : subtask.followers) grown |= again.insert(name).second;
      }
    }
    for (Subtask& subtask : team.subtasks) subtask.stale = again.empty() || again.count(subtask.id) > 0;
  }
  if (deps_.observer && !HasEnded(path)) deps_.observer->Rounds("supervisor", team.round, best_score);
  co_return Ref(std::move(best));
}

}  // namespace tutti::engine
