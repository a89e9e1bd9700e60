// Walks a spec and does what it says. Recovery is the same walk: a step whose end is in the history is not done again.
#pragma once

#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/async/task.h"
#include "runtime/random/random.h"
#include "runtime/telemetry/trace.h"
#include "runtime/time/clock.h"
#include "services/workflow-engine/domain/expression.h"
#include "services/workflow-engine/domain/history.h"
#include "services/workflow-engine/domain/progress.h"
#include "services/workflow-engine/ports/effects.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// What the interpreter works with. All outlive it; all calls happen on `executor`, one at a time: a run needs no locks.
struct InterpreterDeps {
  Executor& executor;
  const Clock& clock;
  TimerService& timers;
  Rng& rng;
  Tracer& tracer;
  Evaluator& evaluator;
  AgentPort& agents;
  ToolPort& tools;
  JournalPort& journal;
};

class Interpreter {
 public:
  // `spec` must be valid (ValidateSpec) and outlive the interpreter.
  Interpreter(InterpreterDeps deps, std::string run_id, const tutti::workflow::v1::WorkflowSpec& spec, Json input,
              History history, TraceContext trace, std::stop_token stop);

  // The run's output, or why it failed. CANCELLED when stop was requested; ABORTED when the lease is lost: nothing more
  // may be written then.
  Task<absl::StatusOr<Json>> Run();
  int progress_percent() const { return std::max(progress_.percent(), history_.progress_percent()); }

 private:
  using Step = tutti::workflow::v1::Step;
  using Steps = google::protobuf::RepeatedPtrField<Step>;
  // What bounds a step: nested ones inherit it.
  struct Bounds {
    std::stop_token stop;
    absl::Time deadline = absl::InfiniteFuture();
    TraceContext trace;
  };
  struct Graph;

  Task<absl::StatusOr<JsonRef>> RunBlock(const Steps& steps, std::string path, Variables& variables, Bounds bounds);
  Task<absl::StatusOr<JsonRef>> RunGraph(const Steps& steps, std::string path, Variables& variables, Bounds bounds);
  Task<bool> RunGraphStep(const Step& step, std::string path, Graph& graph);
  Task<absl::StatusOr<JsonRef>> RunStep(const Step& step, std::string path, const Variables& variables, Bounds bounds);
  Task<absl::StatusOr<JsonRef>> RunAttempt(const Step& step, std::string path, int attempt, const Variables& variables,
                                           Bounds bounds);
  Task<absl::StatusOr<JsonRef>> RunKind(const Step& step, std::string path, std::string key, const Variables& variables,
                                        Bounds bounds, std::vector<tutti::type::v1::ModelUsage>& usage);
  Task<absl::StatusOr<JsonRef>> RunAgent(const tutti::workflow::v1::AgentStep& step, std::string path, std::string key,
                                         const Variables& variables, Bounds bounds,
                                         std::vector<tutti::type::v1::ModelUsage>& usage);
  Task<absl::StatusOr<JsonRef>> RunTool(const tutti::workflow::v1::ToolStep& step, std::string path, std::string key,
                                        const Variables& variables, Bounds bounds);
  Task<absl::StatusOr<JsonRef>> RunSwitch(const tutti::workflow::v1::SwitchStep& step, std::string path,
                                          const Variables& variables, Bounds bounds);
  Task<absl::StatusOr<JsonRef>> RunParallel(const tutti::workflow::v1::ParallelStep& step, std::string path,
                                            const Variables& variables, Bounds bounds);
  struct Branches;
  Task<bool> RunBranches(Branches& branches);
  Task<absl::StatusOr<JsonRef>> RunPipeline(const tutti::workflow::v1::PipelineStep& step, std::string path,
                                            const Variables& variables, Bounds bounds);
  Task<absl::StatusOr<JsonRef>> RunStage(const tutti::workflow::v1::PipelineStep::Stage& stage, std::string path,
                                         const Variables& variables, Bounds bounds);
  struct Verdict {
    bool passed = false;
    double score = 0;
    std::string feedback;
  };
  Task<absl::StatusOr<Verdict>> RunGate(const tutti::workflow::v1::Gate& gate, std::string path,
                                        const Variables& variables, Bounds bounds);
  Task<absl::StatusOr<Json>> AskGate(const tutti::workflow::v1::Gate& gate, std::string path, std::string key,
                                     const Variables& variables, Bounds bounds,
                                     std::vector<tutti::type::v1::ModelUsage>& usage);
  Task<absl::StatusOr<JsonRef>> RunReflect(const tutti::workflow::v1::ReflectStep& step, std::string path,
                                           const Variables& variables, Bounds bounds);

  tutti::state::v1::JournalEntry NewEntry() const;
  absl::Status Interrupted(const Bounds& bounds) const;
  CallContext NewCall(const Bounds& bounds);

  InterpreterDeps deps_;
  const std::string run_id_;
  const tutti::workflow::v1::WorkflowSpec& spec_;
  const History history_;
  Progress progress_;
  Variables root_;
  Bounds bounds_;
};

// Puts a result into a payload. FAILED_PRECONDITION: larger than 4 MiB or nested too deeply to be stored and read
// again; large things are passed by reference.
absl::StatusOr<Json> CheckResult(Json result, tutti::type::v1::Payload* out);

// The oneof case of a step's kind as journals name it.
std::string KindOf(const tutti::workflow::v1::Step& step);
// The agent's or tool's name, empty for others.
std::string TargetOf(const tutti::workflow::v1::Step& step);

}  // namespace tutti::engine
