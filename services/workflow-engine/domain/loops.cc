// The same for each item; again while something holds.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/spec_search.h"

namespace tutti::engine {
namespace {

constexpr size_t kMaxItems = 100000;
constexpr int kDefaultIterations = 1000;
// A recovery reads at most so many iterations again.
constexpr int kCheckpointEvery = 500;
constexpr size_t kCheckpointBytes = size_t{16} << 20;  // of results since the last one
// Iterations that may only compute, before others have their turn on the loop.
constexpr int kTurn = 64;

}  // namespace

// Others run; what was posted is durable.
Task<absl::Status> Interpreter::GiveWay() {
  ++computing_;
  co_await ResumeOn(deps_.executor);
  absl::Status durable = co_await deps_.effects.journal.Barrier();
  --computing_;
  co_return durable;
}

struct Interpreter::Items {
  Items(const tutti::workflow::v1::ForEachStep& step, const Variables& variables, std::string path, Json list)
      : step(step), variables(variables), path(std::move(path)), list(std::move(list)), results(this->list.size()) {}
  const tutti::workflow::v1::ForEachStep& step;
  const Variables& variables;
  const std::string path;
  const Json list;
  Bounds bounds;
  std::stop_source stop;
  size_t next = 0, ended = 0;
  std::vector<JsonRef> results;
  absl::Status failure;
};

// One of `max_concurrency` walkers: takes the next item until none is left.
Task<bool> Interpreter::RunItems(Items& all) {
  while (all.next < all.list.size()) {
    const bool replay = all.bounds.replay_only;
    if (!replay && !all.failure.ok() && (!all.step.allow_failures() || EndsWalk(all.failure))) co_return false;
    size_t i = all.next++;
    Variables inner(&all.variables);
    inner.Set("item", Ref(all.list[i]));
    inner.Set("index", Ref(i));
    std::string path = step_path::Item(all.path, i);
    if (i % kTurn == kTurn - 1) {
      absl::Status durable = co_await GiveWay();
      if (!durable.ok()) {
        all.failure = durable;
        break;
      }
    }
    auto result = co_await RunBlock(all.step.steps(), path, inner, all.bounds);
    progress_.Reach(all.step, static_cast<double>(++all.ended) / static_cast<double>(all.list.size()));
    if (result.ok()) {
      all.results[i] = *result;
      continue;
    }
    if (all.failure.ok() || EndsWalk(result.status())) all.failure = result.status();
    if (!replay && (!all.step.allow_failures() || EndsWalk(result.status()))) {
      all.stop.request_stop();
    } else if (!all.step.allow_failures()) {
      continue;
    } else if (!all.bounds.stop.stop_requested()) {
      absl::Status undone = co_await Compensate(path, all.bounds);
      if (!undone.ok()) all.failure = undone;
    }
  }
  co_return true;
}

Task<Interpreter::Result> Interpreter::RunForEach(const tutti::workflow::v1::ForEachStep& step, std::string path,
                                                  const Variables& variables, Bounds bounds) {
  // The items follow from recorded results: a replay sees the same.
  TUTTI_CO_ASSIGN_OR_RETURN(Json list, co_await Evaluate(ExpressionBody(step.items()), variables));
  if (!list.is_array() || list.size() > kMaxItems) {
    co_return Error(absl::StatusCode::kInvalidArgument, "BAD_ITEMS",
                    absl::StrCat("step ", path, ": items must be a list of at most ", kMaxItems, ", it is ",
                                 list.is_array() ? absl::StrCat("one of ", list.size()) : list.type_name()));
  }
  TUTTI_CO_RETURN_IF_ERROR(ExpressionChanged(path, step_path::Item(path, static_cast<int64_t>(list.size()))));
  Items all(step, variables, path, std::move(list));
  all.bounds = bounds;
  all.bounds.stop = all.stop.get_token();
  std::stop_callback outer(bounds.stop, [&all] { all.stop.request_stop(); });
  size_t walkers = std::min<size_t>(static_cast<size_t>(std::max(1, step.max_concurrency())), all.list.size());
  std::vector<Task<bool>> tasks;
  for (size_t i = 0; i < walkers; ++i) tasks.push_back(RunItems(all));
  co_await Join(std::move(tasks));
  if (EndsWalk(all.failure)) co_return all.failure;
  if (bounds.stop.stop_requested()) co_return absl::CancelledError("the run was asked to stop");
  if (!all.failure.ok() && !step.allow_failures()) co_return all.failure;
  Json out = Json::array();
  for (const JsonRef& result : all.results) out.push_back(result ? *result : Json(nullptr));
  co_return Ref(std::move(out));
}

Task<Interpreter::Result> Interpreter::RunWhile(const tutti::workflow::v1::WhileStep& step, std::string path,
                                                const Variables& variables, Bounds bounds) {
  const int most = step.max_iterations() == 0 ? kDefaultIterations : step.max_iterations();
  const bool checkpoints = !HoldsField(step, "compensation");
  if (checkpoints) {
    // Not to bound it: what lies behind a checkpoint is known by the checkpoint alone, also to the budgets around.
    bounds.budget = std::make_shared<Budget>(tutti::workflow::v1::StepBudget::default_instance(), path,
                                             std::move(bounds.budget), history_.SpentBelow(path));
    bounds.results = std::make_shared<ResultMeter>(std::move(bounds.results), ResultMeter::kNoLimit, path);
  }
  int64_t iteration = 0;
  JsonRef last = Ref(nullptr);
  if (const LoopHistory* known = history_.FindLoop(path)) {
    iteration = known->iteration;
    last = known->last;
  }
  for (;; ++iteration) {
    Variables inner(&variables);
    inner.Set("iteration", Ref(iteration));
    inner.Set("last", last);
    TUTTI_CO_ASSIGN_OR_RETURN(bool goes_on, co_await EvaluateCondition(step.condition(), inner));
    if (!goes_on) {
      TUTTI_CO_RETURN_IF_ERROR(ExpressionChanged(path, step_path::Item(path, iteration)));
      co_return last;
    }
    if (iteration >= most) {
      co_return Error(absl::StatusCode::kOutOfRange, "TOO_MANY_ITERATIONS",
                      absl::StrCat("step ", path, ": the condition still holds after ", most,
                                   " iterations; raise max_iterations or mend the condition"));
    }
    TUTTI_CO_ASSIGN_OR_RETURN(last, co_await RunBlock(step.steps(), step_path::Item(path, iteration), inner, bounds));
    progress_.Reach(step, static_cast<double>(iteration + 1) / most);
    const bool due = (iteration + 1) % kCheckpointEvery == 0 || bounds.results->bytes() >= kCheckpointBytes;
    if (!checkpoints || !due || bounds.replay_only) continue;
    auto entry = NewEntry();
    entry.mutable_loop_checkpoint()->set_path(path);
    entry.mutable_loop_checkpoint()->set_iteration(iteration + 1);
    const Spent& spent = bounds.budget->spent();
    auto* totals = entry.mutable_loop_checkpoint()->mutable_spent();
    totals->set_input_tokens(spent.tokens);
    totals->set_cost_nano_units(spent.cost_nano_units);
    totals->set_calls(spent.calls);
    if (CheckResult(*last, entry.mutable_loop_checkpoint()->mutable_last()).ok()) {
      bounds.results->Forget();
      deps_.effects.journal.Post(std::move(entry));
    }
  }
}

}  // namespace tutti::engine
