// The whole suite under a seeded simulator (suite.h): services crash, stand still and come back, the network delays,
// loses, repeats and reorders, the database is away and loses answers, clocks differ. Meanwhile callers start runs,
// send signals, cancel, terminate, pause, retry, fork, schedule and watch. When the weather has cleared, everything
// that was acknowledged must have happened, once.
//
// A failing seed is printed and replays exactly: TUTTI_SIM_SEED=17 (seeds.h).
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/async/sleep.h"
#include "runtime/config/yaml_proto.h"
#include "tests/simulation/run_checks.h"
#include "tests/simulation/seeds.h"
#include "tests/simulation/suite.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::simulation {
namespace {

namespace wf = tutti::workflow::v1;

// Paths rather than jq, which every life of an engine would compile anew.
const char* const kSpecs[] = {
    R"(
name: saga
steps:
- id: one
  tool: {tool: calculate, parameters: {expression: 1 + 1}}
  retry: {max_attempts: 20}
  compensation: [{id: undo, tool: {tool: calculate, parameters: {expression: 1 - 1}}, retry: {max_attempts: 50}}]
- id: both
  parallel:
    branches:
    - id: left
      steps:
      - id: two
        tool: {tool: calculate, parameters: {expression: 2 + 2}}
        retry: {max_attempts: 20}
        compensation: [{id: undo, tool: {tool: calculate, parameters: {expression: 2 - 2}}, retry: {max_attempts: 50}}]
      - {id: nap, sleep: {duration: 7s}}
    - id: right
      steps:
      - id: three
        agent: {agent: echo, input: 3}
        retry: {max_attempts: 20}
        compensation: [{id: undo, tool: {tool: calculate, parameters: {expression: 3 - 3}}, retry: {max_attempts: 50}}]
- {id: fails, when: '${ .input.fails }', fail: {reason: AS_ASKED, message: it was to be}}
- {id: last, tool: {tool: calculate, parameters: {expression: 4 + 4}}, retry: {max_attempts: 20}}
)",
    R"(
name: waits
steps:
- {id: first, wait_for_signal: {signal: go}}
- {id: work, agent: {agent: echo, input: 1}, retry: {max_attempts: 20}}
- {id: nap, sleep: {duration: 40s}}
- {id: second, wait_for_signal: {signal: go}}
- {id: third, wait_for_signal: {signal: never, timeout: 30s, default: late}}
output: {first: '${ .first }', second: '${ .second }', third: '${ .third }'}
)",
    R"(
name: loops
steps:
- id: each
  for_each:
    items: '${ .input.five }'
    max_concurrency: 2
    steps: [{id: do, tool: {tool: calculate, parameters: {expression: '${ .item }'}}, retry: {max_attempts: 20}}]
- id: loop
  while: {condition: .iteration < 4, steps: [{id: do, agent: {agent: echo, input: x}, retry: {max_attempts: 20}}]}
- id: graph
  parallel:
    fusion: {method: first_success}
    branches:
    - {id: x, steps: [{id: s, agent: {agent: echo, input: x}}]}
    - {id: y, steps: [{id: s, tool: {tool: calculate, parameters: {expression: '5'}}}]}
)",
    R"(
name: leaf
steps:
- {id: nap, sleep: {duration: 3s}}
- {id: say, agent: {agent: echo, input: '${ .input }'}, retry: {max_attempts: 20}}
output: '${ .say }'
)",
    R"(
name: family
steps:
- id: children
  for_each:
    items: '${ .input.three }'
    max_concurrency: 3
    steps: [{id: child, sub_workflow: {workflow: leaf, input: '${ .item }'}, retry: {max_attempts: 20}}]
)",
    R"(
name: late
steps:
- {id: first, tool: {tool: calculate, parameters: {expression: 1 + 2}}, retry: {max_attempts: 20}}
- {id: answer, wait_for_signal: {signal: go, timeout: 10s}}
- {id: last, agent: {agent: echo, input: '${ .answer }'}, retry: {max_attempts: 20}}
output: '${ .last }'
)",
    // Every pattern. The gate sends the plan back once, and what it did is undone; the budget ends the endless loop.
    R"(
name: craft
steps:
- id: made
  pipeline:
    stages:
    - id: plan
      steps:
      - id: one
        agent: {agent: echo, input: {seen: '${ .feedback }'}}
        retry: {max_attempts: 20}
        compensation: [{id: undo, tool: {tool: calculate, parameters: {expression: 1 - 1}}, retry: {max_attempts: 50}}]
    - id: check
      steps: [{id: look, agent: {agent: echo, input: x}, retry: {max_attempts: 20}}]
      gate: {expression: .plan.seen, go_back_to: plan, max_returns: 1}
- id: essay
  reflect:
    lessons: {agent: writer}
    generate: [{id: make, agent: {agent: echo, input: text}, retry: {max_attempts: 20}}]
    critique: [{id: judge, agent: {agent: echo, input: {score: 0.5, feedback: more}}, retry: {max_attempts: 20}}]
    max_rounds: 2
- id: team
  retry: {max_attempts: 20}
  supervisor:
    task: Find the law. Add the sums.
    decomposer: decomposer
    integrator: integrator
    specialists:
    - {agent: echo, capabilities: [law], expertise: [law]}
    - {agent: critic, capabilities: [sums], expertise: [sums]}
- id: race
  parallel:
    hedge_after: 0.2s
    branches:
    - {id: x, steps: [{id: s, agent: {agent: echo, input: x}, retry: {max_attempts: 20}}]}
    - {id: y, steps: [{id: s, tool: {tool: calculate, parameters: {expression: '5'}}, retry: {max_attempts: 20}}]}
- id: bounded
  budget: {calls: 6}
  while: {condition: .input.five, max_iterations: 1000, steps: [{id: ask, agent: {agent: echo, input: x}, retry: {max_attempts: 20}}]}
  on_error: [{reasons: [BUDGET_EXCEEDED], steps: [{id: say, transform: {value: enough}}]}]
- {id: fails, when: '${ .input.fails }', fail: {reason: AS_ASKED, message: it was to be}}
output: {made: '${ .made }', essay: '${ .essay }', race: '${ .race.x }', bounded: '${ .bounded }'}
)",
    R"(
name: tick
steps: [{id: say, agent: {agent: echo, input: tick}, retry: {max_attempts: 20}}]
)"};

constexpr absl::Duration kStorm = absl::Seconds(90);
constexpr absl::Duration kPatience = absl::Minutes(60);
// In fair weather: until who watches a run has seen its end.
constexpr absl::Duration kPrompt = absl::Seconds(30);
constexpr absl::Duration kEvery = absl::Seconds(10);

// What a caller knows of a run.
struct Told {
  std::string name, workflow, run_id;
  bool must_fail = false, meddled = false, terminated = false, resumed = false, ended = false;
  std::string state;
  std::set<int64_t> offsets;  // of signals that were acknowledged
  // What its watcher has seen; -1: nobody watches.
  int64_t seen = -1;
  int progress = 0;
};

class Drama {
 public:
  explicit Drama(uint64_t seed) : world_(seed), suite_(world_) {
    const double severity = static_cast<double>(world_.Pick(4)) / 2;  // 0 to 1.5
    suite_.network().weather = {.lost = 0.02 * severity,
                                .twice = 0.03 * severity,
                                .broken = 0.02 * severity,
                                .latency = absl::Milliseconds(1) + world_.Delay(absl::Milliseconds(200)),
                                .slow = 0.02 * severity};
    suite_.disk().unanswered = 0.01 * severity;
    suite_.disk().news_lost = 0.1 * severity;
    crashes_ = 0.02 * severity;
  }

  ~Drama() { over_ = true; }

  std::vector<std::string> Play() {
    Spawn(Introduce());
    world_.Run(kPatience, [this] { return introduced_; });
    const int runs = 6 + static_cast<int>(world_.Pick(5));
    open_ = runs + 1;
    for (int i = 0; i < runs; ++i) Spawn(Live(i));
    Spawn(KeepTime());
    for (absl::Duration since; since < kStorm; since += absl::Seconds(1)) {
      Misfortune();
      world_.Run(absl::Seconds(1), [] { return false; });
    }
    Clear();
    if (!world_.Run(kPatience, [this] { return open_ == 0; })) Problem(absl::StrCat(open_, " callers wait for ever"));
    if (!world_.Run(kPrompt, [this] { return watching_ == 0; }))
      Problem(absl::StrCat(watching_, " watches stand still"));
    bool read = false;
    Spawn(ReadAll(read));
    if (!world_.Run(kPatience, [&] { return read; })) Problem("the journals cannot be read");
    return problems_;
  }

 private:
  void Problem(const std::string& what) { problems_.push_back(what); }
  void Spawn(Task<void> task) { suite_.scope().Spawn(suite_.client(), std::move(task)); }
  Task<bool> Pause(absl::Duration most) {
    bool slept = co_await Sleep(suite_.client(), suite_.client(), world_.Delay(most), {});
    co_return slept;
  }
  CallContext NewCall(absl::Duration timeout) {
    CallContext call(suite_.client(), suite_.tracer());
    call.deadline = suite_.client().Now() + timeout;
    return call;
  }

  // Once a second.
  void Misfortune() {
    for (auto& node : suite_.nodes()) {
      if (!node->module) continue;
      if (world_.Chance(crashes_)) {
        suite_.Crash(*node, world_.Delay(absl::Seconds(8)));
      } else if (node->process->frozen()) {
        if (world_.Chance(0.2)) node->process->set_frozen(false);
      } else if (world_.Chance(crashes_ / 2)) {
        node->process->set_frozen(true);
      }
    }
    if (suite_.disk().away ? world_.Chance(0.3) : world_.Chance(crashes_ / 2)) {
      suite_.disk().away = !suite_.disk().away;
    }
  }
  void Clear() {
    for (auto& node : suite_.nodes()) node->process->set_frozen(false);
    suite_.disk().away = false;
    suite_.disk().unanswered = suite_.disk().news_lost = 0;
    suite_.network().weather = Weather();
    clear_ = true;
  }

  // The workflows are stored.
  Task<void> Introduce() {
    for (const char* yaml : kSpecs) {
      wf::CreateWorkflowRequest create;
      absl::Status parsed = ParseYaml(yaml, "sim", create.mutable_spec());
      if (!parsed.ok()) Problem(std::string(parsed.message()));
      std::string json;
      (void)google::protobuf::util::MessageToJsonString(create, &json);
      (void)co_await Repeat("POST", "/v1/workflows", Json::parse(json));
    }
    introduced_ = true;
  }

  // Until it is acknowledged, as a patient caller does.
  Task<Json> Repeat(std::string method, std::string path, Json body) {
    for (int tries = 0; tries < 2000 && !over_; ++tries) {
      auto answer = co_await suite_.Rest(method, path, body);
      if (answer.ok()) co_return *answer;
      if (!absl::IsUnavailable(answer.status())) {
        Problem(absl::StrCat(method, " ", path, ": ", answer.status().message()));
        break;
      }
      co_await Pause(absl::Seconds(2));
    }
    co_return Json();
  }

  Task<std::string> Start(const Told& told) {
    Json input = {{"fails", told.must_fail}, {"three", {1, 2, 3}}, {"five", {"1", "2", "3", "4", "5"}}};
    Json body = {{"workflow", told.workflow}, {"requestId", told.name}, {"input", input}};
    Json answer = co_await Repeat("POST", "/v1/runs", body);
    std::string run_id = answer.is_object() ? answer["run"]["runId"].get<std::string>() : "";
    co_return run_id;
  }

  // A run from its start to its end, as its caller sees it.
  Task<void> Live(int number) {
    auto told = std::make_shared<Told>();
    told_.push_back(told);
    const char* const kinds[] = {"saga", "waits", "loops", "family", "late", "craft"};
    told->name = absl::StrCat("request-", number);
    told->workflow = kinds[static_cast<size_t>(number) % 6];
    told->must_fail = (told->workflow == "saga" || told->workflow == "craft") && world_.Chance(0.5);
    co_await Pause(absl::Seconds(40));
    told->run_id = co_await Start(*told);
    if (world_.Chance(0.5)) {  // the same request again is the same run
      std::string again = co_await Start(*told);
      if (again != told->run_id) Problem(absl::StrCat(told->name, " started ", told->run_id, " and ", again));
    }
    Spawn(Watch(told));
    const std::string path = absl::StrCat("/v1/runs/", told->run_id);
    if (told->workflow == "waits") {
      for (int i = 1; i <= 2; ++i) {
        co_await Pause(absl::Seconds(30));
        Json signal = {{"signal", "go"}, {"payload", i}, {"requestId", absl::StrCat(told->name, "-signal-", i)}};
        Json answer = co_await Repeat("POST", absl::StrCat(path, ":signal"), signal);
        int64_t offset = 0;
        if (answer.is_object()) (void)absl::SimpleAtoi(answer.value("offset", "0"), &offset);
        told->offsets.insert(offset);
      }
    } else if (told->workflow == "late") {
      co_await Persist(*told);
    } else if (world_.Chance(0.25)) {
      told->meddled = true;
      co_await Pause(absl::Seconds(20));
      told->terminated = world_.Chance(0.3);
      co_await Try(absl::StrCat(path, told->terminated ? ":terminate" : ":cancel"), Json::object());
    } else if (world_.Chance(0.2)) {
      co_await Pause(absl::Seconds(10));
      co_await Try(absl::StrCat(path, ":pause"), Json::object());
      co_await Pause(absl::Seconds(10));
      told->resumed = true;
      co_await Try(absl::StrCat(path, ":resume"), Json::object());
    }
    co_await End(*told);
    const bool forkable = told->workflow == "loops" || told->workflow == "saga";
    if (forkable && absl::EndsWith(told->state, "SUCCEEDED") && world_.Chance(0.5)) co_await Fork(*told);
    --open_;
  }

  // Fails when nobody answers, and is tried again from there until somebody has.
  Task<void> Persist(const Told& told) {
    const std::string path = absl::StrCat("/v1/runs/", told.run_id);
    for (int round = 0; round < 50 && !over_; ++round) {
      co_await Pause(absl::Seconds(30));
      co_await Try(absl::StrCat(path, ":retry"), Json::object());
      co_await Pause(absl::Seconds(8));
      Json signal = {{"signal", "go"}, {"payload", "here"}, {"requestId", absl::StrCat(told.name, "-", round)}};
      co_await Try(absl::StrCat(path, ":signal"), signal);
      for (;;) {
        Json run = co_await Repeat("GET", path, Json());
        const std::string state = run.is_object() ? run["run"].value("state", "") : "";
        if (absl::EndsWith(state, "SUCCEEDED") || over_) co_return;
        if (absl::EndsWith(state, "FAILED")) break;
        co_await Pause(absl::Seconds(4));
      }
    }
    Problem(absl::StrCat(told.run_id, " does not succeed"));
  }

  // What was done before a step is not done again, and the original stays as it is (its watcher has seen all of it).
  Task<void> Fork(const Told& original) {
    auto told = std::make_shared<Told>();
    told->name = absl::StrCat(original.name, "-fork");
    told->workflow = original.workflow;
    Json body = {{"fromStep", original.workflow == "loops" ? "loop" : "last"}, {"requestId", told->name}};
    const std::string path = absl::StrCat("/v1/runs/", original.run_id, ":fork");
    for (int i = 0; i < 2; ++i) {
      Json answer = co_await Repeat("POST", path, body);
      const std::string id = answer.is_object() ? answer["run"].value("runId", "") : "";
      if (i == 1 && id != told->run_id) Problem(absl::StrCat(told->name, " made ", told->run_id, " and ", id));
      told->run_id = id;
    }
    told_.push_back(told);
    Spawn(Watch(told));
    co_await End(*told);
  }

  Task<void> End(Told& told) {
    for (int tries = 0; tries < 2000 && !told.ended && !over_; ++tries) {
      auto run = co_await suite_.Rest("GET", absl::StrCat("/v1/runs/", told.run_id), Json());
      if (run.ok()) {
        told.state = (*run)["run"].value("state", "");
        told.ended = absl::EndsWith(told.state, "SUCCEEDED") || absl::EndsWith(told.state, "FAILED") ||
                     absl::EndsWith(told.state, "CANCELLED");
      }
      if (!told.ended) co_await Pause(absl::Seconds(4));
      // The network may deliver a pause a second time, after the resume: who resumes looks whether it holds.
      if (told.resumed && absl::EndsWith(told.state, "PAUSED")) {
        const std::string path = absl::StrCat("/v1/runs/", told.run_id, ":resume");
        co_await Try(path, Json::object());
      }
    }
    if (!told.ended && !over_) Problem(absl::StrCat(told.run_id, " (", told.workflow, ") does not end"));
  }

  // A schedule through the storm: each of its times has one run.
  Task<void> KeepTime() {
    co_await Pause(absl::Seconds(20));
    Json schedule = {{"name", "clock"}, {"workflow", "tick"}, {"overlapPolicy", "OVERLAP_POLICY_ALLOW_ALL"}};
    schedule["calendar"] = {{"every", absl::StrCat(absl::ToInt64Seconds(kEvery), "s")}};
    Json body = {{"schedule", schedule}};
    co_await Repeat("POST", "/v1/schedules", body);
    const absl::Time from = world_.now();
    // Until what could not be kept has been made up for.
    while (!clear_ && !over_) co_await Pause(kEvery);
    co_await Sleep(suite_.client(), suite_.client(), 3 * kEvery, {});
    co_await Repeat("POST", "/v1/schedules/clock:pause", Json::object());
    const absl::Time until = world_.now();
    co_await Sleep(suite_.client(), suite_.client(), kEvery, {});  // one may have been about to start
    Json answer = co_await Repeat("GET", "/v1/schedules/clock", Json());
    // A time that was due when it was paused waits for the day on which it goes on; its run may have been started.
    int64_t started = 0, waiting = 0;
    if (answer.is_object()) {
      const Json state = answer["schedule"].value("state", Json::object());
      (void)absl::SimpleAtoi(state.value("started", "0"), &started);
      waiting = static_cast<int64_t>(state.value("buffered", Json::array()).size());
    }
    std::set<std::string> times;
    std::string token;
    do {
      const char* const filter = "workflow%20%3D%20%22tick%22";
      Json page =
          co_await Repeat("GET", absl::StrCat("/v1/runs?pageSize=1000&filter=", filter, "&pageToken=", token), Json());
      for (const Json& run : page.value("runs", Json::array())) {
        ticks_.insert(run.value("runId", ""));
        const std::string time = run["labels"].value("tutti.scheduled_time", "");
        if (!times.insert(time).second) Problem(absl::StrCat("the schedule's time ", time, " has two runs"));
      }
      token = page.value("nextPageToken", "");
    } while (!token.empty());
    const auto there = static_cast<int64_t>(times.size());
    if (there < started || there > started + waiting) {
      Problem(absl::StrCat("the schedule says that it started ", started, " runs, and ", there, " are there"));
    }
    const int64_t every = absl::ToInt64Seconds(kEvery);
    for (int64_t due = (absl::ToUnixSeconds(from) / every + 1) * every; due < absl::ToUnixSeconds(until) - 2;
         due += every) {
      const std::string time = absl::FormatTime(absl::RFC3339_sec, absl::FromUnixSeconds(due), absl::UTCTimeZone());
      if (times.count(time) == 0) Problem(absl::StrCat("the schedule's time ", time, " has no run"));
    }
    --open_;
  }

  // What may be refused, for example because the run has ended; else as Repeat.
  Task<void> Try(std::string path, Json body) {
    for (int tries = 0; tries < 2000 && !over_; ++tries) {
      auto answer = co_await suite_.Rest("POST", path, body);
      if (answer.ok() || !absl::IsUnavailable(answer.status())) co_return;
      co_await Pause(absl::Seconds(2));
    }
  }

  // Every event once and in order, over all that breaks, up to the end; by REST or by gRPC.
  Task<void> Watch(std::shared_ptr<Told> told) {
    told->seen = 0;
    ++watching_;
    const bool by_rest = world_.Chance(0.5);
    while (!over_) {
      const bool last = told->ended || told->workflow != "late";  // a run that is tried again goes on
      absl::Status status;
      if (by_rest) {
        status = co_await WatchByRest(*told);
      } else {
        status = co_await WatchByGrpc(*told);
      }
      if (status.ok() && last) break;
      if (!status.ok() && !absl::IsUnavailable(status)) Problem(absl::StrCat(told->run_id, ": ", status.ToString()));
      co_await Pause(absl::Seconds(1));
    }
    --watching_;
  }
  void See(Told& told, int64_t offset, int progress) {
    if (offset != told.seen + 1) Problem(absl::StrCat(told.run_id, ": event ", offset, " was seen after ", told.seen));
    if (progress < told.progress) {
      Problem(absl::StrCat(told.run_id, ": progress fell from ", told.progress, " to ", progress));
    }
    told.seen = offset;
    told.progress = progress;
  }
  Task<absl::Status> WatchByRest(Told& told) {
    absl::Status status = co_await suite_.Follow(
        absl::StrCat("/v1/runs/", told.run_id, ":watch?afterOffset=", told.seen), [this, &told](const Json& message) {
          int64_t offset = 0;
          (void)absl::SimpleAtoi(message["event"].value("offset", "0"), &offset);
          See(told, offset, message["event"].value("progressPercent", 0));
          return !world_.Chance(gone_);
        });
    co_return status;
  }
  Task<absl::Status> WatchByGrpc(Told& told) {
    CallContext call = NewCall(absl::InfiniteDuration());
    wf::WatchRunRequest request;
    request.set_run_id(told.run_id);
    request.set_after_offset(told.seen);
    auto method =
        suite_.methods().FindStream<wf::WatchRunRequest, wf::WatchRunResponse>("tutti.workflow.v1.RunService/WatchRun");
    auto stream = method->Open(call, request, absl::InfiniteDuration());
    wf::WatchRunResponse response;
    while (co_await stream->Read(response)) {
      See(told, response.event().offset(), response.event().progress_percent());
    }
    absl::Status status = co_await stream->Finish();
    co_return status;
  }

  // The journals of all runs, when all is over.
  Task<void> ReadAll(bool& read) {
    std::vector<std::string> ids;
    std::map<std::string, std::string> workflows;
    std::string token;
    do {
      Json page = co_await Repeat("GET", absl::StrCat("/v1/runs?pageSize=1000&pageToken=", token), Json());
      for (const Json& run : page.value("runs", Json::array())) {
        ids.push_back(run["runId"]);
        workflows[ids.back()] = run["workflow"];
      }
      token = page.value("nextPageToken", "");
    } while (!token.empty());
    std::map<std::string, std::shared_ptr<Told>> told_of;
    size_t families = 0;
    for (auto& told : told_) {
      told_of[told->run_id] = told;
      families += told->workflow == "family" ? 1 : 0;
      if (workflows.count(told->run_id) == 0) Problem(absl::StrCat(told->run_id, " was acknowledged and is not there"));
    }
    std::map<std::string, int> count;
    for (const auto& id : ids) {
      ++count[workflows[id]];
      if (workflows[id] != "leaf" && ticks_.count(id) == 0 && told_of.count(id) == 0)
        Problem(absl::StrCat(id, " was started by nobody"));
      RunStory story;
      story.run_id = id;
      story.workflow = workflows[id];
      story.skew = suite_.skew();
      if (auto told = told_of.find(id); told != told_of.end()) {
        story.must_fail = told->second->must_fail && !told->second->meddled;
        story.terminated = told->second->terminated;
      }
      co_await ReadJournal(story);
      if (getenv("TUTTI_SIM_LOG")) {
        for (const auto& entry : story.journal) std::cerr << id << " " << entry.ShortDebugString() << "\n";
      }
      CheckStory(story, [this](const std::string& what) { Problem(what); });
      if (auto told = told_of.find(id); told != told_of.end()) CheckTold(story, *told->second);
    }
    if (static_cast<size_t>(count["leaf"]) > 3 * families) {
      Problem(absl::StrCat(count["leaf"], " children of ", families, " families"));
    }
    read = true;
  }

  Task<bool> ReadJournal(RunStory& story) {
    CallContext call = NewCall(absl::Minutes(1));
    tutti::state::v1::ReadJournalRequest request;
    request.set_run_id(story.run_id);
    auto method =
        suite_.methods().FindStream<tutti::state::v1::ReadJournalRequest, tutti::state::v1::ReadJournalResponse>(
            "tutti.state.v1.JournalService/ReadJournal");
    auto stream = method->Open(call, request, absl::InfiniteDuration());
    tutti::state::v1::ReadJournalResponse page;
    while (co_await stream->Read(page))
      story.journal.insert(story.journal.end(), page.entries().begin(), page.entries().end());
    absl::Status status = co_await stream->Finish();
    if (!status.ok()) Problem(absl::StrCat(story.run_id, ": ", status.ToString()));
    co_return status.ok();
  }

  // What was seen is all there is. Each signal that was acknowledged is there, and no other.
  void CheckTold(const RunStory& story, const Told& told) {
    if (told.seen >= 0 && !story.journal.empty() && told.seen != story.journal.back().seq()) {
      Problem(absl::StrCat(told.run_id, ": ", told.seen, " of ", story.journal.back().seq(), " events were seen"));
    }
    if (told.workflow != "waits") return;
    std::set<int64_t> there;
    for (const auto& entry : story.journal) {
      if (entry.has_signal_received() && entry.signal_received().name() == "go") there.insert(entry.seq());
    }
    if (there != told.offsets) {
      Problem(absl::StrCat(story.run_id, ": signals were acknowledged as ", absl::StrJoin(told.offsets, ","),
                           " and are there as ", absl::StrJoin(there, ",")));
    }
  }

  World world_;
  Suite suite_;
  bool introduced_ = false, clear_ = false, over_ = false;
  double crashes_ = 0, gone_ = 0.02;
  int open_ = 0, watching_ = 0;
  std::set<std::string> ticks_;  // runs of the schedule
  std::vector<std::shared_ptr<Told>> told_;
  std::vector<std::string> problems_;
};

TEST(SuiteSimulationTest, WhatWasAcknowledgedHappensOnce) {
  const Seeds seeds = SeedsFromEnvironment(500);
  for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    auto problems = Drama(seed).Play();
    EXPECT_TRUE(problems.empty()) << "TUTTI_SIM_SEED=" << seed << ": " << absl::StrJoin(problems, "; ");
  }
}

}  // namespace
}  // namespace tutti::simulation
