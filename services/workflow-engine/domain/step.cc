// One step: whether it is done, its gate, its attempts, and what is done when it fails.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/text/digest.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/retry.h"

namespace tutti::engine {
namespace {

using tutti::workflow::v1::Step;

constexpr absl::Duration kDefaultCallTimeout = absl::Seconds(300);
constexpr absl::Duration kDefaultCacheTtl = absl::Hours(1);
constexpr size_t kMaxResultBytes = 4 << 20;

// What calls another: bounded in time, and counted among what is under way.
bool IsCall(const Step& step) { return step.has_agent() || step.has_tool() || step.has_http(); }

// Its result stands in the journal; else it follows from the steps it is made of.
bool RecordsResult(const Step& step) { return !IsBlock(step) || step.has_cache(); }

bool Catches(const Step& step) { return !step.fallback().empty() || !step.on_error().empty(); }

bool Takes(const tutti::workflow::v1::ErrorHandler& handler, const absl::Status& error) {
  auto among = [](const auto& list, const std::string& name) {
    return list.empty() || std::find(list.begin(), list.end(), name) != list.end();
  };
  return among(handler.codes(), absl::StatusCodeToString(error.code())) && among(handler.reasons(), ReasonOf(error));
}

}  // namespace

size_t EndOfResults(const std::vector<tutti::state::v1::JournalEntry>& entries) {
  size_t end = entries.size();
  auto follows = [](const tutti::state::v1::JournalEntry& entry) {
    return entry.has_step_started() || entry.has_run_started() || entry.has_run_settled();
  };
  while (end > 0 && follows(entries[end - 1])) --end;
  return end;
}

absl::Status CheckResult(const Json& result, tutti::type::v1::Payload* out) {
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
  return absl::OkStatus();
}

tutti::state::v1::JournalEntry Interpreter::NewEntry() const {
  tutti::state::v1::JournalEntry entry;
  ToProto(deps_.clock.Now(), entry.mutable_time());
  entry.set_progress_percent(progress_percent());
  return entry;
}

Task<absl::Status> Interpreter::CheckConditions(
    const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Condition>& conditions, const char* what,
    const Variables& variables) {
  for (const auto& condition : conditions) {
    TUTTI_CO_ASSIGN_OR_RETURN(bool holds, co_await EvaluateCondition(condition.expression(), variables));
    if (holds) continue;
    std::string said = condition.message();
    if (said.empty()) {
      said = absl::StrCat("this does not hold: ", condition.expression());
    } else {
      auto text = co_await Expand(Json(said), variables);
      if (text.ok()) said = text->is_string() ? text->get<std::string>() : DumpJson(*text);
    }
    co_return Error(absl::StatusCode::kFailedPrecondition, what, said);
  }
  co_return absl::OkStatus();
}

Task<Interpreter::Result> Interpreter::RunStep(const Step& step, std::string path, const Variables& variables,
                                               Bounds bounds) {
  const StepHistory* known = history_.Find(path);
  if (known && known->skipped) {
    progress_.Complete(step);
    co_return known->result;
  }
  if (!step.when().empty() && !known && Interrupted(bounds).ok() && !bounds.replay_only) {
    auto holds = co_await EvaluateCondition(step.when(), variables);
    if (!holds.ok()) co_return Prefix(holds.status(), absl::StrCat("step ", path, ": when: "));
    if (!*holds) {
      TUTTI_CO_RETURN_IF_ERROR(ExpressionChanged(path, path));
      progress_.Complete(step);
      auto entry = NewEntry();
      auto* completed = entry.mutable_step_completed();
      completed->set_path(path);
      completed->set_kind(KindOf(step));
      completed->set_skipped(true);
      ToPayload(nullptr, completed->mutable_result());
      TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Commit(std::move(entry)));
      co_return Ref(nullptr);
    }
  }
  if (step.priority() != 0) bounds.priority = step.priority();
  const Bounds around = bounds;
  if (step.has_budget()) {
    bounds.budget = std::make_shared<Budget>(step.budget(), path, std::move(bounds.budget), history_.SpentBelow(path));
    if (step.budget().has_time()) {
      absl::Time start = known ? std::min(known->start_time, deps_.clock.Now()) : deps_.clock.Now();
      bounds.budget_end = std::max(start, history_.reopen_time()) + FromProto(step.budget().time());
      bounds.deadline = std::min(bounds.deadline, bounds.budget_end);
    }
  }
  auto result = co_await RunGuarded(step, path, variables, bounds);
  if (result.ok() || !Catches(step)) co_return result;
  // What must not be caught: the walk's own end, a cancel, and the end of the time of something around it.
  if (EndsWalk(result.status()) || bounds.stop.stop_requested()) co_return result;
  absl::Status error = result.status();
  // What is done instead is not bound by the step's own budget, only by those around it.
  for (int i = 0; i < step.fallback_size(); ++i) {
    Variables inner(&variables);
    inner.Set("error", Ref(ErrorToJson(error)));
    auto instead = co_await RunStep(step.fallback(i), step_path::Below(path, step_path::kFallback, i), inner, around);
    if (instead.ok() || EndsWalk(instead.status()) || bounds.stop.stop_requested()) co_return instead;
    error = instead.status();
  }
  auto caught = co_await Catch(step.on_error(), path, std::move(error), variables, around);
  co_return caught;
}

bool Interpreter::HasEnded(const std::string& path) const {
  auto ended = [this](const std::string& at) {
    const StepHistory* known = history_.Find(at);
    return known && known->result;
  };
  const std::optional<std::string> block = step_path::Without(path, step_path::kAttempt);
  return ended(path) || (block && ended(*block));
}

// The first handler that takes the error; the error when none does.
Task<Interpreter::Result> Interpreter::Catch(
    const google::protobuf::RepeatedPtrField<tutti::workflow::v1::ErrorHandler>& handlers, std::string path,
    absl::Status error, const Variables& variables, Bounds bounds) {
  for (int i = 0; i < handlers.size(); ++i) {
    if (!Takes(handlers[i], error)) continue;
    Variables inner(&variables);
    inner.Set("error", Ref(ErrorToJson(error)));
    std::string handler_path = step_path::Below(path, step_path::kOnError, i);
    auto result = co_await RunBlock(handlers[i].steps(), std::move(handler_path), inner, bounds);
    co_return result;
  }
  co_return error;
}

// With its gate, when it has one.
Task<Interpreter::Result> Interpreter::RunGuarded(const Step& step, std::string path, const Variables& variables,
                                                  Bounds bounds) {
  if (!step.has_gate()) {
    auto result = co_await RunAttempts(step, path, variables, bounds);
    if (!result.ok() && Catches(step) && !EndsWalk(result.status()) && !bounds.stop.stop_requested()) {
      TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(path, bounds));
    }
    co_return result;
  }
  Body body = [this, &step, bounds](std::string attempt_path, Variables& inner) {
    return RunAttempts(step, std::move(attempt_path), inner, bounds);
  };
  auto gated =
      co_await RunGated(step.gate(), path, variables, bounds, Ref(nullptr), std::move(body), step_path::kGated);
  if (!gated.ok()) {
    if (Catches(step) && !EndsWalk(gated.status()) && !bounds.stop.stop_requested()) {
      TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(path, bounds));
    }
    co_return gated.status();
  }
  if (gated->verdict.passed) {
    const StepHistory* judged = history_.Find(step_path::Below(gated->path, step_path::kGate));
    const bool known = judged && judged->result;
    if (step.has_cache() && !known) co_await PutIntoCache(step, variables, gated->output, bounds);
    co_return gated->output;
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(path, bounds));
  if (!step.gate().fallback().empty()) {
    Variables inner(&variables);
    inner.Set("feedback", Ref(gated->verdict.feedback));
    auto instead =
        co_await RunBlock(step.gate().fallback(), step_path::Below(path, step_path::kGateFallback), inner, bounds);
    co_return instead;
  }
  absl::Status failed = Error(absl::StatusCode::kFailedPrecondition, "GATE_FAILED",
                              absl::StrCat("step ", path, " did not pass its quality gate: ", gated->verdict.feedback))
                            .Metadata("step", path);
  co_return failed;
}

Task<absl::Status> Interpreter::RecordFailure(const Step& step, std::string path, int attempt, absl::Status error,
                                              absl::Time retry_time) {
  auto entry = NewEntry();
  auto* failed = entry.mutable_step_failed();
  if (auto taken = taken_.find(path); taken != taken_.end()) {
    failed->set_signal_seq(taken->second);
    taken_.erase(taken);
  }
  failed->set_path(path);
  failed->set_kind(KindOf(step));
  failed->set_attempt(attempt);
  failed->set_target(TargetOf(step));
  if (auto used = consumed_.extract(path)) {
    for (auto& item : used.mapped().usage) *failed->add_usage() = std::move(item);
    if (used.mapped().child) *failed->mutable_child_usage() = *used.mapped().child;
  }
  *failed->mutable_error() = ToRpcStatus(error);
  if (retry_time < absl::InfiniteFuture()) {
    ToProto(retry_time, failed->mutable_retry_time());
  } else {
    const StepHistory* known = history_.Find(path);
    Observe(step, false, std::min(known ? known->start_time : absl::InfiniteFuture(), deps_.clock.Now()));
  }
  absl::Status written = co_await deps_.effects.journal.Commit(std::move(entry));
  co_return written;
}

Task<Interpreter::Result> Interpreter::RunAttempts(const Step& step, std::string path, const Variables& variables,
                                                   Bounds bounds) {
  const StepHistory* known = history_.Find(path);
  if (known && known->result && RecordsResult(step)) {
    bounds.results->Add(known->result_bytes);
    progress_.Complete(step);
    if (IsBlock(step) && HasCompensations()) {
      (void)co_await Rewalk(step, path, known->failed_attempts + 1, variables, bounds);
    }
    Completed(step, path, known->result, variables, known->order);
    co_return known->result;
  }
  if (known && known->failed_for_good()) {
    // What it had completed before it failed is still to be undone by whoever catches the failure.
    if (IsBlock(step) && HasCompensations() && !Catches(step)) {
      (void)co_await Rewalk(step, path, known->failed_attempts, variables, bounds);
    }
    co_return known->last_error;
  }
  // It waited for a child, left memory, and comes back only to be given up.
  const bool waits_for_child = step.has_sub_workflow() && known && known->waiting && !known->child_run_id.empty();
  if (waits_for_child && (bounds.replay_only || !Interrupted(bounds).ok())) {
    tutti::type::v1::UsageTotals used = co_await GiveUpChild(path, known->child_run_id, bounds);
    if (bounds.budget) bounds.budget->Use(used);
    consumed_[path].child = std::move(used);
  }
  if (bounds.replay_only && !IsBlock(step)) co_return absl::CancelledError("not done before");
  if (absl::Status interrupted = Interrupted(bounds); !interrupted.ok() && !bounds.replay_only) {
    // A block that was begun: what it has completed is still to be undone. One that has ended well has ended well.
    if (known && IsBlock(step)) {
      auto before = co_await Rewalk(step, path, known->failed_attempts + 1, variables, bounds);
      if (known->result) co_return before;
    }
    if (bounds.stop.stop_requested()) co_return interrupted;
    // Time is over before the step began. Recorded, or a replay, whose time begins anew, would go another way.
    TUTTI_CO_RETURN_IF_ERROR(co_await RecordFailure(step, path, known ? known->failed_attempts + 1 : 1, interrupted,
                                                    absl::InfiniteFuture()));
    co_return interrupted;
  }
  int attempt = known ? known->failed_attempts + 1 : 1;
  const int forgiven = known ? known->forgiven_attempts : 0;
  if (known && known->failed_attempts > 0 && !bounds.replay_only) {
    TUTTI_CO_RETURN_IF_ERROR(co_await Wait(known->retry_time, /*for_news=*/false, bounds));
  }
  RetryDecision retry(step, deps_.rng);
  for (;; ++attempt) {
    auto result = co_await RunAttempt(step, path, attempt, variables, bounds);
    if (result.ok() || bounds.replay_only) co_return result;
    if (EndsWalk(result.status()) || bounds.stop.stop_requested()) co_return result;
    absl::Status error = WithMetadata(result.status(), "step", path);
    error = WithMetadata(error, "attempt", absl::StrCat(attempt));
    bool again = retry.ShouldRetry(error, path, attempt - forgiven) && Interrupted(bounds).ok();
    absl::Duration wait = again ? retry.Backoff(error, attempt - forgiven) : absl::ZeroDuration();
    wait = std::min(wait, bounds.deadline - deps_.clock.Now());
    absl::Time retry_time = again ? deps_.clock.Now() + wait : absl::InfiniteFuture();
    // Before the failure is recorded: a replay comes here again until all is undone.
    if (again || Catches(step)) TUTTI_CO_RETURN_IF_ERROR(co_await Compensate(path, bounds));
    TUTTI_CO_RETURN_IF_ERROR(co_await RecordFailure(step, path, attempt, error, retry_time));
    if (!again) co_return error;
    TUTTI_CO_RETURN_IF_ERROR(co_await Wait(retry_time, /*for_news=*/false, bounds));
  }
}

// Walks what is known of an attempt once more and begins nothing: what was completed in it can be undone afterwards.
Task<Interpreter::Result> Interpreter::Rewalk(const Step& step, std::string path, int attempt,
                                              const Variables& variables, Bounds bounds) {
  bounds.replay_only = true;
  bounds.stop = {};
  bounds.deadline = absl::InfiniteFuture();
  auto result = co_await RunAttempt(step, std::move(path), attempt, variables, bounds);
  co_return result;
}

Task<absl::StatusOr<std::string>> Interpreter::CacheKey(const Step& step, const Variables& variables) {
  Json given;
  if (!step.cache().key().empty()) {
    TUTTI_CO_ASSIGN_OR_RETURN(given, co_await Expand(Json(step.cache().key()), variables));
  } else if (step.has_agent() && step.agent().has_input()) {
    TUTTI_CO_ASSIGN_OR_RETURN(given, co_await Expand(ToJson(step.agent().input()), variables));
  } else if (step.has_tool()) {
    TUTTI_CO_ASSIGN_OR_RETURN(given, co_await Expand(ToJson(step.tool().parameters()), variables));
  } else {
    given = variables.ToObject();
    given.erase("run");
  }
  // The definition belongs to the key: another version of the step asks something else.
  co_return absl::StrCat(spec_.name(), "/", step.id(), "/", HexDigest(DumpJson(MessageToJson(step))), "/",
                         HexDigest(DumpJson(given)));
}

// Under the key of a first attempt, which has no feedback. Not being kept is no failure.
Task<void> Interpreter::PutIntoCache(const Step& step, const Variables& variables, JsonRef output, Bounds bounds) {
  Variables first(&variables);
  if (step.has_gate()) first.Set("feedback", Ref(nullptr));
  auto key = co_await CacheKey(step, first);
  if (!key.ok()) co_return;
  CallContext call = NewCall(bounds);
  absl::Duration ttl = step.cache().has_ttl() ? FromProto(step.cache().ttl()) : kDefaultCacheTtl;
  (void)co_await deps_.effects.cache.Put(call, *key, *output, ttl);
}

Task<Interpreter::Result> Interpreter::RunAttempt(const Step& step, std::string path, int attempt,
                                                  const Variables& variables, Bounds bounds) {
  // Blocks begin anew with each attempt: their steps are other steps then.
  std::string inner_path = !IsBlock(step) || attempt == 1 ? path : step_path::Below(path, step_path::kAttempt, attempt);
  auto entry = NewEntry();
  if (bounds.replay_only) {
    auto result = co_await RunKind(step, inner_path, "", attempt, variables, bounds, *entry.mutable_step_completed());
    co_return result;
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await HoldWhilePaused(bounds));
  const absl::Time begin = deps_.clock.Now();
  if (IsCall(step)) {
    bounds.call_timeout = step.has_timeout() ? FromProto(step.timeout()) : kDefaultCallTimeout;
  } else if (step.has_timeout()) {
    absl::Time start = deps_.clock.Now();
    bool waits = step.has_sleep() || step.has_wait_for_signal() || step.has_sub_workflow();
    const StepHistory* before = history_.Find(path);
    if (before && (IsBlock(step) || waits) && attempt == before->failed_attempts + 1) {
      start = std::min(start, before->attempt_time);  // another engine began it; its time goes on
    }
    bounds.deadline = std::min(bounds.deadline, start + FromProto(step.timeout()));
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await CheckConditions(step.preconditions(), "PRECONDITION_FAILED", variables));
  entry.mutable_step_started()->set_path(path);
  entry.mutable_step_started()->set_kind(KindOf(step));
  entry.mutable_step_started()->set_attempt(attempt);
  entry.mutable_step_started()->set_target(TargetOf(step));
  const StepHistory* known = history_.Find(path);
  const bool begun = known && known->started && IsBlock(step) && attempt == known->failed_attempts + 1;
  if (!begun) deps_.effects.journal.Post(std::move(entry));

  tutti::state::v1::StepCompleted completed;
  Result result = Ref(nullptr);
  std::string cache_key;
  // What its gate has sent back is not asked for again.
  const Json* feedback = step.has_gate() ? variables.Find("feedback") : nullptr;
  if (step.has_cache() && (!feedback || feedback->is_null())) {
    TUTTI_CO_ASSIGN_OR_RETURN(cache_key, co_await CacheKey(step, variables));
    CallContext call = NewCall(bounds);
    auto found = co_await deps_.effects.cache.Get(call, cache_key);
    if (found.ok() && found->has_value()) {  // a cache that cannot be reached is an empty one
      completed.set_cached(true);
      result = Ref(**std::move(found));
    }
  }
  if (!completed.cached()) {
    std::string key = absl::StrCat(subject_.run_id, "/", path, "/", attempt);
    result = co_await RunKind(step, inner_path, std::move(key), attempt, variables, bounds, completed);
  }
  std::string where = IsBlock(step) ? "" : absl::StrCat("step ", path, ": ");
  if (!result.ok()) {
    if (EndsWalk(result.status()) || IsBlock(step)) co_return result;
    co_return Prefix(result.status(), where);
  }
  if (!step.postconditions().empty()) {
    Variables judged(&variables);
    judged.Set("output", *result);
    absl::Status holds = co_await CheckConditions(step.postconditions(), "POSTCONDITION_FAILED", judged);
    if (!holds.ok()) co_return Prefix(holds, absl::StrCat("step ", path, ": "));
  }
  if (RecordsResult(step)) {
    absl::Status fits = CheckResult(**result, completed.mutable_result());
    if (fits.ok()) fits = bounds.results->Take(completed.result().data().size());
    if (!fits.ok()) co_return Prefix(fits, where);
  }
  if (step.has_cache() && !step.has_gate() && !completed.cached()) {
    co_await PutIntoCache(step, variables, *result, bounds);
  }
  consumed_.erase(path);
  progress_.Complete(step);
  entry = NewEntry();
  completed.set_path(path);
  completed.set_kind(KindOf(step));
  completed.set_attempt(attempt);
  completed.set_target(TargetOf(step));
  *entry.mutable_step_completed() = std::move(completed);
  // Durable before anything is done that builds on it (Barrier), not before that: what follows without an effect
  // outside, such as the run's end, is written together with it.
  if (!(known && known->result)) {
    Observe(step, true, known ? std::min(known->start_time, begin) : begin);
    // A step that was quick needs no entry of its own for its beginning.
    bool quick = deps_.effects.journal.Retract([&](const tutti::state::v1::JournalEntry& posted) {
      return posted.step_started().path() == path && posted.step_started().attempt() == attempt;
    });
    if (quick) ToProto(begin, entry.mutable_step_completed()->mutable_start_time());
    deps_.effects.journal.Post(std::move(entry));
  }
  Completed(step, path, *result, variables, known && known->result ? known->order : ++order_);
  co_return result;
}

void Interpreter::Observe(const Step& step, bool good, absl::Time begin) const {
  if (deps_.observer && IsBlock(step)) deps_.observer->Ended(KindOf(step), good, deps_.clock.Now() - begin);
}

// What is known of an attempt's wait; null: it has not begun.
const StepHistory* Interpreter::WaitOf(const std::string& path, int attempt) const {
  const StepHistory* known = history_.Find(path);
  return known && known->waiting && attempt == known->failed_attempts + 1 ? known : nullptr;
}

Task<Interpreter::Result> Interpreter::RunKind(const Step& step, std::string path, std::string key, int attempt,
                                               const Variables& variables, Bounds bounds,
                                               tutti::state::v1::StepCompleted& record) {
  Task<Result> task;
  Consumed consumed;
  Usage& usage = consumed.usage;
  int64_t signal_seq = 0;
  const std::string taken_path = step.has_wait_for_signal() ? path : "";
  const std::string used_path = step.has_agent() || step.has_sub_workflow() ? path : "";
  switch (step.kind_case()) {
    case Step::kTransform: {
      TUTTI_CO_ASSIGN_OR_RETURN(Json value, co_await Expand(ToJson(step.transform().value()), variables));
      co_return Ref(std::move(value));
    }
    case Step::kEmit:
      task = RunEmit(step.emit(), path, variables);
      break;
    case Step::kFail:
      task = RunFail(step.fail(), variables);
      break;
    case Step::kAgent:
      task = RunAgent(step.agent(), std::move(path), std::move(key), variables, bounds, usage);
      break;
    case Step::kTool:
      task = RunTool(step.tool(), std::move(path), std::move(key), variables, bounds);
      break;
    case Step::kHttp:
      task = RunHttp(step.http(), std::move(path), std::move(key), variables, bounds);
      break;
    case Step::kSwitch:
      task = RunSwitch(step.switch_(), std::move(path), variables, bounds);
      break;
    case Step::kParallel:
      task = RunParallel(step.parallel(), std::move(path), variables, bounds);
      break;
    case Step::kPipeline:
      task = RunPipeline(step.pipeline(), std::move(path), variables, bounds);
      break;
    case Step::kReflect:
      task = RunReflect(step.reflect(), std::move(path), variables, bounds);
      break;
    case Step::kForEach:
      task = RunForEach(step.for_each(), std::move(path), variables, bounds);
      break;
    case Step::kWhile:
      task = RunWhile(step.while_(), std::move(path), variables, bounds);
      break;
    case Step::kSubWorkflow:
      task = RunSubWorkflow(step.sub_workflow(), path, std::move(key), variables, bounds, WaitOf(path, attempt),
                            consumed.child);
      break;
    case Step::kSleep:
      task = RunSleep(step.sleep(), path, variables, bounds, WaitOf(path, attempt));
      break;
    case Step::kWaitForSignal:
      task = RunWaitForSignal(step.wait_for_signal(), path, variables, bounds, WaitOf(path, attempt), signal_seq);
      break;
    case Step::kSupervisor:
      task = RunSupervisor(step.supervisor(), std::move(path), variables, bounds);
      break;
    case Step::kAdaptive:
      task = RunAdaptive(step.adaptive(), std::move(path), variables, bounds);
      break;
    default:
      co_return absl::InternalError(absl::StrCat("step ", path, " has no kind"));
  }
  auto result = co_await std::move(task);
  // Paid for, also when a condition or the size of the result makes the attempt fail.
  if (!usage.empty() || consumed.child) consumed_[used_path] = consumed;
  for (auto& item : usage) *record.add_usage() = std::move(item);
  if (consumed.child) *record.mutable_child_usage() = *consumed.child;
  record.set_signal_seq(signal_seq);
  if (signal_seq > 0) taken_[taken_path] = signal_seq;
  co_return result;
}

}  // namespace tutti::engine
