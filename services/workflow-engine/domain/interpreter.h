// Walks a spec and does what it says. Recovery is the same walk: a step whose end is in the history is not done again.
//
// The walk is one coroutine that branches where the spec does. Its parts: interpreter.cc (blocks and graphs, the end of
// a run), step.cc (one step with its attempts and guards), leaves.cc (what calls the world), waits.cc (time, signals,
// children, leaving memory), patterns.cc, loops.cc, supervisor.cc, adaptive.cc, compensation.cc.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"
#include "runtime/journal/step_path.h"
#include "runtime/random/random.h"
#include "runtime/telemetry/trace.h"
#include "runtime/time/clock.h"
#include "services/workflow-engine/domain/admission.h"
#include "services/workflow-engine/domain/budget.h"
#include "services/workflow-engine/domain/expression.h"
#include "services/workflow-engine/domain/history.h"
#include "services/workflow-engine/domain/known_names.h"
#include "services/workflow-engine/domain/progress.h"
#include "services/workflow-engine/domain/result_meter.h"
#include "services/workflow-engine/domain/routing.h"
#include "services/workflow-engine/ports/effects.h"
#include "services/workflow-engine/ports/pattern_observer.h"
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
  Admission& admission;
  Effects effects;
  // What an adaptive step's planner may use, and whether its steps are right; INVALID_ARGUMENT with the reasons.
  std::function<absl::Status(const tutti::workflow::v1::WorkflowSpec&)> validate;
  // Whom and what it may use, as it is told: by name, with what they are for.
  std::function<KnownNames()> known;
  SpecialistRecords& specialists;
  PatternObserver* observer = nullptr;
  // A run that only waits for longer than this leaves memory: Run ends with RUN_PARKED. Infinite: never.
  absl::Duration park_after = absl::InfiniteDuration();
  // Returns the time until which the engine owns the run, by its own clock. No call leaves later. Null: for ever.
  std::function<absl::Time()> owned_until;
  // Counts the results of all runs of the tenant; may be null.
  std::shared_ptr<ResultMeter> tenant_results;
};

// The run that is walked.
struct RunSubject {
  std::string run_id;
  std::string tenant;
  Json input;
  absl::Time start_time = absl::InfiniteFuture();  // when it was first begun; infinite: now
  int64_t inbox = 0;                               // the seq of the last entry of others, as the run's row says it
  int priority = 0;
  TraceContext trace;
};

class Interpreter {
 public:
  // `spec` must be valid (ValidateSpec) and outlive the interpreter. `halt` ends the walk wherever it is, for another
  // to go on; `cancel` ends the run, with its compensations.
  Interpreter(InterpreterDeps deps, RunSubject subject, const tutti::workflow::v1::WorkflowSpec& spec, History history,
              std::stop_token halt, std::stop_token cancel);
  ~Interpreter();

  // The run's output, or why it failed. CANCELLED: `cancel` came, and compensations have run. ABORTED (EndsWalk): the
  // run has not ended, but nothing more may be written here: it is halted, parked, or another's.
  Task<absl::StatusOr<Json>> Run();

  // What another wrote to the run's journal while it is walked: a signal, a pause, its end. An entry that is known
  // already changes nothing.
  void Deliver(const tutti::state::v1::JournalEntry& entry);
  // How far the journal is known here, for who reads what came after.
  int64_t delivered_seq() const { return delivered_seq_; }
  int64_t inbox() const { return inbox_; }
  // Returns the version of the language in which the run's expressions are read.
  int expression_version() const { return history_.expression_version(); }
  // Returns true while a part of the walk computes rather than waits for the world.
  bool computes() const { return computing_ > 0; }
  // What the run has consumed, with those that it has started; without compensations and handlers of its failure.
  const Spent& spent() const { return bounds_.budget->spent(); }
  int progress_percent() const { return std::max(progress_.percent(), history_.progress_percent()); }

 private:
  using Step = tutti::workflow::v1::Step;
  using Steps = google::protobuf::RepeatedPtrField<Step>;
  using Result = absl::StatusOr<JsonRef>;
  using Usage = std::vector<tutti::type::v1::ModelUsage>;
  // What an attempt has consumed.
  struct Consumed {
    Usage usage;
    std::optional<tutti::type::v1::UsageTotals> child;  // by the run that it started
  };
  // What bounds a step: nested ones inherit it.
  struct Bounds {
    std::stop_token stop;
    absl::Time deadline = absl::InfiniteFuture();
    absl::Time budget_end = absl::InfiniteFuture();          // of the innermost budget with a time
    absl::Duration call_timeout = absl::InfiniteDuration();  // of one call, from its turn on
    TraceContext trace;
    std::shared_ptr<Budget> budget;
    std::shared_ptr<ResultMeter> results;
    int priority = 0;
    bool replay_only = false;  // walks what is known and begins nothing
  };

  // interpreter.cc
  struct Graph;
  Task<Result> RunBlock(const Steps& steps, std::string path, Variables& variables, Bounds bounds);
  Task<Result> RunGraph(const Steps& steps, std::string path, Variables& variables, Bounds bounds);
  Task<bool> RunGraphStep(const Step& step, std::string path, Graph& graph);
  Task<absl::StatusOr<Json>> Walk();
  Task<absl::StatusOr<Json>> RunAll();
  absl::Status Interrupted(const Bounds& bounds) const;
  // Returns EXPRESSION_CHANGED when a run of version 0.1 went by `other` before and its expression now leads elsewhere.
  absl::Status ExpressionChanged(const std::string& path, const std::string& other) const;
  // Expressions, for this run.
  Task<absl::StatusOr<Json>> Evaluate(std::string expression, const Variables& variables) {
    return deps_.evaluator.Evaluate(std::move(expression), variables, evaluation_);
  }
  Task<absl::StatusOr<bool>> EvaluateCondition(std::string expression, const Variables& variables) {
    return deps_.evaluator.EvaluateCondition(std::move(expression), variables, evaluation_);
  }
  Task<absl::StatusOr<Json>> Expand(Json value, const Variables& variables) {
    return deps_.evaluator.Expand(std::move(value), variables, evaluation_);
  }

  // step.cc
  Task<Result> RunStep(const Step& step, std::string path, const Variables& variables, Bounds bounds);
  Task<Result> RunGuarded(const Step& step, std::string path, const Variables& variables, Bounds bounds);
  Task<Result> RunAttempts(const Step& step, std::string path, const Variables& variables, Bounds bounds);
  Task<Result> RunAttempt(const Step& step, std::string path, int attempt, const Variables& variables, Bounds bounds);
  Task<Result> Rewalk(const Step& step, std::string path, int attempt, const Variables& variables, Bounds bounds);
  Task<Result> RunKind(const Step& step, std::string path, std::string key, int attempt, const Variables& variables,
                       Bounds bounds, tutti::state::v1::StepCompleted& record);
  void Observe(const Step& step, bool good, absl::Time begin) const;
  const StepHistory* WaitOf(const std::string& path, int attempt) const;
  Task<Result> Catch(const google::protobuf::RepeatedPtrField<tutti::workflow::v1::ErrorHandler>& handlers,
                     std::string path, absl::Status error, const Variables& variables, Bounds bounds);
  Task<absl::Status> RecordFailure(const Step& step, std::string path, int attempt, absl::Status error,
                                   absl::Time retry_time);
  Task<absl::Status> CheckConditions(
      const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Condition>& conditions, const char* what,
      const Variables& variables);
  Task<absl::StatusOr<std::string>> CacheKey(const Step& step, const Variables& variables);
  // The step of that path does not wait for its child any more: the child is asked to stop. What it has consumed, as
  // far as that is known.
  Task<tutti::type::v1::UsageTotals> GiveUpChild(std::string path, std::string child, Bounds bounds);
  Task<void> PutIntoCache(const Step& step, const Variables& variables, JsonRef output, Bounds bounds);
  tutti::state::v1::JournalEntry NewEntry() const;

  // The journal knows that the step of that path (or the block, of which this is the path inside an attempt) has ended
  // well.
  bool HasEnded(const std::string& path) const;

  // leaves.cc
  CallContext NewCall(const Bounds& bounds);
  // Returns ABORTED, which ends the walk, when the run may be another engine's by now.
  absl::Status CheckOwned() const;
  // Of an agent that the workflow defines itself; else null.
  const tutti::agent::v1::Agent* DefinitionOf(const std::string& agent) const;
  // Waits until it is this call's turn. The permit is held while the call is under way.
  Task<absl::StatusOr<Admission::Permit>> Enter(std::string target, const Bounds& bounds);
  Task<Result> RunAgent(const tutti::workflow::v1::AgentStep& step, std::string path, std::string key,
                        const Variables& variables, Bounds bounds, Usage& usage);
  Task<Result> RunTool(const tutti::workflow::v1::ToolStep& step, std::string path, std::string key,
                       const Variables& variables, Bounds bounds);
  Task<Result> CallTool(std::string tool, Json parameters, std::string path, std::string key, Bounds bounds);
  Task<Result> RunHttp(const tutti::workflow::v1::HttpStep& step, std::string path, std::string key,
                       const Variables& variables, Bounds bounds);
  Task<Result> RunEmit(const tutti::workflow::v1::EmitStep& step, std::string path, const Variables& variables);
  Task<Result> RunFail(const tutti::workflow::v1::FailStep& step, const Variables& variables);

  // waits.cc
  enum class Woken { kTime, kNews, kStop, kParked };
  struct Waiter;
  struct Self;
  // A place where one branch waits for another, so that it is known which of them can move.
  struct Turn {
    OneShot<bool> shot;
    bool set = false, waiting = false;
  };
  Task<bool> Await(Turn& turn);
  void Give(Turn& turn, bool value);
  // As WhenAll, for branches of the walk.
  Task<std::vector<bool>> Join(std::vector<Task<bool>> branches);
  Task<bool> Branch(Task<bool> task);
  // Until `until`, the bounds' deadline, or news of the inbox. CANCELLED: stopped. ABORTED: parked.
  Task<absl::Status> Wait(absl::Time until, bool for_news, Bounds bounds);
  // With a `child`, the only news is that run's end.
  Task<absl::Status> WaitOn(absl::Time until, bool for_news, std::string child, Bounds bounds);
  void Wake(const std::shared_ptr<Waiter>& waiter, Woken why);
  Task<absl::Status> HoldWhilePaused(Bounds bounds);
  void LookForIdleness();
  void ParkIfIdle();
  Task<void> Park(absl::Time wake_time);
  // `known`: the attempt's wait, when it has begun before.
  Task<Result> RunSleep(const tutti::workflow::v1::SleepStep& step, std::string path, const Variables& variables,
                        Bounds bounds, const StepHistory* known);
  Task<Result> RunWaitForSignal(const tutti::workflow::v1::WaitForSignalStep& step, std::string path,
                                const Variables& variables, Bounds bounds, const StepHistory* known,
                                int64_t& signal_seq);
  Task<Result> RunSubWorkflow(const tutti::workflow::v1::SubWorkflowStep& step, std::string path, std::string key,
                              const Variables& variables, Bounds bounds, const StepHistory* known,
                              std::optional<tutti::type::v1::UsageTotals>& used);
  // Until the child has ended, or the walk or its bounds end.
  Task<Result> AwaitChild(const tutti::workflow::v1::SubWorkflowStep& step, std::string path, std::string child,
                          const Variables& variables, Bounds bounds, std::optional<tutti::type::v1::UsageTotals>& used);
  tutti::state::v1::JournalEntry Waits(const std::string& path, const std::string& child_run_id) const;
  Task<absl::StatusOr<std::string>> StartChild(const tutti::workflow::v1::SubWorkflowStep& step, std::string path,
                                               std::string key, const Variables& variables, Bounds bounds,
                                               const StepHistory* known);

  // patterns.cc
  Task<Result> RunSwitch(const tutti::workflow::v1::SwitchStep& step, std::string path, const Variables& variables,
                         Bounds bounds);
  struct Branches;
  Task<bool> RunBranches(Branches& branches);
  Task<bool> RunBranch(Branches& branches, int index, int copy);
  Task<bool> HedgeBranch(Branches& branches, int index);
  Task<bool> CutStragglers(Branches& branches);
  Task<Result> RunParallel(const tutti::workflow::v1::ParallelStep& step, std::string path, const Variables& variables,
                           Bounds bounds);
  Task<Result> Fuse(const tutti::workflow::v1::ParallelStep& step, std::string path, const Branches& branches,
                    const Variables& variables, Bounds bounds);
  Task<Result> RunPipeline(const tutti::workflow::v1::PipelineStep& step, std::string path, const Variables& variables,
                           Bounds bounds);
  Task<Result> RunReflect(const tutti::workflow::v1::ReflectStep& step, std::string path, const Variables& variables,
                          Bounds bounds);
  Task<Result> Critique(const tutti::workflow::v1::ReflectStep& step, std::string path, const Variables& variables,
                        Bounds bounds);
  Task<bool> AskCritic(const tutti::workflow::v1::Critic& critic, std::string path, const Variables& variables,
                       Bounds bounds, Result& out);
  Task<Result> RecallLessons(const tutti::workflow::v1::ReflectStep& step, std::string path, Bounds bounds);
  Task<absl::Status> LearnLesson(const tutti::workflow::v1::ReflectStep& step, std::string path, std::string lesson,
                                 double score, Bounds bounds);
  // A leaf that is no step of the spec, recorded under its path: `effect` is not asked again once it has answered.
  Task<Result> Record(std::string path, std::string kind, std::string target, std::function<Task<Result>()> effect,
                      bool replaying = false);

  // gates.cc
  struct Verdict {
    bool passed = false;
    double score = 0;
    std::string feedback;
  };
  struct Gated {
    JsonRef output;
    Verdict verdict;   // passed: the output is good
    std::string path;  // of the last attempt
  };
  using Body = std::function<Task<Result>(std::string path, Variables& variables)>;
  // Does `body` until the gate passes or its attempts are used up; the second at `path/again-2`.
  Task<absl::StatusOr<Gated>> RunGated(const tutti::workflow::v1::Gate& gate, std::string path,
                                       const Variables& variables, Bounds bounds, JsonRef feedback, Body body,
                                       const char* again = step_path::kAttempt);
  Task<absl::StatusOr<Verdict>> RunGate(const tutti::workflow::v1::Gate& gate, std::string path,
                                        const Variables& variables, Bounds bounds);
  Task<absl::StatusOr<Json>> AskGate(const tutti::workflow::v1::Gate& gate, std::string path, std::string key,
                                     const Variables& variables, Bounds bounds, Usage& usage);

  // loops.cc
  Task<absl::Status> GiveWay();
  struct Items;
  Task<bool> RunItems(Items& items);
  Task<Result> RunForEach(const tutti::workflow::v1::ForEachStep& step, std::string path, const Variables& variables,
                          Bounds bounds);
  Task<Result> RunWhile(const tutti::workflow::v1::WhileStep& step, std::string path, const Variables& variables,
                        Bounds bounds);

  // supervisor.cc
  struct Team;
  struct Subtask;
  Task<Result> RunSupervisor(const tutti::workflow::v1::SupervisorStep& step, std::string path,
                             const Variables& variables, Bounds bounds);
  Task<Result> Ask(std::string agent, Json input, std::string path, Bounds bounds);
  Task<absl::Status> Decompose(Team& team, Json task, std::string path, int depth, Json feedback);
  Task<bool> RunSubtask(Team& team, size_t index);
  Task<absl::Status> RunSubtasks(Team& team);
  // How far the team is shows in the progress.
  void Advance(const Team& team);

  // adaptive.cc
  Task<Result> RunAdaptive(const tutti::workflow::v1::AdaptiveStep& step, std::string path, const Variables& variables,
                           Bounds bounds);

  // compensation.cc
  struct Compensable {
    int64_t order = 0;
    const Step* step = nullptr;
    std::string path;
    JsonRef output;
    Variables variables;
  };
  // The step has ended well.
  void Completed(const Step& step, const std::string& path, const JsonRef& output, const Variables& variables,
                 int64_t order);
  // Undoes what was completed at `path` and below, last first; all, when it is empty. Not ended by a cancel.
  Task<absl::Status> Compensate(std::string path, Bounds bounds) {
    return CompensateExcept(std::move(path), std::move(bounds), std::string());
  }
  // But not what is at `except` and below, unless that is empty.
  Task<absl::Status> CompensateExcept(std::string path, Bounds bounds, std::string except);

  InterpreterDeps deps_;
  const RunSubject subject_;
  const tutti::workflow::v1::WorkflowSpec& spec_;
  const History history_;
  const std::stop_token halt_, cancel_;
  std::stop_source stop_;  // either of both
  std::stop_callback<std::function<void()>> on_halt_, on_cancel_;
  std::atomic<bool> undoing_ = false;  // a cancel has been obeyed, and what undoes the run goes on
  Evaluator::Context evaluation_;
  int computing_ = 0;  // long evaluations and loops that give way
  Progress progress_;
  Variables root_;
  Bounds bounds_;
  // Whether anything in the spec can be undone; looked for when it first matters.
  bool HasCompensations();
  std::optional<bool> has_compensations_;
  std::vector<Compensable> completed_;
  int64_t order_ = 0;
  std::list<tutti::workflow::v1::WorkflowSpec> proposed_;  // by adaptive steps

  // How many branches can move; when none can, the run waits.
  int moving_ = 1;
  std::list<std::shared_ptr<Waiter>> waiters_;
  bool parking_ = false;
  OneShot<bool> park_ended_;
  bool idle_check_posted_ = false;
  std::vector<Signal> signals_;
  std::map<std::string, int64_t> taken_;      // by steps that have not ended
  std::map<std::string, Consumed> consumed_;  // by attempts that have not been recorded yet
  bool paused_ = false;
  int64_t inbox_ = 0;
  int64_t delivered_seq_ = 0;
  std::map<std::string, bool> awaited_children_;  // whether their end was told
  std::shared_ptr<Self> self_;
};

// The walk has ended before the run: it is parked, halted, or another's.
bool EndsWalk(const absl::Status& status);
// The error as one that ends the walk; for journals, when the run is another's.
absl::Status WalkEnd(const absl::Status& status);

// The most bytes of results that a run holds. A history of more could not be taken up again in reasonable time.
inline constexpr size_t kMaxRunResults = size_t{128} << 20;

// Puts a result into a payload. FAILED_PRECONDITION: larger than 4 MiB or nested too deeply to be stored and read
// again; large things are passed by reference.
absl::Status CheckResult(const Json& result, tutti::type::v1::Payload* out);

// The oneof case of a step's kind as journals name it.
const std::string& KindOf(const tutti::workflow::v1::Step& step);
// The agent's, tool's or workflow's name, empty for others.
const std::string& TargetOf(const tutti::workflow::v1::Step& step);
// Made of steps, so that its result follows from theirs.
bool IsBlock(const tutti::workflow::v1::Step& step);
// The error as handlers see it: {code, reason, message, step, attempt}.
Json ErrorToJson(const absl::Status& error);
// The score of a judge's answer: `score`, else the rubric's mean of `scores`, else `passed` as 1 or 0; 0 to 1.
absl::StatusOr<double> ScoreOf(const Json& answer, const std::string& path,
                               const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Criterion>& rubric = {});
// What a judge said, as text.
std::string FeedbackOf(const Json& answer);
inline JsonRef Ref(Json value) { return std::make_shared<const Json>(std::move(value)); }

}  // namespace tutti::engine
