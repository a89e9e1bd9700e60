// Journals of releases, replayed: a run that an earlier release began goes on under this one. Each file of
// tests/corpus/<release>/ is one run: its spec, its input, its whole journal, what was answered to which call, and how
// it ended. For every beginning of that journal the walk is taken up: it asks for nothing that had been answered, asks
// for the rest under the same keys, and ends the same.
//
// `RECORD_CORPUS=<release> tutti_unit_test --gtest_filter='CorpusTest.*'` records the runs below anew, once for
// each release; the files of a release never change.
#include <google/protobuf/util/json_util.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "services/workflow-engine/domain/testing/world.h"

namespace tutti::engine::testing {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* name;
  const char* spec;
  Json input;
  // By target: what is answered to the first call, the second …; the last for ever. {"error": code name} fails.
  std::map<std::string, std::vector<Json>> answers;
  std::vector<std::pair<const char*, Json>> signals;  // one whenever nothing moves
};

std::vector<Case> Cases() {
  const Json away{{"error", "UNAVAILABLE"}};
  return {
      {"sequence",
       R"(
name: sequence
steps:
- {id: one, agent: {agent: a, input: '${ .input.q }'}, retry: {max_attempts: 3, initial_backoff: 1s}}
- {id: maybe, when: .input.q > 100, agent: {agent: b}}
- {id: text, agent: {agent: b, input: '${ .feedback }'}, gate: {expression: '.output != "bad"', max_attempts: 3}}
- id: which
  switch:
    cases: [{when: .one == 1, steps: [{id: no, transform: {value: no}}]}]
    default: [{id: yes_it_is, tool: {tool: t, parameters: {x: '${ .one }'}}}]
- {id: paid, agent: {agent: c}, preconditions: [{expression: .input.q > 0}], postconditions: [{expression: .output < 100}], budget: {tokens: 1000}}
- {id: kept, tool: {tool: t, parameters: {y: 1}}, cache: {key: k, ttl: 60s}}
- {id: tell, emit: {type: com.example.done, data: {n: '${ .input.q }'}}}
output: {one: '${ .one }', text: '${ .text }', which: '${ .which }'}
)",
       {{"q", 7}},
       {{"a", {away, away, 3}}, {"b", {"bad", "good"}}, {"t", {"tool"}}, {"c", {5}}},
       {}},
      {"errors",
       R"(
name: errors
steps:
- {id: book, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check, parameters: {of: '${ .output }'}}}]}
- id: ask
  agent: {agent: a}
  retry: {max_attempts: 2, initial_backoff: 1s}
  fallback: [{id: other, agent: {agent: b}}]
  on_error: [{codes: [UNAVAILABLE], steps: [{id: note, transform: {value: '${ .error }'}}]}]
- {id: both, parallel: {branches: [{id: left, steps: [{id: two, tool: {tool: t}, compensation: [{id: undo, tool: {tool: check}}]}]}, {id: right, steps: [{id: three, agent: {agent: c}}]}]}}
- {id: last, fail: {code: ABORTED, reason: TOO_BAD, message: 'after ${ .ask.code }'}}
)",
       Json::object(),
       {{"t", {"booked"}}, {"a", {away}}, {"b", {away}}, {"c", {1}}, {"check", {"undone"}}},
       {}},
      {"graph",
       R"(
name: graph
steps:
- {id: start, agent: {agent: a}}
- {id: left, depends_on: [start], agent: {agent: b, input: '${ .start }'}}
- {id: right, depends_on: [start], sleep: {duration: 20s}}
- {id: skipped, depends_on: [start], when: 'false', agent: {agent: c}}
- {id: end, depends_on: [left, right, skipped], agent: {agent: c, input: {left: '${ .left }', skipped: '${ .skipped }'}}}
)",
       Json::object(),
       {{"a", {1}}, {"b", {2}}, {"c", {{{"done", true}}}}},
       {}},
      {"parallel",
       R"(
name: parallel
steps:
- id: vote
  parallel:
    fusion: {method: majority_vote}
    max_concurrency: 2
    branches:
    - {id: x, steps: [{id: ask, agent: {agent: a}}]}
    - {id: y, steps: [{id: ask, agent: {agent: b}}]}
    - {id: z, steps: [{id: ask, agent: {agent: c}}]}
- id: first
  parallel:
    fusion: {method: first_success}
    branches:
    - {id: slow, steps: [{id: nap, sleep: {duration: 100s}}]}
    - {id: quick, steps: [{id: ask, agent: {agent: a}}]}
- id: each
  for_each: {items: '${ .input.items }', max_concurrency: 2, steps: [{id: ask, agent: {agent: b, input: '${ .item }'}}]}
)",
       {{"items", {1, 2, 3, 4}}},
       {{"a", {"yes"}}, {"b", {"yes"}}, {"c", {"no"}}},
       {}},
      {"pipeline",
       R"(
name: pipeline
steps:
- id: flow
  pipeline:
    stages:
    - {id: outline, steps: [{id: make, agent: {agent: a, input: '${ .feedback }'}}]}
    - {id: text, steps: [{id: make, agent: {agent: b, input: '${ .outline }'}}], gate: {expression: '.output == "good"', go_back_to: outline}}
    - {id: check, steps: [{id: make, agent: {agent: c}}], gate: {expression: '.output == "fine"', max_attempts: 3}}
)",
       Json::object(),
       {{"a", {"plan 1", "plan 2"}}, {"b", {"bad", "good"}}, {"c", {"no", "fine"}}},
       {}},
      {"reflect",
       R"(
name: reflect
steps:
- id: write
  reflect:
    generate: [{id: make, agent: {agent: a, input: {draft: '${ .draft }'}}}]
    panel:
    - {id: strict, weight: 3, steps: [{id: judge, agent: {agent: judge, input: strict}}]}
    - {id: kind, steps: [{id: judge, agent: {agent: boss, input: kind}}]}
    rubric: [{name: clear, weight: 1}, {name: true_to_sources, weight: 3}]
    max_rounds: 5
    patience: 2
    lessons: {agent: a}
)",
       Json::object(),
       {{"a", {"first", "second", "third", "fourth"}},
        {"judge",
         {{{"scores", {{"clear", 1.0}, {"true_to_sources", 0.2}}}, {"feedback", "cite"}},
          {{"scores", {{"clear", 1.0}, {"true_to_sources", 0.6}}}, {"feedback", "cite more"}},
          {{"score", 0.1}, {"feedback", "worse"}}}},
        {"boss", {{{"score", 1.0}, {"feedback", "lovely"}}}}},
       {}},
      {"supervisor",
       R"(
name: supervisor
steps:
- id: team
  supervisor:
    decomposer: boss
    judge: judge
    specialists:
    - {agent: a, capabilities: [search], expertise: [law, contracts]}
    - {agent: b, capabilities: [sums], expertise: [money]}
)",
       Json::object(),
       {{"boss",
         {{{"subtasks",
            {{{"id", "find"}, {"task", "find the contracts"}, {"capability", "search"}},
             {{"id", "add"}, {"task", "add up the money"}, {"capability", "sums"}, {"depends_on", {"find"}}}}}}}},
        {"judge", {{{"score", 0.4}, {"feedback", "look again"}, {"refine", {"find"}}}, {{"score", 0.9}}}},
        {"a", {"found", "found more"}},
        {"b", {"12", "13"}}},
       {}},
      {"adaptive",
       R"(
name: adaptive
steps:
- {id: adapt, adaptive: {planner: boss, steps: [{id: planned, transform: {value: planned}}]}}
- {id: again, adaptive: {planner: judge, steps: [{id: planned, agent: {agent: b}}]}}
)",
       {{"q", 4}},
       {{"boss", {{{"steps", {{{"id", "x"}, {"agent", {{"agent", "a"}, {"input", "${ .input.q }"}}}}}}}}},
        {"judge", {{{"steps", 7}}}},
        {"a", {"as proposed"}},
        {"b", {"as planned"}}},
       {}},
      {"waits",
       R"(
name: waits
steps:
- {id: before, agent: {agent: a}}
- {id: nap, sleep: {duration: 72h}}
- {id: go, wait_for_signal: {signal: go}}
- {id: approve, wait_for_signal: {signal: approve, timeout: 10s, default: {approved: false}}}
- {id: child, sub_workflow: {workflow: other, input: {n: 1}}}
- id: loop
  while: {condition: '${ (.last // 3) > 0 }', max_iterations: 10, steps: [{id: doze, sleep: {duration: 1s}}, {id: tick, agent: {agent: b, input: '${ (.last // 3) - 1 }'}}]}
output: {go: '${ .go }', approve: '${ .approve }', child: '${ .child }', loop: '${ .loop }'}
)",
       Json::object(),
       {{"a", {1}}, {"b", {2, 1, 0}}},
       {{"go", {{"x", 1}}}}},
      {"long-loop",
       R"(
name: long-loop
steps:
- id: loop
  while: {condition: '${ (.last // 0) < 120 }', max_iterations: 1000, steps: [{id: tick, transform: {value: '${ (.last // 0) + 1 }'}}]}
- {id: end, agent: {agent: a, input: '${ .loop }'}}
)",
       Json::object(),
       {{"a", {"the end"}}},
       {}},
  };
}

absl::Status MessageFromJson(const Json& json, google::protobuf::Message* out) {
  auto status = google::protobuf::util::JsonStringToMessage(DumpJson(json), out);
  return status.ok() ? absl::OkStatus() : absl::InvalidArgumentError(std::string(status.message()));
}

bool ByOthers(const JournalEntry& entry) {
  return entry.has_signal_received() || entry.has_cancel_requested() || entry.has_pause_requested() ||
         entry.has_resume_requested();
}

class CorpusTest : public InterpreterTest {
 protected:
  static std::string Dir() {
    const char* source = getenv("TUTTI_SOURCE");
    return std::string(source ? source : ".") + "/tests/corpus";
  }
  static Json OutcomeOf(const absl::StatusOr<Json>& out) {
    if (out.ok()) return Json{{"output", *out}};
    return Json{{"error", absl::StatusCodeToString(out.status().code())},
                {"message", std::string(out.status().message())}};
  }
  static absl::StatusOr<Json> AnswerOf(const Json& answer) {
    if (answer.is_object() && answer.contains("error")) return absl::UnavailableError("away");
    return answer;
  }
  void Fresh() {
    world_.journal.clear();
    world_.calls.clear();
    world_.cache.clear();
    world_.lessons.clear();
    world_.next_seq = 1;
    world_.children_ended["child-run1/child/1"] = Json{{"from", "child"}};
  }
  void Record(const Case& recorded, const std::string& dir);
  void Replay(const Json& file, size_t known);
};

void CorpusTest::Record(const Case& recorded, const std::string& dir) {
  Fresh();
  WorkflowSpec spec;
  ASSERT_THAT(ParseYaml(recorded.spec, recorded.name, &spec), IsOk());
  ASSERT_THAT(ValidateSpec(spec, Known(), world_.evaluator), IsOk()) << recorded.name;
  std::map<std::string, size_t> asked;
  Json answers = Json::object();
  world_.answer = [&](const std::string& target, const Json&) -> absl::StatusOr<Json> {
    const auto& all = recorded.answers.at(target);
    const Json& answer = all[std::min(asked[target]++, all.size() - 1)];
    answers[world_.calls.back()] = answer;
    return AnswerOf(answer);
  };
  size_t signals = 0;
  std::function<void()> idle = [&] {
    if (signals < recorded.signals.size() && world_.time.pending() == 0) {
      const auto& [name, payload] = recorded.signals[signals++];
      SendSignal(name, payload);
    } else {
      world_.time.Advance(absl::Hours(1));
    }
    on_idle_ = idle;
  };
  on_idle_ = idle;
  const absl::Time begin = world_.time.Now();
  auto out = Walk(spec, recorded.input);
  on_idle_ = nullptr;
  Json file{{"spec", MessageToJson(spec)},
            {"input", recorded.input},
            {"begin", absl::ToUnixSeconds(begin)},
            {"answers", answers},
            {"outcome", OutcomeOf(out)}};
  for (const auto& entry : world_.journal) file["entries"].push_back(MessageToJson(entry));
  fs::create_directories(dir);
  std::ofstream(dir + "/" + recorded.name + ".json") << DumpJson(file, 1) << "\n";
}

// Takes the run up after its first `known` entries.
void CorpusTest::Replay(const Json& file, size_t known) {
  Fresh();
  WorkflowSpec spec;
  ASSERT_THAT(MessageFromJson(file["spec"], &spec), IsOk());
  std::set<std::string> completed;
  std::vector<JournalEntry> others;
  const Json& entries = file["entries"];
  for (size_t i = 0; i < entries.size(); ++i) {
    JournalEntry entry;
    ASSERT_THAT(MessageFromJson(entries[i], &entry), IsOk());
    if (i < known) {
      if (entry.has_step_completed()) completed.insert(entry.step_completed().path());
      world_.next_seq = entry.seq() + 1;
      world_.journal.push_back(entry);
    } else if (ByOthers(entry)) {
      others.push_back(entry);
    }
  }
  std::vector<std::string> unknown, repeated;
  world_.answer = [&](const std::string&, const Json&) -> absl::StatusOr<Json> {
    const std::string& key = world_.calls.back();  // run1/<path>/<attempt>
    if (!file["answers"].contains(key)) {
      unknown.push_back(key);
      return absl::InvalidArgumentError("nobody asked for this");
    }
    const std::string path = key.substr(5, key.rfind('/') - 5);
    if (completed.count(path) > 0) repeated.push_back(key);
    return AnswerOf(file["answers"][key]);
  };
  size_t next = 0;
  std::function<void()> idle = [&] {
    if (next < others.size() && world_.time.pending() == 0) {
      JournalEntry entry = others[next++];
      Deliver(std::move(entry));
    } else {
      world_.time.Advance(absl::Hours(1));
    }
    on_idle_ = idle;
  };
  on_idle_ = idle;
  auto out = Walk(spec, file["input"]);
  on_idle_ = nullptr;
  EXPECT_TRUE(unknown.empty()) << "asks for what that release did not: " << unknown.front();
  EXPECT_TRUE(repeated.empty()) << "asks again for " << repeated.front();
  EXPECT_EQ(OutcomeOf(out), file["outcome"]);
}

TEST_F(CorpusTest, RunsOfEarlierReleasesGoOn) {
  if (const char* release = getenv("RECORD_CORPUS")) {
    for (const Case& recorded : Cases()) {
      Record(recorded, Dir() + "/" + release);
      ASSERT_FALSE(HasFatalFailure());
    }
  }
  size_t files = 0, walks = 0;
  for (const auto& place : fs::recursive_directory_iterator(Dir())) {
    if (place.path().extension() != ".json") continue;
    std::ifstream in(place.path());
    std::stringstream text;
    text << in.rdbuf();
    auto file = ParseJson(text.str());
    ASSERT_THAT(file, IsOk()) << place.path();
    ++files;
    for (size_t known = 0; known <= (*file)["entries"].size(); ++known, ++walks) {
      SCOPED_TRACE(absl::StrCat(place.path().string(), ", taken up after ", known, " entries"));
      Replay(*file, known);
      ASSERT_FALSE(HasFailure());
    }
  }
  EXPECT_GE(files, 10U);
  EXPECT_GE(walks, 200U);
}

}  // namespace
}  // namespace tutti::engine::testing
