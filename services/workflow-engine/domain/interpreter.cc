// The walk: its beginning and end, blocks and graphs.
#include "services/workflow-engine/domain/interpreter.h"

#include <algorithm>
#include <functional>
#include <set>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/retry.h"

namespace tutti::engine {
namespace {
// No service's error carries it: what others call their errors cannot end a walk.
constexpr char kWalkEnd[] = "tutti.engine/walk-end";
}  // namespace

bool EndsWalk(const absl::Status& status) { return !status.ok() && status.GetPayload(kWalkEnd).has_value(); }

absl::Status WalkEnd(const absl::Status& status) {
  absl::Status out = status;
  out.SetPayload(kWalkEnd, absl::Cord("1"));
  return out;
}

const std::string& KindOf(const tutti::workflow::v1::Step& step) {
  static const std::string kNone;
  if (step.kind_case() == tutti::workflow::v1::Step::KIND_NOT_SET) return kNone;
  return tutti::workflow::v1::Step::descriptor()->FindFieldByNumber(step.kind_case())->name();
}

const std::string& TargetOf(const tutti::workflow::v1::Step& step) {
  static const std::string kNone;
  if (step.has_agent()) return step.agent().agent();
  if (step.has_tool()) return step.tool().tool();
  if (step.has_sub_workflow()) return step.sub_workflow().workflow();
  if (step.has_wait_for_signal()) return step.wait_for_signal().signal();
  return kNone;
}

bool IsBlock(const tutti::workflow::v1::Step& step) { return IsBlockKind(KindOf(step)); }

Json ErrorToJson(const absl::Status& error) {
  int attempt = 1;
  (void)absl::SimpleAtoi(MetadataOf(error, "attempt"), &attempt);
  return {{"code", absl::StatusCodeToString(error.code())},
          {"reason", ReasonOf(error)},
          {"message", std::string(error.message())},
          {"step", MetadataOf(error, "step")},
          {"attempt", attempt}};
}

Interpreter::Interpreter(InterpreterDeps deps, RunSubject subject, const tutti::workflow::v1::WorkflowSpec& spec,
                         History history, std::stop_token halt, std::stop_token cancel)
    : deps_(std::move(deps)),
      subject_(std::move(subject)),
      spec_(spec),
      history_(std::move(history)),
      halt_(std::move(halt)),
      cancel_(std::move(cancel)),
      on_halt_(halt_, [this] { stop_.request_stop(); }),
      on_cancel_(cancel_, [this] { stop_.request_stop(); }),
      progress_(spec),
      order_(history_.last_seq()),
      signals_(history_.signals()),
      paused_(history_.paused()),
      inbox_(std::max(history_.inbox(), subject_.inbox)),
      delivered_seq_(history_.last_seq()) {
  root_.Set("input", Ref(subject_.input));
  root_.Set("run", Ref(Json{{"id", subject_.run_id}, {"workflow", spec.name()}}));
  bounds_.stop = stop_.get_token();
  bounds_.trace = subject_.trace;
  bounds_.priority = subject_.priority;
  evaluation_.tenant = subject_.tenant;
  evaluation_.executor = &deps_.executor;
  evaluation_.long_ones = &computing_;
  // The same each time the run is walked: an expression steers it the same way again.
  evaluation_.now = std::min(subject_.start_time, deps_.clock.Now());
  evaluation_.stopped = [this] {
    return halt_.stop_requested() || (cancel_.stop_requested() && !undoing_.load(std::memory_order_relaxed));
  };
  const absl::Time start = std::max(std::min(subject_.start_time, deps_.clock.Now()), history_.reopen_time());
  if (spec.has_timeout()) bounds_.deadline = start + FromProto(spec.timeout());
  // Also without bounds: it knows what the run consumes, with those that it starts.
  bounds_.budget = std::make_shared<Budget>(spec.budget(), "", nullptr, history_.SpentBelow(""));
  bounds_.results = std::make_shared<ResultMeter>(deps_.tenant_results, kMaxRunResults, "the run");
  if (spec.budget().has_time()) {
    bounds_.budget_end = start + FromProto(spec.budget().time());
    bounds_.deadline = std::min(bounds_.deadline, bounds_.budget_end);
  }
}

absl::Status Interpreter::ExpressionChanged(const std::string& path, const std::string& other) const {
  if (expression_version() != 0 || !history_.KnowsBelow(other)) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "EXPRESSION_CHANGED",
               absl::StrCat("step ", path, " was begun by version 0.1 and went by ", other,
                            "; its expression now leads another way (docs/expressions.md); fork the run from there"))
      .Metadata("step", path);
}

// The run's output: what its steps say, or a handler of the run's failure.
Task<absl::StatusOr<Json>> Interpreter::RunAll() {
  Variables variables(&root_);
  TUTTI_CO_ASSIGN_OR_RETURN(JsonRef last, co_await RunBlock(spec_.steps(), "", variables, bounds_));
  if (!spec_.has_output()) co_return Json(*last);
  auto output = co_await Expand(ToJson(spec_.output()), variables);
  co_return output;
}

Task<absl::StatusOr<Json>> Interpreter::Run() {
  auto result = co_await Walk();
  // A halt may come while the run is on its way out of memory: what writes that still needs the interpreter.
  if (parking_) co_await park_ended_.Wait(deps_.executor);
  // Whatever an error says that came while the walk was being halted: who walks it next finds out whether it is one.
  if (!result.ok() && halt_.stop_requested() && !EndsWalk(result.status())) {
    co_return WalkEnd(Error(absl::StatusCode::kAborted, "RUN_HALTED", "the run goes on elsewhere"));
  }
  co_return result;
}

Task<absl::StatusOr<Json>> Interpreter::Walk() {
  auto result = co_await RunAll();
  if (result.ok()) co_return result;
  if (halt_.stop_requested() || EndsWalk(result.status())) co_return result;
  if (ReasonOf(result.status()) == "EXPRESSION_CHANGED") co_return result;  // set aside as it is
  bool cancelled = cancel_.stop_requested();
  Bounds after = bounds_;
  after.stop = halt_;
  after.deadline = absl::InfiniteFuture();
  undoing_ = true;
  TUTTI_CO_RETURN_IF_ERROR(co_await Compensate("", after));
  if (cancelled) co_return absl::CancelledError("the run was asked to stop");
  if (spec_.on_error().empty()) co_return result;
  // What is done about the end of a budget is not bound by it.
  after.stop = bounds_.stop;
  after.budget = std::make_shared<Budget>(tutti::workflow::v1::StepBudget::default_instance(), "", nullptr, Spent());
  after.budget_end = absl::InfiniteFuture();
  auto caught = co_await Catch(spec_.on_error(), "", result.status(), root_, after);
  if (!caught.ok()) {
    // What the handler did goes the same way.
    if (!EndsWalk(caught.status())) TUTTI_CO_RETURN_IF_ERROR(co_await Compensate("", after));
    co_return caught.status();
  }
  co_return Json(**caught);
}

absl::Status Interpreter::Interrupted(const Bounds& bounds) const {
  if (bounds.stop.stop_requested()) return absl::CancelledError("the run was asked to stop");
  if (deps_.clock.Now() >= bounds.deadline) {
    return Error(absl::StatusCode::kDeadlineExceeded, "STEP_TIMEOUT",
                 "the time of the step or of one around it is over");
  }
  return absl::OkStatus();
}

Task<Interpreter::Result> Interpreter::RunBlock(const Steps& steps, std::string path, Variables& variables,
                                                Bounds bounds) {
  bool graph = std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.depends_on_size() > 0; });
  if (graph) {
    auto result = co_await RunGraph(steps, std::move(path), variables, bounds);
    co_return result;
  }
  JsonRef last = Ref(nullptr);
  for (const Step& step : steps) {
    std::string step_path = step_path::Below(path, step.id());
    TUTTI_CO_ASSIGN_OR_RETURN(last, co_await RunStep(step, std::move(step_path), variables, bounds));
    variables.Set(step.id(), last);
  }
  co_return last;
}

// The state of a block that runs as a graph. Everything happens on one executor.
struct Interpreter::Graph {
  Graph(Variables& variables, std::string path) : variables(variables), path(std::move(path)) {}
  struct Node {
    const Step* step = nullptr;
    size_t waits_for = 0;
    std::vector<std::string> followers;
    std::set<std::string> ancestors;
    Turn ready;
    JsonRef result;
  };
  Variables& variables;  // of the block, filled at its end
  const std::string path;
  Bounds bounds;
  std::stop_source stop;
  std::map<std::string, Node> nodes;
  absl::Status failure;  // the first
};

Task<bool> Interpreter::RunGraphStep(const Step& step, std::string path, Graph& graph) {
  Graph::Node& node = graph.nodes.at(step.id());
  if (node.waits_for > 0) co_await Await(node.ready);
  if (!graph.failure.ok()) {
    for (const auto& name : node.followers) Give(graph.nodes.at(name).ready, false);
    co_return false;
  }
  // Sees what it depends on and nothing else of the block: what else has ended by then is chance, and a replay would
  // see another.
  Variables seen(&graph.variables);
  for (const auto& name : node.ancestors) seen.Set(name, graph.nodes.at(name).result);
  auto result = co_await RunStep(step, std::move(path), seen, graph.bounds);
  if (result.ok()) {
    node.result = *result;
    for (const auto& name : node.followers) {
      if (--graph.nodes.at(name).waits_for == 0) Give(graph.nodes.at(name).ready, true);
    }
    co_return true;
  }
  if (graph.failure.ok() || EndsWalk(result.status())) graph.failure = result.status();
  if (!graph.bounds.replay_only) graph.stop.request_stop();  // what runs beside it is given up
  for (const auto& name : node.followers) Give(graph.nodes.at(name).ready, false);
  co_return false;
}

Task<Interpreter::Result> Interpreter::RunGraph(const Steps& steps, std::string path, Variables& variables,
                                                Bounds bounds) {
  Graph graph(variables, path);
  graph.bounds = bounds;
  graph.bounds.stop = graph.stop.get_token();
  std::stop_callback outer(bounds.stop, [&graph] { graph.stop.request_stop(); });
  for (const Step& step : steps) {
    auto& node = graph.nodes[step.id()];
    node.step = &step;
    node.waits_for = static_cast<size_t>(step.depends_on_size());
  }
  for (const Step& step : steps) {
    for (const auto& name : step.depends_on()) graph.nodes.at(name).followers.push_back(step.id());
  }
  std::function<void(const std::string&, std::set<std::string>&)> collect = [&](const std::string& id,
                                                                                std::set<std::string>& into) {
    for (const auto& name : graph.nodes.at(id).step->depends_on()) {
      if (into.insert(name).second) collect(name, into);
    }
  };
  for (const Step& step : steps) collect(step.id(), graph.nodes.at(step.id()).ancestors);
  std::vector<Task<bool>> tasks;
  for (const Step& step : steps) {
    tasks.push_back(RunGraphStep(step, step_path::Below(path, step.id()), graph));
  }
  const absl::Time begin = deps_.clock.Now();
  const bool ended_before = std::all_of(steps.begin(), steps.end(),
                                        [&](const Step& step) { return HasEnded(step_path::Below(path, step.id())); });
  co_await Join(std::move(tasks));
  if (EndsWalk(graph.failure)) co_return graph.failure;
  if (deps_.observer && !bounds.replay_only && !ended_before) {
    deps_.observer->Ended("graph", graph.failure.ok(), deps_.clock.Now() - begin);
  }
  if (bounds.stop.stop_requested()) co_return absl::CancelledError("the run was asked to stop");
  if (!graph.failure.ok()) co_return graph.failure;
  Json out = Json::object();
  for (const auto& [id, node] : graph.nodes) {
    variables.Set(id, node.result);
    if (node.followers.empty()) out[id] = *node.result;
  }
  co_return Ref(std::move(out));
}

}  // namespace tutti::engine
