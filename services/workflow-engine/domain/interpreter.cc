// The walk itself: blocks, steps, attempts, and the steps that are leaves. The patterns are in patterns.cc.
#include "services/workflow-engine/domain/interpreter.h"

#include <algorithm>
#include <functional>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/workflow-engine/domain/retry.h"

namespace tutti::engine {
namespace {

constexpr absl::Duration kDefaultCallTimeout = absl::Seconds(300);
constexpr size_t kMaxResultBytes = 4 << 20;

bool IsLeaf(const tutti::workflow::v1::Step& step) {
  using Step = tutti::workflow::v1::Step;
  return step.kind_case() == Step::kAgent || step.kind_case() == Step::kTool || step.kind_case() == Step::kTransform;
}

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  int64_t nanos = absl::ToUnixNanos(time);
  out->set_seconds(nanos / 1000000000);
  out->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

// An error that must end the walk without a trace in the journal: the lease is lost, or somebody asked to stop.
bool EndsWalk(const absl::Status& status) {
  return status.code() == absl::StatusCode::kAborted && ReasonOf(status) == "LEASE_LOST";
}

}  // namespace

absl::StatusOr<Json> CheckResult(Json result, tutti::type::v1::Payload* out) {
  ToPayload(result, out);
  if (out->data().size() > kMaxResultBytes) {
    return Error(absl::StatusCode::kFailedPrecondition, "RESULT_TOO_LARGE",
                 absl::StrCat("the result has ", out->data().size(), " bytes, the limit is ", kMaxResultBytes,
                              "; pass large things by reference"));
  }
  if (JsonDepth(out->data()) > kMaxJsonDepth) {
    return Error(absl::StatusCode::kFailedPrecondition, "RESULT_TOO_DEEP",
                 absl::StrCat("the result is nested deeper than ", kMaxJsonDepth, " levels"));
  }
  return result;
}

std::string KindOf(const tutti::workflow::v1::Step& step) {
  const auto* oneof = step.GetDescriptor()->FindOneofByName("kind");
  const auto* field = step.GetReflection()->GetOneofFieldDescriptor(step, oneof);
  return field ? field->name() : "";
}

std::string TargetOf(const tutti::workflow::v1::Step& step) {
  return step.has_agent() ? step.agent().agent() : step.has_tool() ? step.tool().tool() : "";
}

Interpreter::Interpreter(InterpreterDeps deps, std::string run_id, const tutti::workflow::v1::WorkflowSpec& spec,
                         Json input, History history, TraceContext trace, std::stop_token stop)
    : deps_(deps), run_id_(std::move(run_id)), spec_(spec), history_(std::move(history)), progress_(spec) {
  root_.Set("input", std::make_shared<const Json>(std::move(input)));
  root_.Set("run", std::make_shared<const Json>(Json{{"id", run_id_}, {"workflow", spec.name()}}));
  bounds_.stop = std::move(stop);
  bounds_.trace = trace;
  if (spec.has_timeout()) bounds_.deadline = deps_.clock.Now() + FromProto(spec.timeout());
}

Task<absl::StatusOr<Json>> Interpreter::Run() {
  Variables variables(&root_);
  TUTTI_CO_ASSIGN_OR_RETURN(JsonRef last, co_await RunBlock(spec_.steps(), "", variables, bounds_));
  if (!spec_.has_output()) co_return Json(*last);
  auto output = deps_.evaluator.Expand(ToJson(spec_.output()), variables);
  co_return output;
}

tutti::state::v1::JournalEntry Interpreter::NewEntry() const {
  tutti::state::v1::JournalEntry entry;
  SetTime(deps_.clock.Now(), entry.mutable_time());
  entry.set_progress_percent(progress_percent());
  return entry;
}

absl::Status Interpreter::Interrupted(const Bounds& bounds) const {
  if (bounds.stop.stop_requested()) return absl::CancelledError("the run was asked to stop");
  if (deps_.clock.Now() >= bounds.deadline) {
    return Error(absl::StatusCode::kDeadlineExceeded, "STEP_TIMEOUT",
                 "the time of the step or of one around it is over");
  }
  return absl::OkStatus();
}

CallContext Interpreter::NewCall(const Bounds& bounds) {
  CallContext call(deps_.executor, deps_.tracer);
  call.deadline = bounds.deadline;
  call.stop = bounds.stop;
  call.trace = bounds.trace;
  return call;
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunBlock(const Steps& steps, std::string path, Variables& variables,
                                                    Bounds bounds) {
  bool graph = std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.depends_on_size() > 0; });
  if (graph) {
    auto result = co_await RunGraph(steps, std::move(path), variables, bounds);
    co_return result;
  }
  JsonRef last = std::make_shared<const Json>(nullptr);
  for (const Step& step : steps) {
    std::string step_path = path.empty() ? step.id() : absl::StrCat(path, "/", step.id());
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
    OneShot<bool> ready;
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
  if (node.waits_for > 0) co_await node.ready.Wait(deps_.executor);
  if (!graph.failure.ok()) {
    for (const auto& name : node.followers) graph.nodes.at(name).ready.Set(false);
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
      if (--graph.nodes.at(name).waits_for == 0) graph.nodes.at(name).ready.Set(true);
    }
    co_return true;
  }
  if (graph.failure.ok()) graph.failure = result.status();
  graph.stop.request_stop();  // what runs beside it is given up
  for (const auto& name : node.followers) graph.nodes.at(name).ready.Set(false);
  co_return false;
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunGraph(const Steps& steps, std::string path, Variables& variables,
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
    tasks.push_back(RunGraphStep(step, path.empty() ? step.id() : absl::StrCat(path, "/", step.id()), graph));
  }
  co_await WhenAll(std::move(tasks));
  if (bounds.stop.stop_requested()) co_return absl::CancelledError("the run was asked to stop");
  if (!graph.failure.ok()) co_return graph.failure;
  Json out = Json::object();
  for (const auto& [id, node] : graph.nodes) {
    variables.Set(id, node.result);
    if (node.followers.empty()) out[id] = *node.result;
  }
  co_return std::make_shared<const Json>(std::move(out));
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunStep(const Step& step, std::string path, const Variables& variables,
                                                   Bounds bounds) {
  const StepHistory* known = history_.Find(path);
  if (known && known->result && (IsLeaf(step) || known->skipped)) {
    progress_.Complete(step);
    co_return known->result;
  }
  if (absl::Status interrupted = Interrupted(bounds); !interrupted.ok()) {
    if (bounds.stop.stop_requested()) co_return interrupted;
    // Time is over before the step began. Recorded, or a replay, whose time begins anew, would go another way.
    if (known && known->failed_attempts > 0 && known->retry_time == absl::InfiniteFuture()) co_return known->last_error;
    auto entry = NewEntry();
    entry.mutable_step_failed()->set_path(path);
    entry.mutable_step_failed()->set_kind(KindOf(step));
    entry.mutable_step_failed()->set_attempt(known ? known->failed_attempts + 1 : 1);
    entry.mutable_step_failed()->set_target(TargetOf(step));
    *entry.mutable_step_failed()->mutable_error() = ToRpcStatus(interrupted);
    TUTTI_CO_RETURN_IF_ERROR(co_await deps_.journal.Commit(std::move(entry)));
    co_return interrupted;
  }
  if (!step.when().empty() && !(known && known->started)) {
    auto holds = deps_.evaluator.EvaluateCondition(step.when(), variables);
    if (!holds.ok()) co_return Prefix(holds.status(), absl::StrCat("step ", path, ": when: "));
    if (!*holds) {
      progress_.Complete(step);
      auto entry = NewEntry();
      auto* completed = entry.mutable_step_completed();
      completed->set_path(path);
      completed->set_kind(KindOf(step));
      completed->set_skipped(true);
      ToPayload(nullptr, completed->mutable_result());
      TUTTI_CO_RETURN_IF_ERROR(co_await deps_.journal.Commit(std::move(entry)));
      co_return std::make_shared<const Json>(nullptr);
    }
  }
  int attempt = known ? known->failed_attempts + 1 : 1;
  if (known && known->failed_attempts > 0) {
    if (known->retry_time == absl::InfiniteFuture()) co_return known->last_error;
    if (!co_await Sleep(deps_.timers, deps_.executor, known->retry_time - deps_.clock.Now(), bounds.stop)) {
      co_return absl::CancelledError("the run was asked to stop");
    }
  }
  RetryDecision retry(step, deps_.rng);
  for (;; ++attempt) {
    auto result = co_await RunAttempt(step, path, attempt, variables, bounds);
    if (result.ok()) co_return result;
    if (EndsWalk(result.status()) || bounds.stop.stop_requested()) co_return result;
    bool again = retry.ShouldRetry(result.status(), attempt) && Interrupted(bounds).ok();
    absl::Duration wait = again ? retry.Backoff(result.status(), attempt) : absl::ZeroDuration();
    wait = std::min(wait, bounds.deadline - deps_.clock.Now());
    auto entry = NewEntry();
    auto* failed = entry.mutable_step_failed();
    failed->set_path(path);
    failed->set_kind(KindOf(step));
    failed->set_attempt(attempt);
    failed->set_target(TargetOf(step));
    *failed->mutable_error() = ToRpcStatus(result.status());
    if (again) SetTime(deps_.clock.Now() + wait, failed->mutable_retry_time());
    TUTTI_CO_RETURN_IF_ERROR(co_await deps_.journal.Commit(std::move(entry)));
    if (!again) co_return result;
    if (!co_await Sleep(deps_.timers, deps_.executor, wait, bounds.stop)) {
      co_return absl::CancelledError("the run was asked to stop");
    }
  }
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunAttempt(const Step& step, std::string path, int attempt,
                                                      const Variables& variables, Bounds bounds) {
  if (step.has_timeout()) {
    bounds.deadline = std::min(bounds.deadline, deps_.clock.Now() + FromProto(step.timeout()));
  } else if (IsLeaf(step)) {
    bounds.deadline = std::min(bounds.deadline, deps_.clock.Now() + kDefaultCallTimeout);
  }
  auto started = NewEntry();
  started.mutable_step_started()->set_path(path);
  started.mutable_step_started()->set_kind(KindOf(step));
  started.mutable_step_started()->set_attempt(attempt);
  started.mutable_step_started()->set_target(TargetOf(step));
  deps_.journal.Post(std::move(started));
  // Blocks begin anew with each attempt: their steps are other steps then.
  std::string inner_path = IsLeaf(step) || attempt == 1 ? path : absl::StrCat(path, "/attempt-", attempt);
  std::string key = absl::StrCat(run_id_, "/", path, "/", attempt);
  std::vector<tutti::type::v1::ModelUsage> usage;
  auto result = co_await RunKind(step, inner_path, std::move(key), variables, bounds, usage);
  if (!result.ok()) {
    if (EndsWalk(result.status()) || !IsLeaf(step)) co_return result;
    co_return Prefix(result.status(), absl::StrCat("step ", path, ": "));
  }
  tutti::type::v1::Payload payload;
  if (IsLeaf(step)) {
    auto fits = CheckResult(**result, &payload);
    if (!fits.ok()) co_return Prefix(fits.status(), absl::StrCat("step ", path, ": "));
  }
  progress_.Complete(step);
  auto entry = NewEntry();
  auto* completed = entry.mutable_step_completed();
  completed->set_path(path);
  completed->set_kind(KindOf(step));
  completed->set_attempt(attempt);
  completed->set_target(TargetOf(step));
  for (auto& item : usage) *completed->add_usage() = std::move(item);
  if (IsLeaf(step)) {
    *completed->mutable_result() = std::move(payload);
    TUTTI_CO_RETURN_IF_ERROR(co_await deps_.journal.Commit(std::move(entry)));
  } else {
    deps_.journal.Post(std::move(entry));  // its steps are durable; its own end follows from theirs
  }
  co_return result;
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunKind(const Step& step, std::string path, std::string key,
                                                   const Variables& variables, Bounds bounds,
                                                   std::vector<tutti::type::v1::ModelUsage>& usage) {
  switch (step.kind_case()) {
    case Step::kAgent: {
      auto result = co_await RunAgent(step.agent(), std::move(path), std::move(key), variables, bounds, usage);
      co_return result;
    }
    case Step::kTool: {
      auto result = co_await RunTool(step.tool(), std::move(path), std::move(key), variables, bounds);
      co_return result;
    }
    case Step::kTransform: {
      TUTTI_CO_ASSIGN_OR_RETURN(Json value, deps_.evaluator.Expand(ToJson(step.transform().value()), variables));
      co_return std::make_shared<const Json>(std::move(value));
    }
    case Step::kSwitch: {
      auto result = co_await RunSwitch(step.switch_(), std::move(path), variables, bounds);
      co_return result;
    }
    case Step::kParallel: {
      auto result = co_await RunParallel(step.parallel(), std::move(path), variables, bounds);
      co_return result;
    }
    case Step::kPipeline: {
      auto result = co_await RunPipeline(step.pipeline(), std::move(path), variables, bounds);
      co_return result;
    }
    case Step::kReflect: {
      auto result = co_await RunReflect(step.reflect(), std::move(path), variables, bounds);
      co_return result;
    }
    default:
      co_return absl::InternalError(absl::StrCat("step ", path, " has no kind"));
  }
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunAgent(const tutti::workflow::v1::AgentStep& step, std::string path,
                                                    std::string key, const Variables& variables, Bounds bounds,
                                                    std::vector<tutti::type::v1::ModelUsage>& usage) {
  Json input;
  if (step.has_input()) {
    TUTTI_CO_ASSIGN_OR_RETURN(input, deps_.evaluator.Expand(ToJson(step.input()), variables));
  } else {
    input = *variables.Find("input");
  }
  const tutti::agent::v1::Agent* definition = nullptr;
  for (const auto& agent : spec_.agents()) {
    if (agent.name() == step.agent()) definition = &agent;
  }
  CallContext call = NewCall(bounds);
  Attempt attempt{run_id_, std::move(path), std::move(key)};
  TUTTI_CO_ASSIGN_OR_RETURN(AgentAnswer answer, co_await deps_.agents.Execute(call, std::move(attempt), step.agent(),
                                                                              definition, std::move(input)));
  usage = std::move(answer.usage);
  co_return std::make_shared<const Json>(std::move(answer.output));
}

Task<absl::StatusOr<JsonRef>> Interpreter::RunTool(const tutti::workflow::v1::ToolStep& step, std::string path,
                                                   std::string key, const Variables& variables, Bounds bounds) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json parameters, deps_.evaluator.Expand(ToJson(step.parameters()), variables));
  CallContext call = NewCall(bounds);
  Attempt attempt{run_id_, std::move(path), std::move(key)};
  TUTTI_CO_ASSIGN_OR_RETURN(Json result,
                            co_await deps_.tools.Execute(call, std::move(attempt), step.tool(), std::move(parameters)));
  co_return std::make_shared<const Json>(std::move(result));
}

}  // namespace tutti::engine
