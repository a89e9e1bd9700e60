// Steps that an agent proposes.
#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/json/proto_json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/spec_search.h"

namespace tutti::engine {
namespace {

using tutti::workflow::v1::Step;
using tutti::workflow::v1::WorkflowSpec;

constexpr int kDefaultSteps = 20;

// Nothing that waits for people, undoes, judges for ever or proposes again.
absl::Status CheckKinds(const WorkflowSpec& proposed, int most) {
  int count = 0;
  std::string wrong;
  VisitSteps(proposed, [&](const Step& step) {
    ++count;
    bool allowed = step.has_agent() || step.has_tool() || step.has_transform() || step.has_http() ||
                   step.has_parallel() || step.has_for_each();
    if (!allowed && wrong.empty()) wrong = absl::StrCat("step ", step.id(), " is of a kind that may not be proposed");
    if (!step.compensation().empty() || step.has_retry()) {
      wrong = absl::StrCat("step ", step.id(), " has a compensation or a retry, which may not be proposed");
    }
  });
  if (count > most) wrong = absl::StrCat(count, " steps are proposed, at most ", most, " may be");
  return wrong.empty() ? absl::OkStatus() : absl::InvalidArgumentError(wrong);
}

}  // namespace

Task<Interpreter::Result> Interpreter::RunAdaptive(const tutti::workflow::v1::AdaptiveStep& step, std::string path,
                                                   const Variables& variables, Bounds bounds) {
  Json request = {{"steps", Json::array()}};
  if (step.has_task()) {
    TUTTI_CO_ASSIGN_OR_RETURN(request["task"], co_await Expand(ToJson(step.task()), variables));
  } else {
    request["task"] = *variables.Find("input");
  }
  for (const auto& planned : step.steps()) request["steps"].push_back(MessageToJson(planned));
  request["agents"] = Json::array();
  request["tools"] = Json::array();
  KnownNames known = deps_.known();
  for (const auto& agent : spec_.agents()) known.agents[agent.name()] = agent.role();
  for (const auto& [name, role] : known.agents) request["agents"].push_back({{"name", name}, {"role", role}});
  for (const auto& [name, what] : known.tools) request["tools"].push_back({{"name", name}, {"description", what}});
  auto proposal = co_await Ask(step.planner(), std::move(request), step_path::Below(path, "plan"), bounds);
  if (!proposal.ok() && (EndsWalk(proposal.status()) || bounds.stop.stop_requested())) co_return proposal;

  WorkflowSpec& proposed = proposed_.emplace_back();
  absl::Status good = proposal.status();
  if (good.ok()) {
    Json steps = {{"name", "proposed"},
                  {"steps", (*proposal)->is_object() ? (*proposal)->value("steps", Json()) : Json()}};
    good = JsonValueToProto(steps, &proposed);
  }
  *proposed.mutable_agents() = spec_.agents();
  if (good.ok()) good = CheckKinds(proposed, step.max_steps() == 0 ? kDefaultSteps : step.max_steps());
  if (good.ok() && !bounds.replay_only) good = deps_.validate(proposed);
  // What is taken is recorded: what is known of agents and tools may be another thing when this is walked again.
  std::function<Task<Result>()> say = [&good]() -> Task<Result> {
    co_return Ref(good.ok() ? Json{{"accepted", true}}
                            : Json{{"accepted", false}, {"reason", std::string(good.message()).substr(0, 2000)}});
  };
  TUTTI_CO_ASSIGN_OR_RETURN(JsonRef verdict, co_await Record(step_path::Below(path, "proposal"), "adaptive",
                                                             step.planner(), std::move(say), bounds.replay_only));
  Variables inner(&variables);
  bool accepted = verdict->value("accepted", false);
  const bool kept = progress_.Unfold(step, accepted ? proposed.steps() : step.steps());
  auto result = co_await RunBlock(accepted ? proposed.steps() : step.steps(),
                                  step_path::Below(path, accepted ? "proposed" : "planned"), inner, bounds);
  // Of a loop there may be many; nothing else refers to a proposal's steps, which have no compensations.
  if (!kept) proposed_.remove_if([&](const WorkflowSpec& other) { return &other == &proposed; });
  co_return result;
}

}  // namespace tutti::engine
