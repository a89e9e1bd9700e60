// The whole suite under a seeded simulator (suite.h): services crash, stand still and come back, the network delays,
// loses, repeats and reorders, the database is away and loses answers, clocks differ. Meanwhile callers start runs,
// send signals, cancel, pause and watch. When the weather has cleared, everything that was acknowledged must have
// happened, once.
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
)"};

constexpr absl::Duration kStorm = absl::Seconds(90);
constexpr absl::Duration kPatience = absl::Minutes(60);
// Between two engines: each is off by up to half of it (suite.cc).
constexpr absl::Duration kSkew = absl::Seconds(4);

// What a caller knows of a run.
struct Told {
  std::string name, workflow, run_id;
  bool must_fail = false, meddled = false, ended = false;
  std::set<int64_t> offsets;  // of signals that were acknowledged
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
    const int runs = 5 + static_cast<int>(world_.Pick(5));
    open_ = runs;
    for (int i = 0; i < runs; ++i) Spawn(Live(i));
    for (absl::Duration since; since < kStorm; since += absl::Seconds(1)) {
      Misfortune();
      world_.Run(absl::Seconds(1), [] { return false; });
    }
    Clear();
    if (!world_.Run(kPatience, [this] { return open_ == 0; })) Problem(absl::StrCat(open_, " callers wait for ever"));
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
    const char* const kinds[] = {"saga", "waits", "loops", "family"};
    told->name = absl::StrCat("request-", number);
    told->workflow = kinds[static_cast<size_t>(number) % 4];
    told->must_fail = told->workflow == "saga" && world_.Chance(0.5);
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
    } else if (world_.Chance(0.2)) {
      told->meddled = true;
      co_await Pause(absl::Seconds(20));
      co_await Try(absl::StrCat(path, ":cancel"));
    } else if (world_.Chance(0.2)) {
      co_await Pause(absl::Seconds(10));
      co_await Try(absl::StrCat(path, ":pause"));
      co_await Pause(absl::Seconds(10));
      co_await Try(absl::StrCat(path, ":resume"));
    }
    // Until it has ended.
    for (int tries = 0; tries < 2000 && !told->ended && !over_; ++tries) {
      auto run = co_await suite_.Rest("GET", path, Json());
      if (run.ok()) {
        const std::string state = (*run)["run"].value("state", "");
        told->ended =
            absl::EndsWith(state, "SUCCEEDED") || absl::EndsWith(state, "FAILED") || absl::EndsWith(state, "CANCELLED");
      }
      if (!told->ended) co_await Pause(absl::Seconds(4));
    }
    if (!told->ended) Problem(absl::StrCat(told->run_id, " (", told->workflow, ") does not end"));
    --open_;
  }

  // What may be refused, for example because the run has ended; else as Repeat.
  Task<void> Try(std::string path) {
    for (int tries = 0; tries < 2000 && !over_; ++tries) {
      auto answer = co_await suite_.Rest("POST", path, Json::object());
      if (answer.ok() || !absl::IsUnavailable(answer.status())) co_return;
      co_await Pause(absl::Seconds(2));
    }
  }

  // Every event once and in order, over all that breaks.
  Task<void> Watch(std::shared_ptr<Told> told) {
    int64_t offset = 0;
    int32_t progress = 0;
    for (bool over = false; !over;) {
      CallContext call = NewCall(absl::Minutes(5));
      wf::WatchRunRequest request;
      request.set_run_id(told->run_id);
      request.set_after_offset(offset);
      auto method = suite_.methods().FindStream<wf::WatchRunRequest, wf::WatchRunResponse>(
          "tutti.workflow.v1.RunService/WatchRun");
      auto stream = method->Open(call, request, absl::InfiniteDuration());
      wf::WatchRunResponse response;
      while (co_await stream->Read(response)) {
        const auto& event = response.event();
        if (event.offset() != offset + 1) {
          Problem(absl::StrCat(told->run_id, ": event ", event.offset(), " was seen after ", offset));
        }
        if (event.progress_percent() < progress) {
          Problem(absl::StrCat(told->run_id, ": progress fell from ", progress, " to ", event.progress_percent()));
        }
        offset = event.offset();
        progress = event.progress_percent();
      }
      absl::Status status = co_await stream->Finish();
      over = status.ok() || absl::IsNotFound(status) || told->ended || over_;
      if (!over) co_await Pause(absl::Seconds(1));
    }
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
      if (workflows[id] != "leaf" && told_of.count(id) == 0) Problem(absl::StrCat(id, " was started by nobody"));
      RunStory story;
      story.run_id = id;
      story.workflow = workflows[id];
      story.skew = kSkew;
      if (auto told = told_of.find(id); told != told_of.end()) {
        story.must_fail = told->second->must_fail && !told->second->meddled;
      }
      co_await ReadJournal(story);
      if (getenv("TUTTI_SIM_LOG")) {
        for (const auto& entry : story.journal) std::cerr << id << " " << entry.ShortDebugString() << "\n";
      }
      CheckStory(story, [this](const std::string& what) { Problem(what); });
      if (auto told = told_of.find(id); told != told_of.end()) CheckSignals(story, *told->second);
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

  // Each signal that was acknowledged is there, and no other.
  void CheckSignals(const RunStory& story, const Told& told) {
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
  bool introduced_ = false, over_ = false;
  double crashes_ = 0;
  int open_ = 0;
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
