#include "services/workflow-engine/domain/rehearsal.h"

#include <algorithm>
#include <deque>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/async/scope.h"
#include "runtime/async/sleep.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

using tutti::state::v1::JournalEntry;
using tutti::workflow::v1::Step;
using Steps = google::protobuf::RepeatedPtrField<Step>;

// What is posted runs when Stage::Play says so: a rehearsal needs no threads.
class Queue final : public Executor {
 public:
  void Post(absl::AnyInvocable<void()> fn) override { queue_.push_back(std::move(fn)); }
  void RunUntilIdle() {
    while (!queue_.empty()) {
      auto fn = std::move(queue_.front());
      queue_.pop_front();
      fn();
    }
  }

 private:
  std::deque<absl::AnyInvocable<void()>> queue_;
};

// Time that jumps from one timer to the next.
class Time final : public Clock, public TimerService {
 public:
  absl::Time Now() const override { return now_; }
  uint64_t After(absl::Duration delay, absl::AnyInvocable<void()> fn) override {
    due_.emplace(std::make_pair(now_ + delay, ++last_), std::move(fn));
    return last_;
  }
  bool Cancel(uint64_t id) override {
    auto it = std::find_if(due_.begin(), due_.end(), [id](const auto& timer) { return timer.first.second == id; });
    if (it == due_.end()) return false;
    due_.erase(it);
    return true;
  }
  // False when there is nothing to wait for.
  bool Jump() {
    if (due_.empty()) return false;
    now_ = std::max(now_, due_.begin()->first.first);
    auto fn = std::move(due_.begin()->second);
    due_.erase(due_.begin());
    fn();
    return true;
  }

 private:
  absl::Time now_ = absl::FromUnixSeconds(1767225600);  // 2026-01-01
  uint64_t last_ = 0;
  std::map<std::pair<absl::Time, uint64_t>, absl::AnyInvocable<void()>> due_;
};

// The world of one rehearsal: plays everybody whom the run meets.
class Stage final : public AgentPort,
                    public ToolPort,
                    public ChildPort,
                    public LessonPort,
                    public CachePort,
                    public JournalPort {
 public:
  explicit Stage(Script script, uint64_t seed) : script_(std::move(script)), rng_(seed) {}

  Rehearsed Play(const tutti::workflow::v1::WorkflowSpec& spec, const Json& input,
                 std::function<absl::Status(const tutti::workflow::v1::WorkflowSpec&)> check, const KnownNames& known) {
    const absl::Time begin = time_.Now();
    Admission admission(queue_, time_, {});
    InterpreterDeps deps{queue_,
                         time_,
                         time_,
                         rng_,
                         tracer_,
                         evaluator_,
                         admission,
                         {*this, *this, *this, *this, *this, *this},
                         std::move(check),
                         [&known] { return known; },
                         specialists_};
    RunSubject subject;
    subject.run_id = "rehearsal";
    subject.input = input;
    Interpreter interpreter(deps, subject, spec, History(), halt_.get_token(), cancel_.get_token());
    interpreter_ = &interpreter;
    if (script_.cancel_after < absl::InfiniteDuration()) {
      time_.After(script_.cancel_after, [this] { cancel_.request_stop(); });
    }
    std::optional<absl::StatusOr<Json>> out;
    Scope scope;
    scope.Spawn(queue_, RunInto(interpreter, out));
    queue_.RunUntilIdle();
    while (!out && time_.Jump()) queue_.RunUntilIdle();
    bool stuck = !out;
    if (stuck) {
      halt_.request_stop();
      queue_.RunUntilIdle();
    }
    for (auto& entry : posted_) Write(std::move(entry));
    interpreter_ = nullptr;
    Rehearsed done;
    done.output = stuck ? Stuck() : *std::move(out);
    done.history = std::move(journal_);
    done.took = time_.Now() - begin;
    done.calls = std::move(calls_);
    return done;
  }

  Task<absl::StatusOr<AgentAnswer>> Execute(CallContext& call, Attempt, std::string agent,
                                            const tutti::agent::v1::Agent*, Json input) override {
    TUTTI_CO_ASSIGN_OR_RETURN(Json output, co_await Answer(call, absl::StrCat("agent ", agent), std::move(input)));
    AgentAnswer answer;
    answer.output = std::move(output);
    co_return answer;
  }
  Task<absl::StatusOr<Json>> Execute(CallContext& call, Attempt, std::string tool, Json parameters) override {
    auto output = co_await Answer(call, absl::StrCat("tool ", tool), std::move(parameters));
    co_return output;
  }
  Task<absl::StatusOr<std::string>> StartChild(CallContext&, Attempt attempt, Start start) override {
    children_[attempt.idempotency_key] = std::move(start);
    co_return attempt.idempotency_key;
  }
  Task<absl::StatusOr<Look>> LookAtChild(CallContext& call, std::string id) override {
    const Start& start = children_[id];
    Look out;
    out.end = co_await Answer(call, absl::StrCat("workflow ", start.workflow), start.input);
    co_return out;
  }
  Task<absl::Status> CancelChild(CallContext&, std::string) override { co_return absl::OkStatus(); }
  Task<absl::StatusOr<std::vector<std::string>>> Recall(CallContext&, std::string, std::string, int) override {
    co_return std::vector<std::string>();
  }
  Task<absl::Status> Learn(CallContext&, Attempt, std::string, std::string, double) override {
    co_return absl::OkStatus();
  }
  Task<absl::StatusOr<std::optional<Json>>> Get(CallContext&, std::string) override { co_return std::optional<Json>(); }
  Task<absl::Status> Put(CallContext&, std::string, Json, absl::Duration) override { co_return absl::OkStatus(); }

  void Post(JournalEntry entry) override {
    if (entry.has_step_waiting()) Waits(entry.step_waiting().signal());
    posted_.push_back(std::move(entry));
  }
  bool Retract(const std::function<bool(const JournalEntry&)>& which) override {
    auto it = std::find_if(posted_.begin(), posted_.end(), which);
    if (it == posted_.end()) return false;
    posted_.erase(it);
    return true;
  }
  Task<absl::Status> Commit(JournalEntry entry) override {
    posted_.push_back(std::move(entry));
    for (auto& posted : std::exchange(posted_, {})) Write(std::move(posted));
    co_return absl::OkStatus();
  }
  Task<absl::Status> Barrier() override { co_return absl::OkStatus(); }

 private:
  static Task<void> RunInto(Interpreter& interpreter, std::optional<absl::StatusOr<Json>>& out) {
    auto result = co_await interpreter.Run();
    out.emplace(std::move(result));
  }

  void Write(JournalEntry entry) {
    entry.set_seq(static_cast<int64_t>(journal_.size()) + 1);
    journal_.push_back(std::move(entry));
  }

  // The script's next signal of that name comes in its time.
  void Waits(const std::string& name) {
    auto next = std::find_if(script_.signals.begin(), script_.signals.end(),
                             [&](const auto& signal) { return signal.name == name; });
    if (name.empty() || next == script_.signals.end()) {
      if (!name.empty()) unanswered_.insert(name);
      return;
    }
    JournalEntry entry;
    ToProto(time_.Now() + next->after, entry.mutable_time());
    entry.mutable_signal_received()->set_name(name);
    entry.mutable_signal_received()->set_sender(next->sender);
    ToPayload(next->payload, entry.mutable_signal_received()->mutable_payload());
    time_.After(next->after, [this, entry] {
      for (auto& posted : std::exchange(posted_, {})) Write(std::move(posted));
      Write(entry);
      if (interpreter_) interpreter_->Deliver(journal_.back());
    });
    script_.signals.erase(next);
  }

  Task<absl::StatusOr<Json>> Answer(CallContext& call, std::string who, Json input) {
    calls_.push_back(who);
    auto script = script_.answers.find(who);
    if (script == script_.answers.end() || script->second.empty()) co_return input;
    const int number = ++asked_[who];
    const auto at = std::min(static_cast<size_t>(number), script->second.size()) - 1;
    const ScriptedAnswer& answer = script->second[at];
    if (answer.takes > absl::ZeroDuration()) {
      absl::Duration until = std::min(answer.takes, call.deadline - time_.Now());
      if (!co_await Sleep(time_, queue_, until, call.stop)) co_return absl::CancelledError("stopped");
      if (until < answer.takes) co_return absl::DeadlineExceededError(absl::StrCat(who, " did not answer in time"));
    }
    if (!answer.output.ok()) co_return answer.output.status();
    Variables variables;
    variables.Set("input", Ref(std::move(input)));
    variables.Set("call", Ref(number));
    Evaluator::Context context;
    auto output = co_await evaluator_.Expand(*answer.output, variables, context);
    co_return output;
  }

  absl::Status Stuck() const {
    std::string names = absl::StrJoin(unanswered_, ", ");
    return Error(absl::StatusCode::kDeadlineExceeded, "REHEARSAL_STUCK",
                 names.empty() ? std::string("the run waits for something that never comes")
                               : absl::StrCat("the run waits for signal ", names, ", which the test does not send"));
  }

  Script script_;
  Queue queue_;
  Time time_;
  Xoshiro rng_;
  SpecialistRecords specialists_;
  Tracer tracer_{"rehearsal", time_, rng_, nullptr, 0};
  Evaluator evaluator_;
  std::stop_source halt_, cancel_;
  Interpreter* interpreter_ = nullptr;
  std::vector<JournalEntry> posted_, journal_;
  std::vector<std::string> calls_;
  std::map<std::string, int> asked_;
  std::map<std::string, Start> children_;
  std::set<std::string> unanswered_;
};

bool Matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  if (path.size() < pattern.size()) return false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    int64_t number;
    if (pattern[i] == "*" ? !absl::SimpleAtoi(path[i], &number) : pattern[i] != path[i]) return false;
  }
  return true;
}

// Attempts, visits and rounds are the same place of the spec.
std::vector<std::string> PlaceOf(const std::string& path) {
  std::vector<std::string> out;
  for (absl::string_view part : absl::StrSplit(path, '/')) {
    bool again = part == step_path::kHedgeCopy;
    for (const char* word : {step_path::kAttempt, step_path::kVisit, step_path::kRound, step_path::kGated}) {
      again |= absl::StartsWith(part, word);
    }
    if (!again) out.emplace_back(part);
  }
  return out;
}

}  // namespace

Rehearsed Rehearse(const tutti::workflow::v1::WorkflowSpec& spec, const Json& input, Script script, uint64_t seed,
                   std::function<absl::Status(const tutti::workflow::v1::WorkflowSpec&)> check,
                   const KnownNames& known) {
  Stage stage(std::move(script), seed);
  return stage.Play(spec, input, std::move(check), known);
}

Coverage::Coverage(const tutti::workflow::v1::WorkflowSpec& spec) {
  Visit(spec.steps(), "steps", {});
  for (int i = 0; i < spec.on_error_size(); ++i) {
    Visit(spec.on_error(i).steps(), absl::StrCat("on_error[", i, "].steps"), {absl::StrCat("on-error-", i)});
  }
}

void Coverage::Way(const std::string& path, const std::string& what, std::vector<std::string> parts, Took took) {
  lines_.push_back({path, what});
  places_.push_back({std::move(parts), took, lines_.size() - 1});
}

void Coverage::Visit(const Steps& steps, const std::string& path, std::vector<std::string> parts) {
  for (int i = 0; i < steps.size(); ++i) {
    const Step& step = steps[i];
    const std::string at = absl::StrCat(path, "[", i, "]");
    auto below = [&](std::initializer_list<std::string> more) {
      std::vector<std::string> out = parts;
      out.push_back(step.id());
      out.insert(out.end(), more.begin(), more.end());
      return out;
    };
    Way(at, absl::StrCat(step.id(), " (", KindOf(step), ")"), below({}));
    if (!step.when().empty()) Way(at + ".when", step.id() + ": when is not met", below({}), Took::kSkipped);
    Visit(step.gate().fallback(), at + ".gate.fallback", below({"gate-fallback"}));
    for (int k = 0; k < step.fallback_size(); ++k) {
      Way(absl::StrCat(at, ".fallback[", k, "]"), absl::StrCat(step.id(), ": fallback ", step.fallback(k).id()),
          below({absl::StrCat("fallback-", k)}));
    }
    for (int k = 0; k < step.on_error_size(); ++k) {
      Visit(step.on_error(k).steps(), absl::StrCat(at, ".on_error[", k, "].steps"),
            below({absl::StrCat("on-error-", k)}));
    }
    Visit(step.compensation(), at + ".compensation", below({"compensate"}));
    if (step.has_switch_()) {
      for (int k = 0; k < step.switch_().cases_size(); ++k) {
        Visit(step.switch_().cases(k).steps(), absl::StrCat(at, ".switch.cases[", k, "].steps"),
              below({absl::StrCat("case-", k)}));
      }
      Visit(step.switch_().default_(), at + ".switch.default", below({"default"}));
      if (step.switch_().default_().empty()) Way(at + ".switch", step.id() + ": no case", below({}), Took::kNoCase);
    } else if (step.has_parallel()) {
      for (int k = 0; k < step.parallel().branches_size(); ++k) {
        Visit(step.parallel().branches(k).steps(), absl::StrCat(at, ".parallel.branches[", k, "].steps"),
              below({step.parallel().branches(k).id()}));
      }
    } else if (step.has_pipeline()) {
      for (int k = 0; k < step.pipeline().stages_size(); ++k) {
        const auto& stage = step.pipeline().stages(k);
        Visit(stage.steps(), absl::StrCat(at, ".pipeline.stages[", k, "].steps"), below({stage.id()}));
        Visit(stage.gate().fallback(), absl::StrCat(at, ".pipeline.stages[", k, "].gate.fallback"),
              below({stage.id(), "gate-fallback"}));
      }
    } else if (step.has_reflect()) {
      Visit(step.reflect().generate(), at + ".reflect.generate", below({"generate"}));
      Visit(step.reflect().critique(), at + ".reflect.critique", below({"critique"}));
      Visit(step.reflect().improve(), at + ".reflect.improve", below({"improve"}));
      for (int k = 0; k < step.reflect().panel_size(); ++k) {
        Visit(step.reflect().panel(k).steps(), absl::StrCat(at, ".reflect.panel[", k, "].steps"),
              below({"critique", step.reflect().panel(k).id()}));
      }
    } else if (step.has_for_each()) {
      Visit(step.for_each().steps(), at + ".for_each.steps", below({"*"}));
    } else if (step.has_while_()) {
      Visit(step.while_().steps(), at + ".while.steps", below({"*"}));
    } else if (step.has_adaptive()) {
      Visit(step.adaptive().steps(), at + ".adaptive.steps", below({"planned"}));
    } else if (step.wait_for_signal().has_default_()) {
      Way(at + ".wait_for_signal.default", step.id() + ": no signal in time", below({}), Took::kDefaulted);
    }
  }
}

void Coverage::Add(const Rehearsed& rehearsed) {
  auto take = [this](const std::string& path, Took took) {
    if (path.empty()) return;
    auto parts = PlaceOf(path);
    for (const Place& place : places_) {
      if (place.took == took && Matches(place.parts, parts)) lines_[place.line].taken = true;
    }
  };
  std::set<std::string> chose;  // switches that took a case
  for (const auto& entry : rehearsed.history) {
    take(entry.step_started().path(), Took::kStep);
    take(entry.step_failed().path(), Took::kStep);
    const auto& completed = entry.step_completed();
    take(completed.path(), completed.skipped() ? Took::kSkipped : Took::kStep);
    if (completed.kind() == "wait_for_signal" && !completed.skipped() && completed.signal_seq() == 0) {
      take(completed.path(), Took::kDefaulted);
    }
    for (const std::string& path : {entry.step_started().path(), entry.step_failed().path(), completed.path()}) {
      const std::string of_case = absl::StrCat("/", step_path::kCase);
      for (size_t at = path.find(of_case); at != std::string::npos; at = path.find(of_case, at + 1)) {
        chose.insert(path.substr(0, at));
      }
    }
  }
  for (const auto& entry : rehearsed.history) {
    const auto& completed = entry.step_completed();
    if (completed.kind() == "switch" && !completed.skipped() && !chose.contains(completed.path())) {
      take(completed.path(), Took::kNoCase);
    }
  }
}

int Coverage::percent() const {
  auto taken = std::count_if(lines_.begin(), lines_.end(), [](const Line& line) { return line.taken; });
  return lines_.empty() ? 100 : static_cast<int>(100 * static_cast<size_t>(taken) / lines_.size());
}

}  // namespace tutti::engine
