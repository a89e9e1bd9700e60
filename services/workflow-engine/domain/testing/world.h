// The world as tests of the interpreter see it: a journal in memory that survives "crashes", agents and tools that are
// told what to answer, children that end when the test says so, and a clock that moves when the test says so.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/async/testing/manual_executor.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/time/testing/manual_time.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/validator.h"

namespace tutti::engine::testing {

using tutti::state::v1::JournalEntry;
using tutti::testing::HasCode;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;
using tutti::testing::ManualExecutor;
using tutti::testing::ManualTime;
using tutti::workflow::v1::WorkflowSpec;

struct World final : PatternObserver {
  void Ended(const std::string& kind, bool good, absl::Duration) override {
    observed.push_back(absl::StrCat(kind, good ? " ended" : " failed"));
  }
  void Rounds(const std::string& kind, int rounds, double score) override {
    observed.push_back(absl::StrCat(kind, " ", rounds, " rounds ", score));
  }
  void Judged(bool passed) override { observed.push_back(passed ? "gate passed" : "gate failed"); }

  std::vector<std::string> observed;
  SpecialistRecords specialists;
  ManualExecutor executor;
  ManualTime time;
  Xoshiro rng{7};
  Tracer tracer{"test", time, rng, nullptr, 0};
  Evaluator evaluator;
  std::vector<JournalEntry> journal;  // what is durable
  std::vector<std::string> calls;     // idempotency keys, in order
  absl::Time start_by;                // of the last call
  std::function<absl::StatusOr<Json>(const std::string& target, const Json& input)> answer =
      [](const std::string&, const Json& input) { return input; };
  // A call waits until the test lets it go, when set.
  bool hold = false;
  std::deque<std::shared_ptr<OneShot<bool>>> held;
  int commits_until_crash = -1;  // then every Commit answers LEASE_LOST, as a dead engine would see
  // Of children, by run id: how they ended.
  std::map<std::string, absl::StatusOr<Json>> children_ended;
  std::vector<std::string> children_started, children_cancelled;
  std::vector<tutti::workflow::v1::StepBudget> child_budgets;
  std::map<std::string, int> looks;                        // at children
  std::function<void(const std::string& run_id)> on_look;  // after it was seen how the child is
  int tokens_per_child = 0;
  std::map<std::string, Json> cache;
  std::vector<std::string> lessons;
  int tokens_per_call = 0;
  int64_t next_seq = 1;

  void Write(JournalEntry entry) {
    entry.set_seq(next_seq++);
    journal.push_back(std::move(entry));
  }
};

inline Task<absl::StatusOr<Json>> Act(World& world, CallContext& call, Attempt attempt, std::string target,
                                      Json input) {
  world.calls.push_back(attempt.idempotency_key);
  world.start_by = call.start_by;
  if (world.hold) {
    auto gate = std::make_shared<OneShot<bool>>();
    world.held.push_back(gate);
    std::stop_callback on_stop(call.stop, [gate] { gate->Set(false); });
    bool go = co_await gate->Wait(*call.executor);
    if (!go) co_return absl::CancelledError("stopped");
  }
  if (world.time.Now() >= call.deadline) co_return absl::DeadlineExceededError("too late");
  co_return world.answer(target, input);
}

class FakeAgents final : public AgentPort {
 public:
  explicit FakeAgents(World& world) : world_(world) {}
  Task<absl::StatusOr<AgentAnswer>> Execute(CallContext& call, Attempt attempt, std::string agent,
                                            const tutti::agent::v1::Agent*, Json input) override {
    auto output = co_await Act(world_, call, attempt, agent, std::move(input));
    if (!output.ok()) co_return output.status();
    AgentAnswer answer;
    answer.output = *output;
    if (world_.tokens_per_call > 0) {
      answer.usage.emplace_back();
      answer.usage[0].set_calls(1);
      answer.usage[0].set_input_tokens(world_.tokens_per_call);
    }
    co_return answer;
  }

 private:
  World& world_;
};

class FakeTools final : public ToolPort {
 public:
  explicit FakeTools(World& world) : world_(world) {}
  Task<absl::StatusOr<Json>> Execute(CallContext& call, Attempt attempt, std::string tool, Json parameters) override {
    auto output = co_await Act(world_, call, attempt, tool, std::move(parameters));
    co_return output;
  }

 private:
  World& world_;
};

class FakeChildren final : public ChildPort {
 public:
  explicit FakeChildren(World& world) : world_(world) {}
  Task<absl::StatusOr<std::string>> StartChild(CallContext&, Attempt attempt, Start start) override {
    std::string run_id = absl::StrCat("child-", attempt.idempotency_key);
    world_.children_started.push_back(absl::StrCat(start.workflow, " ", start.input.dump()));
    world_.child_budgets.push_back(start.budget);
    co_return run_id;
  }
  Task<absl::StatusOr<Look>> LookAtChild(CallContext&, std::string run_id) override {
    Look out;
    if (auto it = world_.children_ended.find(run_id); it != world_.children_ended.end()) out.end = it->second;
    out.used.set_input_tokens(world_.tokens_per_child);
    ++world_.looks[run_id];
    if (world_.on_look) world_.on_look(run_id);
    co_return out;
  }
  Task<absl::Status> CancelChild(CallContext&, std::string run_id) override {
    world_.children_cancelled.push_back(run_id);
    co_return absl::OkStatus();
  }

 private:
  World& world_;
};

class FakeLessons final : public LessonPort {
 public:
  explicit FakeLessons(World& world) : world_(world) {}
  Task<absl::StatusOr<std::vector<std::string>>> Recall(CallContext&, std::string, std::string, int) override {
    co_return world_.lessons;
  }
  Task<absl::Status> Learn(CallContext&, Attempt, std::string, std::string lesson, double) override {
    world_.lessons.push_back(lesson);
    co_return absl::OkStatus();
  }

 private:
  World& world_;
};

class FakeCache final : public CachePort {
 public:
  explicit FakeCache(World& world) : world_(world) {}
  Task<absl::StatusOr<std::optional<Json>>> Get(CallContext&, std::string key) override {
    std::optional<Json> out;
    if (world_.cache.count(key) > 0) out = world_.cache[key];
    co_return out;
  }
  Task<absl::Status> Put(CallContext&, std::string key, Json value, absl::Duration) override {
    world_.cache[key] = std::move(value);
    co_return absl::OkStatus();
  }

 private:
  World& world_;
};

class FakeJournal final : public JournalPort {
 public:
  explicit FakeJournal(World& world) : world_(world) {}
  void Post(JournalEntry entry) override { posted_.push_back(std::move(entry)); }
  bool Retract(const std::function<bool(const JournalEntry&)>& which) override {
    auto it = std::find_if(posted_.begin(), posted_.end(), which);
    if (it == posted_.end()) return false;
    posted_.erase(it);
    return true;
  }
  Task<absl::Status> Barrier() override {
    size_t count = EndOfResults(posted_);
    if (count == 0) co_return absl::OkStatus();
    std::vector<JournalEntry> beginnings(posted_.begin() + static_cast<int64_t>(count), posted_.end());
    JournalEntry last = posted_[count - 1];
    posted_.resize(count - 1);
    absl::Status status = co_await Commit(std::move(last));
    posted_ = std::move(beginnings);
    co_return status;
  }
  // All that was posted, durable.
  Task<absl::Status> Flush() {
    if (posted_.empty()) co_return absl::OkStatus();
    JournalEntry last = std::move(posted_.back());
    posted_.pop_back();
    absl::Status status = co_await Commit(std::move(last));
    co_return status;
  }
  Task<absl::Status> Commit(JournalEntry entry) override {
    if (world_.commits_until_crash == 0) co_return WalkEnd(Error(absl::StatusCode::kAborted, "LEASE_LOST", "crashed"));
    if (world_.commits_until_crash > 0) --world_.commits_until_crash;
    for (auto& posted : posted_) world_.Write(std::move(posted));
    posted_.clear();
    world_.Write(std::move(entry));
    co_return absl::OkStatus();
  }

 private:
  World& world_;
  std::vector<JournalEntry> posted_;
};

// As a host does it: the run's end is written with what was posted before it.
inline Task<void> RunInto(Interpreter& interpreter, FakeJournal& journal, std::optional<absl::StatusOr<Json>>& out) {
  auto result = co_await interpreter.Run();
  if (!EndsWalk(result.status())) {
    absl::Status written = co_await journal.Flush();
    if (!written.ok()) result = written;
  }
  out.emplace(std::move(result));
}

class InterpreterTest : public ::testing::Test {
 protected:
  WorkflowSpec Spec(const std::string& steps) {
    WorkflowSpec spec;
    EXPECT_THAT(ParseYaml("name: test\n" + steps, "test.yaml", &spec), IsOk());
    EXPECT_THAT(ValidateSpec(spec, Known(), world_.evaluator), IsOk());
    return spec;
  }
  static KnownNames Known() {
    return {{{"a", "does a"}, {"b", "does b"}, {"c", ""}, {"judge", ""}, {"boss", ""}},
            {{"t", "a tool"}, {"check", ""}}};
  }

  // Walks until nothing moves any more; keeps going over timers when `advance` is given.
  absl::StatusOr<Json> Walk(const WorkflowSpec& spec, Json input = Json::object(),
                            absl::Duration advance = absl::ZeroDuration()) {
    History history;
    for (const auto& entry : world_.journal) EXPECT_THAT(history.Add(entry), IsOk());
    FakeAgents agents(world_);
    FakeTools tools(world_);
    FakeChildren children(world_);
    FakeLessons lessons(world_);
    FakeCache cache(world_);
    FakeJournal journal(world_);
    Admission admission(world_.executor, world_.time, limits_);
    InterpreterDeps deps{
        world_.executor,
        world_.time,
        world_.time,
        world_.rng,
        world_.tracer,
        world_.evaluator,
        admission,
        {agents, tools, children, lessons, cache, journal},
        [this](const WorkflowSpec& proposed) { return ValidateSpec(proposed, Known(), world_.evaluator); },
        Known,
        world_.specialists,
        &world_,
        park_after_,
        owned_until_,
        tenant_results_};
    RunSubject subject;
    subject.run_id = "run1";
    subject.input = std::move(input);
    Interpreter interpreter(deps, subject, spec, std::move(history), halt_.get_token(), stop_.get_token());
    current_ = &interpreter;
    std::optional<absl::StatusOr<Json>> out;
    Scope scope;
    scope.Spawn(world_.executor, RunInto(interpreter, journal, out));
    world_.executor.RunUntilIdle();
    while (!out && (advance > absl::ZeroDuration() || !world_.held.empty() || on_idle_)) {
      if (!world_.held.empty()) {
        on_held_();
      } else if (on_idle_) {
        std::exchange(on_idle_, nullptr)();
      } else {
        if (world_.time.pending() == 0) break;
        world_.time.Advance(advance);
      }
      world_.executor.RunUntilIdle();
    }
    if (!out) {  // what hangs is ended, so that the test can say so
      hung_ = true;
      halt_.request_stop();
      while (!world_.held.empty()) LetGo(0);
      world_.executor.RunUntilIdle();
    }
    EXPECT_TRUE(!hung_ || may_hang_) << "the walk hangs";
    last_percent_ = interpreter.progress_percent();
    current_ = nullptr;
    return out ? std::move(*out) : absl::InternalError("hangs");
  }

  // As another would write to the run's journal.
  void Deliver(JournalEntry entry) {
    world_.Write(std::move(entry));
    if (current_) current_->Deliver(world_.journal.back());
  }
  void SendSignal(const std::string& name, const Json& payload) {
    JournalEntry entry;
    entry.mutable_signal_received()->set_name(name);
    ToPayload(payload, entry.mutable_signal_received()->mutable_payload());
    Deliver(std::move(entry));
  }

  void LetGo(size_t index) {
    auto gate = world_.held[index];
    world_.held.erase(world_.held.begin() + static_cast<int64_t>(index));
    gate->Set(true);
  }

  // The paths of completed steps, in the order of their ends.
  std::vector<std::string> CompletedPaths() const {
    std::vector<std::string> out;
    for (const auto& entry : world_.journal) {
      if (entry.has_step_completed()) out.push_back(entry.step_completed().path());
    }
    return out;
  }

  World world_;
  std::stop_source stop_, halt_;
  std::function<void()> on_held_ = [this] { LetGo(0); };
  std::function<void()> on_idle_;  // once, when nothing moves
  std::shared_ptr<ResultMeter> tenant_results_;
  std::function<absl::Time()> owned_until_;
  absl::Duration park_after_ = absl::InfiniteDuration();
  Admission::Limits limits_;
  Interpreter* current_ = nullptr;
  bool may_hang_ = false, hung_ = false;
  int last_percent_ = 0;
};

}  // namespace tutti::engine::testing
