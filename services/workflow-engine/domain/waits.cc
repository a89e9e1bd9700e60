// Waiting: for a time, for a signal, for another run; and leaving memory when a run does nothing else.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/retry.h"

namespace tutti::engine {
namespace {

// A child's end is told; this is for what no telling reaches: a store that was restored, a child that was reopened.
constexpr absl::Duration kLookAtChildEvery = absl::Minutes(5);
constexpr absl::Duration kCancelTimeout = absl::Seconds(10);
constexpr absl::Duration kAskAgainAfter = absl::Seconds(1);

bool Passing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status);
}

}  // namespace

// A branch that waits.
struct Interpreter::Waiter {
  OneShot<Woken> shot;
  absl::Time until;
  bool for_news = false;
  std::string child;  // whose end alone is news; empty: all news but ends of children
  bool woken = false;
  uint64_t timer = 0;
};

// The interpreter, for callbacks that may come after its end. On the executor.
struct Interpreter::Self {
  Interpreter* interpreter;
};

Interpreter::~Interpreter() {
  if (self_) self_->interpreter = nullptr;
  bounds_.results->Forget();
}

Task<bool> Interpreter::Await(Turn& turn) {
  if (!turn.set) {
    turn.waiting = true;
    --moving_;
    LookForIdleness();
  }
  bool value = co_await turn.shot.Wait(deps_.executor);
  co_return value;
}

void Interpreter::Give(Turn& turn, bool value) {
  if (turn.set) return;
  turn.set = true;
  if (turn.waiting) ++moving_;
  turn.shot.Set(value);
}

Task<bool> Interpreter::Branch(Task<bool> task) {
  bool result = co_await std::move(task);
  --moving_;
  LookForIdleness();
  co_return result;
}

Task<std::vector<bool>> Interpreter::Join(std::vector<Task<bool>> branches) {
  moving_ += static_cast<int>(branches.size()) - 1;
  for (auto& branch : branches) branch = Branch(std::move(branch));
  auto results = co_await WhenAll(std::move(branches));
  ++moving_;
  co_return results;
}

void Interpreter::Wake(const std::shared_ptr<Waiter>& waiter, Woken why) {
  // What comes while the run is on its way out is seen by whoever takes it up.
  if (waiter->woken || (parking_ && why != Woken::kParked && why != Woken::kStop)) return;
  waiter->woken = true;
  ++moving_;
  waiters_.remove(waiter);
  if (waiter->timer != 0) deps_.timers.Cancel(waiter->timer);
  waiter->shot.Set(why);
}

Task<absl::Status> Interpreter::Wait(absl::Time until, bool for_news, Bounds bounds) {
  return WaitOn(until, for_news, std::string(), std::move(bounds));
}

Task<absl::Status> Interpreter::WaitOn(absl::Time until, bool for_news, std::string child, Bounds bounds) {
  until = std::min(until, bounds.deadline);
  if (!self_) self_ = std::make_shared<Self>(Self{this});
  for (;;) {
    if (bounds.stop.stop_requested()) co_return absl::CancelledError("the run was asked to stop");
    absl::Time now = deps_.clock.Now();
    if (now >= until) co_return absl::OkStatus();
    auto waiter = std::make_shared<Waiter>();
    waiter->until = until;
    waiter->for_news = for_news;
    waiter->child = child;
    waiters_.push_back(waiter);
    auto wake = [self = self_, waiter, executor = &deps_.executor](Woken why) {
      executor->Post([self, waiter, why] {
        if (self->interpreter) self->interpreter->Wake(waiter, why);
      });
    };
    if (until < absl::InfiniteFuture()) {
      waiter->timer = deps_.timers.After(until - now, [wake] { wake(Woken::kTime); });
    }
    std::stop_callback on_stop(bounds.stop, [wake] { wake(Woken::kStop); });
    --moving_;
    LookForIdleness();
    Woken why = co_await waiter->shot.Wait(deps_.executor);
    if (why == Woken::kParked) {
      co_return WalkEnd(Error(absl::StatusCode::kAborted, "RUN_PARKED", "the run only waits and has left memory"));
    }
    if (why == Woken::kNews) co_return absl::OkStatus();
    // The clock may lag behind the timer: never early.
  }
}

Task<absl::Status> Interpreter::HoldWhilePaused(Bounds bounds) {
  while (paused_ && !cancel_.stop_requested()) {
    TUTTI_CO_RETURN_IF_ERROR(co_await Wait(absl::InfiniteFuture(), /*for_news=*/true, bounds));
    if (paused_) TUTTI_CO_RETURN_IF_ERROR(Interrupted(bounds));
  }
  co_return absl::OkStatus();
}

void Interpreter::Deliver(const tutti::state::v1::JournalEntry& entry) {
  if (entry.seq() <= delivered_seq_) return;
  delivered_seq_ = entry.seq();
  const std::string child(EndedChild(entry));
  if (!child.empty()) {
    if (auto it = awaited_children_.find(child); it != awaited_children_.end()) it->second = true;
  } else if (entry.has_signal_received()) {
    auto payload = FromPayload(entry.signal_received().payload());
    signals_.push_back({entry.seq(), entry.signal_received().name(), entry.signal_received().sender(),
                        Ref(payload.ok() ? *std::move(payload) : Json(nullptr))});
  } else if (entry.has_pause_requested()) {
    paused_ = true;
  } else if (entry.has_resume_requested()) {
    paused_ = false;
  } else if (!entry.has_cancel_requested()) {
    return;
  }
  inbox_ = std::max(inbox_, entry.seq());
  std::vector<std::shared_ptr<Waiter>> waiting(waiters_.begin(), waiters_.end());
  for (const auto& waiter : waiting) {
    if (waiter->for_news && waiter->child == child) Wake(waiter, Woken::kNews);
  }
}

// Looked for after what is posted now has run, and what that posts: a branch that is just being resumed can move.
void Interpreter::LookForIdleness() {
  if (moving_ > 0 || idle_check_posted_ || parking_ || waiters_.empty()) return;
  if (deps_.park_after == absl::InfiniteDuration() || !self_) return;
  idle_check_posted_ = true;
  deps_.executor.Post([self = self_, executor = &deps_.executor] {
    executor->Post([self] {
      if (self->interpreter) self->interpreter->ParkIfIdle();
    });
  });
}

void Interpreter::ParkIfIdle() {
  idle_check_posted_ = false;
  if (moving_ > 0 || parking_ || waiters_.empty() || stop_.stop_requested()) return;
  absl::Time wake_time = absl::InfiniteFuture();
  for (const auto& waiter : waiters_) wake_time = std::min(wake_time, waiter->until);
  if (wake_time < absl::InfiniteFuture() && wake_time - deps_.clock.Now() <= deps_.park_after) return;
  parking_ = true;
  ++moving_;
  [](Interpreter& interpreter, absl::Time wake_time) -> async_internal::Detached {
    co_await interpreter.Park(wake_time);
  }(*this, wake_time);
}

Task<void> Interpreter::Park(absl::Time wake_time) {
  auto entry = NewEntry();
  entry.mutable_run_parked()->set_inbox_seen(inbox_);
  if (wake_time < absl::InfiniteFuture()) ToProto(wake_time, entry.mutable_run_parked()->mutable_wake_time());
  // Whatever the answer, the walk ends here: given back, or somebody else's.
  absl::Status written = co_await deps_.effects.journal.Commit(std::move(entry));
  (void)written;
  std::vector<std::shared_ptr<Waiter>> waiting(waiters_.begin(), waiters_.end());
  for (const auto& waiter : waiting) Wake(waiter, Woken::kParked);
  park_ended_.Set(true);
}

Task<Interpreter::Result> Interpreter::RunSleep(const tutti::workflow::v1::SleepStep& step, std::string path,
                                                const Variables& variables, Bounds bounds, const StepHistory* known) {
  absl::Time until = absl::InfinitePast();
  if (known) {
    until = known->wake_time;
  } else {
    if (!step.until().empty()) {
      TUTTI_CO_ASSIGN_OR_RETURN(Json value, co_await Evaluate(ExpressionBody(step.until()), variables));
      std::string text = value.is_string() ? value.get<std::string>() : DumpJson(value), error;
      if (!absl::ParseTime(absl::RFC3339_full, text, &until, &error)) {
        co_return Error(
            absl::StatusCode::kInvalidArgument, "BAD_TIME",
            absl::StrCat("sleep.until must give a time such as \"2027-01-31T12:00:00Z\", not \"", text, "\""));
      }
    } else {
      until = deps_.clock.Now() + FromProto(step.duration());
    }
    auto entry = NewEntry();
    auto* waiting = entry.mutable_step_waiting();
    waiting->set_path(path);
    waiting->set_kind("sleep");
    ToProto(until, waiting->mutable_wake_time());
    deps_.effects.journal.Post(std::move(entry));
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await Wait(until, /*for_news=*/false, bounds));
  TUTTI_CO_RETURN_IF_ERROR(deps_.clock.Now() < until ? Interrupted(bounds) : absl::OkStatus());
  co_return Ref(Json{{"until", absl::FormatTime(absl::RFC3339_full, until, absl::UTCTimeZone())}});
}

Task<Interpreter::Result> Interpreter::RunWaitForSignal(const tutti::workflow::v1::WaitForSignalStep& step,
                                                        std::string path, const Variables& variables, Bounds bounds,
                                                        const StepHistory* known, int64_t& signal_seq) {
  absl::Time until = known                ? known->wake_time
                     : step.has_timeout() ? deps_.clock.Now() + FromProto(step.timeout())
                                          : absl::InfiniteFuture();
  auto take = [&]() -> JsonRef {
    for (Signal& signal : signals_) {
      if (signal.taken || signal.name != step.signal()) continue;
      // Also what was accepted for another wait of that name must be right for this one.
      const auto& approvers = step.approval().approvers();
      bool may = approvers.empty() || std::find(approvers.begin(), approvers.end(), signal.sender) != approvers.end();
      if (!may) continue;
      if (step.has_schema() && !ValidateJson(ToJson(step.schema()), *signal.payload, "payload").ok()) continue;
      signal.taken = true;
      signal_seq = signal.seq;
      return signal.payload;
    }
    return nullptr;
  };
  JsonRef payload = take();
  if (!payload && !known) {
    auto entry = NewEntry();
    auto* waiting = entry.mutable_step_waiting();
    waiting->set_path(path);
    waiting->set_kind("wait_for_signal");
    waiting->set_signal(step.signal());
    if (until < absl::InfiniteFuture()) ToProto(until, waiting->mutable_wake_time());
    if (step.has_schema()) ToPayload(ToJson(step.schema()), waiting->mutable_schema());
    if (step.has_approval()) {
      TUTTI_CO_ASSIGN_OR_RETURN(Json title, co_await Expand(Json(step.approval().title()), variables));
      waiting->set_title(title.is_string() ? title.get<std::string>() : DumpJson(title));
      if (step.approval().has_form()) {
        TUTTI_CO_ASSIGN_OR_RETURN(Json form, co_await Expand(ToJson(step.approval().form()), variables));
        TUTTI_CO_RETURN_IF_ERROR(CheckResult(form, waiting->mutable_form()));
      }
      *waiting->mutable_approvers() = step.approval().approvers();
    }
    deps_.effects.journal.Post(std::move(entry));
  }
  while (!payload) {
    if (deps_.clock.Now() >= until) {
      if (step.has_default_()) co_return Ref(ToJson(step.default_()));
      co_return Error(absl::StatusCode::kDeadlineExceeded, "SIGNAL_TIMEOUT",
                      absl::StrCat("no signal \"", step.signal(), "\" came within the step's timeout"));
    }
    TUTTI_CO_RETURN_IF_ERROR(co_await Wait(until, /*for_news=*/true, bounds));
    payload = take();
    if (!payload) TUTTI_CO_RETURN_IF_ERROR(Interrupted(bounds));
  }
  co_return payload;
}

tutti::state::v1::JournalEntry Interpreter::Waits(const std::string& path, const std::string& child_run_id) const {
  auto entry = NewEntry();
  entry.mutable_step_waiting()->set_path(path);
  entry.mutable_step_waiting()->set_kind("sub_workflow");
  entry.mutable_step_waiting()->set_child_run_id(child_run_id);
  return entry;
}

Task<absl::StatusOr<std::string>> Interpreter::StartChild(const tutti::workflow::v1::SubWorkflowStep& step,
                                                          std::string path, std::string key, const Variables& variables,
                                                          Bounds bounds, const StepHistory* known) {
  if (known && !known->child_run_id.empty()) co_return known->child_run_id;
  ChildPort::Start start{step.workflow(), step.version(), Json(), bounds.priority, {}};
  if (step.has_input()) {
    TUTTI_CO_ASSIGN_OR_RETURN(start.input, co_await Expand(ToJson(step.input()), variables));
  } else {
    start.input = *variables.Find("input");
  }
  TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Barrier());
  TUTTI_CO_RETURN_IF_ERROR(Interrupted(bounds));
  if (bounds.budget) {
    TUTTI_CO_RETURN_IF_ERROR(bounds.budget->Check());
    start.budget = bounds.budget->Left();
  }
  for (;;) {
    CallContext call = NewCall(bounds);
    Attempt attempt{subject_.run_id, path, key};
    auto started = co_await deps_.effects.children.StartChild(call, std::move(attempt), start);
    if (started.ok()) {
      deps_.effects.journal.Post(Waits(path, *started));
      co_return started;
    }
    // Whether it was started is not known when the answer is lost, on its way here or on the store's way to its
    // database (UNKNOWN): the same attempt asks for the same child, another would start another.
    const bool perhaps =
        Passing(started.status()) || absl::IsUnknown(started.status()) || absl::IsCancelled(started.status());
    if (!perhaps || halt_.stop_requested()) co_return started;
    if (!Interrupted(bounds).ok()) {  // who gives it up must know what to cancel
      bounds.stop = halt_;
      bounds.deadline = absl::InfiniteFuture();
    }
    TUTTI_CO_RETURN_IF_ERROR(co_await Wait(deps_.clock.Now() + kAskAgainAfter, /*for_news=*/false, bounds));
  }
}

// A walk that goes on elsewhere keeps its child, and whether this one does only the journal knows: what runs beside it
// may have failed because the lease is lost, and who was frozen has timeouts that nobody else has.
Task<tutti::type::v1::UsageTotals> Interpreter::GiveUpChild(std::string path, std::string child, Bounds bounds) {
  tutti::type::v1::UsageTotals used;
  if (halt_.stop_requested()) co_return used;
  absl::Status ours = co_await deps_.effects.journal.Commit(Waits(path, child));
  if (!ours.ok()) co_return used;
  bounds.stop = halt_;
  bounds.deadline = absl::InfiniteFuture();
  for (;;) {  // until it is acknowledged: nobody else will
    CallContext cancel = NewCall(bounds);
    cancel.deadline = deps_.clock.Now() + kCancelTimeout;
    absl::Status cancelled = co_await deps_.effects.children.CancelChild(cancel, child);
    if (!Passing(cancelled) && !absl::IsUnknown(cancelled)) break;
    absl::Status again = co_await Wait(deps_.clock.Now() + kAskAgainAfter, /*for_news=*/false, bounds);
    if (!again.ok()) co_return used;
  }
  // It may go on for a while, to undo what it has done.
  CallContext look = NewCall(bounds);
  look.deadline = deps_.clock.Now() + kCancelTimeout;
  auto looked = co_await deps_.effects.children.LookAtChild(look, child);
  if (looked.ok()) used = std::move(looked->used);
  co_return used;
}

Task<Interpreter::Result> Interpreter::RunSubWorkflow(const tutti::workflow::v1::SubWorkflowStep& step,
                                                      std::string path, std::string key, const Variables& variables,
                                                      Bounds bounds, const StepHistory* known,
                                                      std::optional<tutti::type::v1::UsageTotals>& used) {
  TUTTI_CO_ASSIGN_OR_RETURN(std::string child, co_await StartChild(step, path, key, variables, bounds, known));
  awaited_children_[child] = false;
  Result result = co_await AwaitChild(step, path, child, variables, bounds, used);
  awaited_children_.erase(child);
  co_return result;
}

Task<Interpreter::Result> Interpreter::AwaitChild(const tutti::workflow::v1::SubWorkflowStep& step, std::string path,
                                                  std::string child, const Variables& variables, Bounds bounds,
                                                  std::optional<tutti::type::v1::UsageTotals>& used) {
  auto pay = [&](const tutti::type::v1::UsageTotals& by_child) {
    if (by_child.ByteSizeLong() == 0) return;
    used = by_child;
    if (bounds.budget) bounds.budget->Use(by_child);
  };
  for (;;) {
    awaited_children_[child] = false;
    CallContext call = NewCall(bounds);
    auto looked = co_await deps_.effects.children.LookAtChild(call, child);
    if (!looked.ok() && !Passing(looked.status()) && !absl::IsCancelled(looked.status())) co_return looked.status();
    if (looked.ok() && looked->end) {
      pay(looked->used);
      absl::StatusOr<Json> ended = *std::move(looked->end);
      // Its budgets are not ours: another run has them anew.
      if (!ended.ok()) {
        absl::Status error = Prefix(ended.status(), absl::StrCat("run ", child, ": "));
        co_return ReasonOf(error) == "BUDGET_EXCEEDED" ? SetMetadata(error, "budget", absl::StrCat("runs/", child))
                                                       : error;
      }
      JsonRef output = Ref(*std::move(ended));
      if (step.output().empty()) co_return output;
      Variables mapped(&variables);
      mapped.Set("output", output);
      TUTTI_CO_ASSIGN_OR_RETURN(Json value, co_await Evaluate(ExpressionBody(step.output()), mapped));
      co_return Ref(std::move(value));
    }
    if (looked.ok() && awaited_children_[child]) continue;  // told while it was looked at: the answer may be older
    absl::Time next = deps_.clock.Now() + (looked.ok() ? kLookAtChildEvery : kAskAgainAfter);
    absl::Status waited = co_await WaitOn(next, /*for_news=*/true, child, bounds);
    if (waited.ok()) waited = Interrupted(bounds);
    if (waited.ok()) continue;
    // By a cancel, a timeout, or because what runs beside it has failed.
    if (!EndsWalk(waited)) {
      tutti::type::v1::UsageTotals by_child = co_await GiveUpChild(path, child, bounds);
      pay(by_child);
    }
    co_return waited;
  }
}

}  // namespace tutti::engine
