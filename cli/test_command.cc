// `tutti test`: workflows rehearsed on the spot, without a server.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "cli/commands.h"
#include "runtime/async/sync_wait.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/rehearsal.h"
#include "services/workflow-engine/domain/spec_search.h"
#include "tutti/workflow/v1/workflow_test_file.pb.h"

namespace tutti::cli {
namespace {

namespace v1 = tutti::workflow::v1;
using engine::Rehearsed;

struct Result {
  std::string name;
  std::vector<std::string> failures;
  absl::Duration took;
};

// Whatever a spec names there is, in a rehearsal.
engine::KnownNames NamesIn(const v1::WorkflowSpec& spec) {
  engine::KnownNames names;
  std::function<void(const google::protobuf::Message&)> collect = [&](const google::protobuf::Message& message) {
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    const auto* reflection = message.GetReflection();
    reflection->ListFields(message, &fields);
    for (const auto* field : fields) {
      if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING && !field->is_repeated()) {
        const std::string& name = field->name();
        std::string value = reflection->GetString(message, field);
        bool agent =
            name == "agent" || name == "decomposer" || name == "integrator" || name == "judge" || name == "planner";
        if (agent) names.agents[value];
        if (name == "tool") names.tools[value];
      } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING && field->name() == "tools") {
        for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
          names.tools[reflection->GetRepeatedString(message, field, i)];
        }
      } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map()) {
        int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
        for (int i = 0; i < count; ++i) {
          collect(field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i)
                                       : reflection->GetMessage(message, field));
        }
      }
    }
  };
  collect(spec);
  return names;
}

void AddParts(const google::protobuf::Map<std::string, v1::PlayedPart>& parts, const char* who,
              engine::Script* script) {
  for (const auto& [name, part] : parts) {
    auto& answers = script->answers[absl::StrCat(who, " ", name)];
    for (const auto& played : part.answers()) {
      engine::ScriptedAnswer answer;
      if (played.has_error()) {
        answer.output = absl::Status(CodeFromName(played.error().code()), played.error().message());
      } else {
        answer.output = ToJson(played.output());
      }
      if (played.has_takes()) answer.takes = FromProto(played.takes());
      answers.push_back(std::move(answer));
    }
  }
}

engine::Script ScriptOf(const v1::WorkflowTest& test) {
  engine::Script script;
  AddParts(test.agents(), "agent", &script);
  AddParts(test.tools(), "tool", &script);
  AddParts(test.workflows(), "workflow", &script);
  for (const auto& signal : test.signals()) {
    script.signals.push_back({signal.signal(), ToJson(signal.payload()),
                              signal.has_after() ? FromProto(signal.after()) : absl::ZeroDuration(), signal.sender()});
  }
  if (test.has_cancel_after()) script.cancel_after = FromProto(test.cancel_after());
  return script;
}

std::vector<std::string> Judge(const v1::Expectation& expect, const Rehearsed& done) {
  std::vector<std::string> wrong;
  auto say = [&](std::string what) { wrong.push_back(std::move(what)); };
  const absl::Status error = done.output.status();
  if (expect.has_error()) {
    if (error.ok()) {
      say(absl::StrCat("expected to fail with ", expect.error().code(), ", ended with ", DumpJson(*done.output)));
    } else if (absl::StatusCodeToString(error.code()) != expect.error().code() ||
               !absl::StrContains(error.message(), expect.error().message())) {
      say(absl::StrCat("expected to fail with ", expect.error().code(), " \"", expect.error().message(),
                       "\", failed with ", absl::StatusCodeToString(error.code()), " \"", error.message(), "\""));
    }
  } else if (!error.ok()) {
    say(absl::StrCat("failed: ", absl::StatusCodeToString(error.code()), ": ", error.message()));
  }
  if (expect.has_output() && done.output.ok() && !SameJson(*done.output, ToJson(expect.output()))) {
    say(absl::StrCat("output is ", DumpJson(*done.output), ", expected ", DumpJson(ToJson(expect.output()))));
  }
  Json completed = Json::array();
  std::set<std::string> begun;
  for (const auto& entry : done.history) {
    if (entry.has_step_started()) begun.insert(entry.step_started().path());
    if (entry.has_step_failed()) begun.insert(entry.step_failed().path());
    if (!entry.has_step_completed() || entry.step_completed().skipped()) continue;
    completed.push_back(entry.step_completed().path());
    begun.insert(entry.step_completed().path());
  }
  size_t next = 0;
  for (const Json& path : completed) {
    if (next < static_cast<size_t>(expect.steps_size()) && path == Json(expect.steps(static_cast<int>(next)))) ++next;
  }
  if (next < static_cast<size_t>(expect.steps_size())) {
    say(absl::StrCat("step ", expect.steps(static_cast<int>(next)),
                     " was not completed, or not in that order; completed: ", DumpJson(completed)));
  }
  for (const auto& path : expect.never()) {
    if (begun.count(path) > 0) say(absl::StrCat("step ", path, " was begun"));
  }
  if (expect.has_within() && done.took > FromProto(expect.within())) {
    say(absl::StrCat("took ", absl::FormatDuration(done.took)));
  }
  engine::Evaluator evaluator;
  const engine::Evaluator::Context context;
  engine::Variables variables;
  auto set = [&](const char* name, Json value) { variables.Set(name, std::make_shared<const Json>(std::move(value))); };
  set("output", done.output.ok() ? *done.output : Json());
  set("error",
      error.ok() ? Json() : Json{{"code", absl::StatusCodeToString(error.code())}, {"message", error.message()}});
  set("steps", completed);
  set("calls", Json(done.calls));
  for (const auto& condition : expect.conditions()) {
    auto holds = SyncWait(evaluator.EvaluateCondition(condition, variables, context));
    if (!holds.ok()) {
      say(std::string(holds.status().message()));
    } else if (!*holds) {
      say(absl::StrCat("does not hold: ", condition));
    }
  }
  return wrong;
}

std::string Xml(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// As continuous integration reads it.
bool WriteJunit(const std::string& file, const std::map<std::string, std::vector<Result>>& suites) {
  std::ofstream out(file);
  out << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n";
  for (const auto& [name, results] : suites) {
    auto failed =
        std::count_if(results.begin(), results.end(), [](const Result& result) { return !result.failures.empty(); });
    out << "  <testsuite name=\"" << Xml(name) << "\" tests=\"" << results.size() << "\" failures=\"" << failed
        << "\">\n";
    for (const Result& result : results) {
      out << "    <testcase name=\"" << Xml(result.name) << "\" classname=\"" << Xml(name) << "\">";
      for (const auto& failure : result.failures) out << "\n      <failure message=\"" << Xml(failure) << "\"/>";
      out << (result.failures.empty() ? "" : "\n    ") << "</testcase>\n";
    }
    out << "  </testsuite>\n";
  }
  out << "</testsuites>\n";
  out.close();
  return static_cast<bool>(out);
}

}  // namespace

int TestWorkflows(const TestOptions& options) {
  std::map<std::string, std::vector<Result>> suites;
  int failed = 0, count = 0;
  for (const auto& file : options.files) {
    auto text = ReadSpecFile(file);
    if (!text.ok()) return PrintError(text.status());
    v1::WorkflowTestFile tests;
    if (absl::Status parsed = ParseYaml(*text, file, &tests); !parsed.ok()) return PrintError(parsed);
    std::string spec_file = (std::filesystem::path(file).parent_path() / tests.workflow()).string();
    auto spec_text = ReadSpecFile(spec_file);
    if (!spec_text.ok()) return PrintError(spec_text.status());
    v1::WorkflowSpec spec;
    SourceMap lines;
    if (absl::Status parsed = ParseYaml(*spec_text, spec_file, &spec, &lines); !parsed.ok()) return PrintError(parsed);
    engine::Evaluator evaluator;
    absl::Status valid = engine::ValidateSpec(spec, NamesIn(spec), evaluator);
    if (!valid.ok()) return PrintError(valid, spec_file, &lines);
    engine::Coverage coverage(spec);
    std::cout << file << " (" << spec.name() << ")\n";
    for (const auto& test : tests.tests()) {
      Json input = test.has_input() ? ToJson(test.input()) : Json::object();
      Result result{test.name(), {}, {}};
      absl::Status fits =
          spec.has_input_schema() ? ValidateJson(ToJson(spec.input_schema()), input, "input") : absl::OkStatus();
      Rehearsed done;
      if (fits.ok()) {
        auto check = [&](const v1::WorkflowSpec& changed) {
          return engine::ValidateSpec(changed, NamesIn(changed), evaluator);
        };
        done = engine::Rehearse(spec, input, ScriptOf(test), options.seed, check, NamesIn(spec));
        coverage.Add(done);
      } else {
        done.output = fits;
      }
      result.failures = Judge(test.expect(), done);
      ++count;
      failed += result.failures.empty() ? 0 : 1;
      std::cout << (result.failures.empty() ? "  ok    " : "  FAIL  ") << test.name() << " ("
                << absl::FormatDuration(done.took) << " on its clock)\n";
      for (const auto& failure : result.failures) std::cout << "          " << failure << "\n";
      suites[file].push_back(std::move(result));
    }
    std::cout << "  coverage " << coverage.percent() << "% of steps and ways\n";
    for (const auto& line : coverage.lines()) {
      if (!line.taken) std::cout << "    not taken: " << line.what << " at " << line.path << "\n";
    }
    if (coverage.percent() < tests.min_coverage_percent()) {
      std::cout << "  FAIL  coverage is below " << tests.min_coverage_percent() << "%\n";
      ++failed;
    }
  }
  std::cout << count << (count == 1 ? " test, " : " tests, ") << failed << " failed\n";
  if (!options.junit.empty() && !WriteJunit(options.junit, suites)) {
    return PrintError(absl::InternalError(absl::StrCat("--junit: cannot write ", options.junit)));
  }
  return failed == 0 ? kOk : kFailed;
}

}  // namespace tutti::cli
