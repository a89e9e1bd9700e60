// The engine under a seeded simulator: several engines (the real interpreter, journal client and admission) over a
// simulated store, a virtual clock, and a network that delays, loses and repeats. Engines crash, freeze and come back;
// the store is away now and then. After each seed: every accepted run has ended; no step is recorded twice; no signal
// is lost or taken twice; no timer fired early; compensations ran in reverse order for exactly what was completed.
//
// A failing seed is printed and replays exactly: TUTTI_SIM_SEED=17 (seeds.h). The whole suite is simulated by
// suite_simulation_test.cc; this one is quicker, and its store refuses what only it can know to be wrong.
#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/async/scope.h"
#include "runtime/async/sleep.h"
#include "runtime/async/testing/manual_executor.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/rpc/channel.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"
#include "runtime/time/testing/manual_time.h"
#include "services/workflow-engine/adapters/journal_client.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/validator.h"
#include "tests/simulation/run_checks.h"
#include "tests/simulation/seeds.h"

#include <prometheus/registry.h>

namespace tutti::engine {
namespace {

using state::JournalEntry;
using tutti::testing::ManualExecutor;
using tutti::testing::ManualTime;
using tutti::workflow::v1::WorkflowSpec;

constexpr char kSpecs[][1200] = {
    R"(
name: saga
steps:
- {id: one, tool: {tool: t}, compensation: [{id: undo, tool: {tool: t}}]}
- id: both
  parallel:
    branches:
    - {id: left, steps: [{id: two, tool: {tool: t}, compensation: [{id: undo, tool: {tool: t}}]}, {id: nap, sleep: {duration: 7s}}]}
    - {id: right, steps: [{id: three, agent: {agent: a}, retry: {max_attempts: 5}, compensation: [{id: undo, tool: {tool: t}}]}]}
- {id: fails, agent: {agent: fails_sometimes}}
- {id: last, tool: {tool: t}}
)",
    R"(
name: waits
steps:
- {id: first, wait_for_signal: {signal: go}}
- {id: work, agent: {agent: a}, retry: {max_attempts: 8}}
- {id: nap, sleep: {duration: 40s}}
- {id: second, wait_for_signal: {signal: go}}
- {id: third, wait_for_signal: {signal: never, timeout: 30s, default: late}}
output: {first: '${ .first }', second: '${ .second }', third: '${ .third }'}
)",
    R"(
name: loops
steps:
- id: each
  for_each: {items: '[1, 2, 3, 4, 5]', max_concurrency: 2, steps: [{id: do, tool: {tool: t, parameters: {n: '${ .item }'}}, retry: {max_attempts: 9}}]}
- id: loop
  while: {condition: .iteration < 4, steps: [{id: do, agent: {agent: a}, retry: {max_attempts: 9}}]}
- id: graph
  parallel: {fusion: {method: first_success}, branches: [{id: x, steps: [{id: s, agent: {agent: a}}]}, {id: y, steps: [{id: s, tool: {tool: t}}]}]}
)"};

struct StoredRun {
  std::string id;
  const WorkflowSpec* spec = nullptr;
  std::vector<JournalEntry> journal;
  int64_t epoch = 0, last_writer_seq = 0, inbox = 0;
  int owner = -1;  // an engine's incarnation
  bool waiting = false, ended = false;
  absl::Time wake_time = absl::InfiniteFuture(), lease_end = absl::InfinitePast();
  std::vector<int> signals_sent;
};

struct Sim;

// The store: appends are checked and made as the state-manager makes them.
class SimStore {
 public:
  explicit SimStore(Sim& sim) : sim_(sim) {}
  Task<absl::Status> Append(CallContext& call, const state::AppendRequest& request, state::AppendResponse& response);
  void Write(StoredRun& run, JournalEntry entry);
  std::map<std::string, StoredRun> runs;
  bool away = false;

 private:
  Sim& sim_;
};

struct Engine;

struct Sim {
  explicit Sim(uint64_t seed) : rng(seed), store(*this) {}
  ManualExecutor executor;
  ManualTime time;
  Xoshiro rng;
  SimStore store;
  Tracer tracer{"sim", time, rng, nullptr, 0};
  Evaluator evaluator;
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  RpcMetrics metrics{*registry};
  Scope scope;
  ServerEnv env{executor, scope, tracer, metrics, time};
  LocalMethods local{time};
  Logger log{"sim", LogLevel::kError, time};
  std::vector<WorkflowSpec> specs{3};
  std::vector<std::shared_ptr<Engine>> engines;
  int next_incarnation = 0;
  std::map<std::string, int> finished_calls;  // by idempotency key
  std::vector<std::string> problems;

  bool Chance(double p) { return rng.Unit() < p; }
  absl::Duration Delay(double most_seconds) { return absl::Seconds(rng.Unit() * most_seconds); }
  void Problem(const std::string& what) { problems.push_back(what); }
};

void SimStore::Write(StoredRun& run, JournalEntry entry) {
  entry.set_seq(static_cast<int64_t>(run.journal.size()) + 1);
  if (entry.has_step_waiting() || !entry.has_time()) ToProto(sim_.time.Now(), entry.mutable_time());
  run.journal.push_back(std::move(entry));
}

Task<absl::Status> SimStore::Append(CallContext&, const state::AppendRequest& request,
                                    state::AppendResponse& response) {
  // On its way there and back: late, or lost after it was made.
  co_await Sleep(sim_.time, sim_.executor, sim_.Delay(0.2), {});
  auto away_for_now = [&] { *response.mutable_status() = ToRpcStatus(absl::UnavailableError("the store is away")); };
  if (away || sim_.Chance(0.03)) {
    away_for_now();
    co_return absl::OkStatus();
  }
  StoredRun& run = runs.at(request.run_id());
  if (run.epoch != request.lease_epoch()) {
    *response.mutable_status() = ToRpcStatus(Error(absl::StatusCode::kAborted, "LEASE_LOST", "another's"));
  } else if (request.writer_seq() + request.entries_size() - 1 <= run.last_writer_seq) {
    // Made before; the answer was lost.
  } else if (run.ended) {
    *response.mutable_status() = ToRpcStatus(Error(absl::StatusCode::kFailedPrecondition, "RUN_ENDED", "over"));
  } else if (request.writer_seq() != run.last_writer_seq + 1) {
    *response.mutable_status() = ToRpcStatus(Error(absl::StatusCode::kFailedPrecondition, "JOURNAL_GAP", "gap"));
  } else {
    run.last_writer_seq = request.writer_seq() + request.entries_size() - 1;
    for (const auto& entry : request.entries()) {
      Write(run, entry);
      if (entry.has_run_finished()) run.ended = true;
      if (entry.has_run_parked()) {
        run.waiting = run.inbox <= entry.run_parked().inbox_seen();
        run.wake_time = entry.run_parked().has_wake_time()
                            ? absl::FromUnixSeconds(entry.run_parked().wake_time().seconds()) +
                                  absl::Nanoseconds(entry.run_parked().wake_time().nanos())
                            : absl::InfiniteFuture();
        run.owner = -1;
        ++run.epoch;
        run.last_writer_seq = 0;
      }
    }
    if (sim_.Chance(0.03)) away_for_now();  // made, and the answer lost
  }
  co_await Sleep(sim_.time, sim_.executor, sim_.Delay(0.2), {});
  co_return absl::OkStatus();
}

class SimAgents final : public AgentPort, public ToolPort {
 public:
  explicit SimAgents(Sim& sim) : sim_(sim) {}
  Task<absl::StatusOr<AgentAnswer>> Execute(CallContext& call, Attempt attempt, std::string agent,
                                            const tutti::agent::v1::Agent*, Json input) override {
    auto output = co_await Act(call, attempt, agent, std::move(input));
    if (!output.ok()) co_return output.status();
    AgentAnswer answer;
    answer.output = *std::move(output);
    co_return answer;
  }
  Task<absl::StatusOr<Json>> Execute(CallContext& call, Attempt attempt, std::string tool, Json parameters) override {
    auto output = co_await Act(call, attempt, tool, std::move(parameters));
    co_return output;
  }

 private:
  Task<absl::StatusOr<Json>> Act(CallContext& call, Attempt attempt, std::string who, Json input) {
    bool slept = co_await Sleep(sim_.time, sim_.executor, sim_.Delay(3), call.stop);
    if (!slept) co_return absl::CancelledError("given up");
    bool undoing = absl::StrContains(attempt.step_path, "/compensate/");
    if (who == "a" && !undoing && sim_.Chance(0.2)) co_return absl::UnavailableError("the worker vanished");
    // The same run fails the same way, whoever asks.
    if (who == "fails_sometimes" && absl::EndsWith(attempt.run_id, "f")) {
      co_return absl::FailedPreconditionError("it was to be");
    }
    co_return input;
  }
  Sim& sim_;
};

class NoOthers final : public ChildPort, public LessonPort, public CachePort {
 public:
  Task<absl::StatusOr<std::string>> StartChild(CallContext&, Attempt, Start) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::StatusOr<Look>> LookAtChild(CallContext&, std::string) override { co_return absl::UnimplementedError(""); }
  Task<absl::Status> CancelChild(CallContext&, std::string) override { co_return absl::UnimplementedError(""); }
  Task<absl::StatusOr<std::vector<std::string>>> Recall(CallContext&, std::string, std::string, int) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::Status> Learn(CallContext&, Attempt, std::string, std::string, double) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::StatusOr<std::optional<Json>>> Get(CallContext&, std::string) override { co_return std::optional<Json>(); }
  Task<absl::Status> Put(CallContext&, std::string, Json, absl::Duration) override { co_return absl::OkStatus(); }
};

// One process that works on runs. A crash halts its walks and throws away what it had not sent.
struct Engine {
  explicit Engine(Sim& sim)
      : sim(sim),
        incarnation(++sim.next_incarnation),
        agents(sim),
        journal(RpcPeer(), sim.local, sim.executor, sim.time, sim.time, sim.tracer, sim.rng, sim.log),
        admission(sim.executor, sim.time, {.total = 3}) {}
  Sim& sim;
  const int incarnation;
  SimAgents agents;
  NoOthers others;
  JournalClient journal;
  Admission admission;
  SpecialistRecords specialists;
  std::map<std::string, Interpreter*> walking;
  std::stop_source halt;
  bool dead = false, frozen = false;
};

Task<void> WorkOn(Sim& sim, std::shared_ptr<Engine> engine, StoredRun& run, int64_t epoch) {
  History history;
  for (const auto& entry : run.journal) EXPECT_TRUE(history.Add(entry).ok());
  RunJournal journal(engine->journal, sim.time, sim.executor, run.id, epoch);
  InterpreterDeps deps{sim.executor,
                       sim.time,
                       sim.time,
                       sim.rng,
                       sim.tracer,
                       sim.evaluator,
                       engine->admission,
                       {engine->agents, engine->agents, engine->others, engine->others, engine->others, journal},
                       [](const WorkflowSpec&) { return absl::OkStatus(); },
                       [] { return KnownNames(); },
                       engine->specialists,
                       nullptr,
                       absl::Seconds(5)};
  RunSubject subject;
  subject.run_id = run.id;
  subject.input = Json::object();
  subject.inbox = run.inbox;
  std::stop_source cancel;
  Interpreter interpreter(deps, subject, *run.spec, std::move(history), engine->halt.get_token(), cancel.get_token());
  engine->walking[run.id] = &interpreter;
  JournalEntry started;
  started.mutable_run_started();
  journal.Post(started);
  auto output = co_await interpreter.Run();
  engine->walking.erase(run.id);
  if (EndsWalk(output.status())) co_return;
  JournalEntry finished;
  if (output.ok()) {
    finished.mutable_run_finished()->set_outcome(state::OUTCOME_SUCCEEDED);
    ToPayload(*output, finished.mutable_run_finished()->mutable_output());
  } else {
    finished.mutable_run_finished()->set_outcome(state::OUTCOME_FAILED);
  }
  absl::Status written = co_await journal.Commit(std::move(finished));
  (void)written;
}

// The engines' leases, claims and news, a step of a tenth of a second at a time.
void Tick(Sim& sim) {
  for (auto& engine : sim.engines) {
    if (engine->dead || engine->frozen) continue;
    for (auto& [id, run] : sim.store.runs) {
      if (run.owner == engine->incarnation) run.lease_end = sim.time.Now() + absl::Seconds(5);
      if (run.ended || sim.store.away) continue;
      if (run.waiting && run.wake_time <= sim.time.Now()) run.waiting = false;
      bool free = !run.waiting && (run.owner < 0 || run.lease_end <= sim.time.Now());
      if (free && run.owner != engine->incarnation && engine->walking.count(id) == 0 && sim.Chance(0.3)) {
        run.owner = engine->incarnation;
        run.lease_end = sim.time.Now() + absl::Seconds(5);
        run.last_writer_seq = 0;
        sim.scope.Spawn(sim.executor, WorkOn(sim, engine, run, ++run.epoch));
      }
      // News, which may be lost: looked at again with the next tick.
      auto walking = engine->walking.find(id);
      if (walking == engine->walking.end() || walking->second->inbox() >= run.inbox || sim.Chance(0.5)) continue;
      for (const auto& entry : run.journal) {
        if (entry.has_signal_received()) walking->second->Deliver(entry);
      }
    }
  }
}

void Check(Sim& sim) {
  for (auto& [id, run] : sim.store.runs) {
    simulation::RunStory story;
    story.run_id = id;
    story.workflow = run.spec->name();
    story.journal = run.journal;
    story.must_fail = absl::EndsWith(id, "f");
    simulation::CheckStory(story, [&sim](const std::string& what) { sim.Problem(what); });
  }
}

std::vector<std::string> RunSeed(uint64_t seed) {
  Sim sim(seed);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(ParseYaml(kSpecs[i], "sim", &sim.specs[static_cast<size_t>(i)]).ok());
  }
  sim.local.Add(sim.env, "tutti.state.v1.JournalService/Append", sim.store, &SimStore::Append);
  for (int i = 0; i < 2; ++i) sim.engines.push_back(std::make_shared<Engine>(sim));
  const int runs = 6;
  for (int i = 0; i < runs; ++i) {
    std::string id = absl::StrCat("run", i, sim.Chance(0.5) ? "f" : "");
    StoredRun& run = sim.store.runs[id];
    run.id = id;
    run.spec = &sim.specs[static_cast<size_t>(i % 3)];
  }
  std::vector<std::shared_ptr<Engine>> graveyard;
  auto all_ended = [&] {
    return std::all_of(sim.store.runs.begin(), sim.store.runs.end(),
                       [](const auto& entry) { return entry.second.ended; });
  };
  for (int tick = 0; tick < 20000 && !all_ended(); ++tick) {
    bool stormy = tick < 1500;
    if (stormy && sim.Chance(0.01)) sim.store.away = !sim.store.away;
    if (!stormy) sim.store.away = false;
    for (auto& engine : sim.engines) {
      if (stormy && !engine->frozen && sim.Chance(0.004)) engine->frozen = true;
      if (engine->frozen && (!stormy || sim.Chance(0.01))) engine->frozen = false;
      if (stormy && sim.Chance(0.004)) {  // kill -9, and another in its place
        engine->dead = true;
        engine->halt.request_stop();
        graveyard.push_back(std::exchange(engine, std::make_shared<Engine>(sim)));
      }
    }
    for (auto& [id, run] : sim.store.runs) {
      bool wants = run.spec->name() == "waits" && run.signals_sent.size() < 2 && !run.ended;
      if (!wants || !sim.Chance(0.01)) continue;
      int number = static_cast<int>(run.signals_sent.size()) + 1;
      run.signals_sent.push_back(number);
      JournalEntry signal;
      signal.mutable_signal_received()->set_name("go");
      ToPayload(number, signal.mutable_signal_received()->mutable_payload());
      sim.store.Write(run, signal);
      run.inbox = static_cast<int64_t>(run.journal.size());
      run.waiting = false;
    }
    Tick(sim);
    sim.executor.RunUntilIdle();
    sim.time.Advance(absl::Milliseconds(100));
    sim.executor.RunUntilIdle();
  }
  Check(sim);
  // Ended in order: first what walks, then what carries it.
  for (auto& engine : sim.engines) graveyard.push_back(engine);
  for (auto& engine : graveyard) engine->halt.request_stop();
  for (int i = 0; i < 200; ++i) {
    sim.executor.RunUntilIdle();
    sim.time.Advance(absl::Seconds(1));
  }
  sim.executor.RunUntilIdle();
  return sim.problems;
}

TEST(SimulationTest, NothingIsLostWhateverHappens) {
  const simulation::Seeds seeds = simulation::SeedsFromEnvironment(1000);
  for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    auto problems = RunSeed(seed);
    EXPECT_TRUE(problems.empty()) << "TUTTI_SIM_SEED=" << seed << ": " << absl::StrJoin(problems, "; ");
  }
}

}  // namespace
}  // namespace tutti::engine
