#include "services/workflow-engine/domain/validator.h"

#include <algorithm>
#include <functional>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/text/nearest_name.h"

namespace tutti::engine {
namespace {

using tutti::workflow::v1::AgentStep;
using tutti::workflow::v1::Gate;
using tutti::workflow::v1::Step;
using tutti::workflow::v1::ToolStep;
using tutti::workflow::v1::WorkflowSpec;
using Steps = google::protobuf::RepeatedPtrField<Step>;

constexpr int kMaxSteps = 1000;
constexpr int kMaxDepth = 12;  // three messages a level, and protobuf reads at most 100
constexpr size_t kMaxViolations = 20;

bool IsResourceId(const std::string& name) {
  if (name.empty() || name.size() > 63 || !islower(static_cast<unsigned char>(name[0])) || name.back() == '-')
    return false;
  for (unsigned char c : name) {
    if (!islower(c) && !isdigit(c) && c != '-') return false;
  }
  return true;
}

bool IsStepId(const std::string& id) {
  if (id.empty() || id.size() > 63 || !islower(static_cast<unsigned char>(id[0]))) return false;
  for (unsigned char c : id) {
    if (!islower(c) && !isdigit(c) && c != '_') return false;
  }
  return true;
}

class Check {
 public:
  Check(const WorkflowSpec& spec, const KnownNames& known, Evaluator& evaluator)
      : evaluator_(evaluator),
        agents_(known.agents.begin(), known.agents.end()),
        tools_(known.tools.begin(), known.tools.end()) {
    for (const auto& agent : spec.agents()) agents_.push_back(agent.name());
  }

  absl::Status Run(const WorkflowSpec& spec) {
    if (!IsResourceId(spec.name())) Fail("name", "must match ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$");
    std::set<std::string> names;
    for (int i = 0; i < spec.agents_size(); ++i) {
      const auto& agent = spec.agents(i);
      std::string path = absl::StrCat("agents[", i, "]");
      if (!IsResourceId(agent.name())) Fail(path + ".name", "must match ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$");
      if (!names.insert(agent.name()).second)
        Fail(path + ".name", absl::StrCat("\"", agent.name(), "\" stands here twice"));
      for (int t = 0; t < agent.tools_size(); ++t) Tool(agent.tools(t), absl::StrCat(path, ".tools[", t, "]"));
      if (agent.has_output_schema()) Schema(ToJson(agent.output_schema()), path + ".output_schema");
      if (agent.max_turns() < 0 || agent.max_turns() > 64) Fail(path + ".max_turns", "must be 1 to 64");
    }
    if (spec.has_input_schema()) Schema(ToJson(spec.input_schema()), "input_schema");
    if (spec.steps().empty()) Fail("steps", "must have at least one step");
    Block(spec.steps(), "steps", 0);
    if (spec.has_output()) Template(ToJson(spec.output()), "output");
    if (violations_.empty()) return absl::OkStatus();
    std::vector<std::string> lines;
    for (const auto& violation : violations_)
      lines.push_back(absl::StrCat(violation.field, ": ", violation.description));
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_WORKFLOW",
                 absl::StrCat("the workflow is wrong: ", absl::StrJoin(lines, "; ")))
        .Violations(violations_);
  }

 private:
  void Fail(const std::string& field, absl::string_view what) {
    if (violations_.size() < kMaxViolations) violations_.push_back({field, std::string(what)});
  }

  void Block(const Steps& steps, const std::string& path, int depth) {
    if (depth > kMaxDepth) return Fail(path, absl::StrCat("steps nested deeper than ", kMaxDepth, " levels"));
    std::set<std::string> ids;
    for (int i = 0; i < steps.size(); ++i) {
      std::string step_path = absl::StrCat(path, "[", i, "]");
      if (++count_ > kMaxSteps) {
        if (count_ == kMaxSteps + 1) Fail(step_path, absl::StrCat("more than ", kMaxSteps, " steps"));
        return;
      }
      Id(steps[i].id(), step_path + ".id", ids);
      One(steps[i], step_path, depth);
    }
    Dependencies(steps, path, ids);
  }

  void Id(const std::string& id, const std::string& path, std::set<std::string>& ids) {
    static const std::set<std::string> kReserved = {"input", "run",      "output", "error", "feedback",
                                                    "draft", "critique", "round",  "gate"};
    if (!IsStepId(id)) {
      Fail(path, absl::StrCat("\"", id, "\" must match ^[a-z][a-z0-9_]{0,62}$"));
    } else if (kReserved.count(id) > 0) {
      Fail(path, absl::StrCat("\"", id, "\" is a reserved name"));
    } else if (!ids.insert(id).second) {
      Fail(path, absl::StrCat("duplicate id \"", id, "\": ids are unique in their block"));
    }
  }

  void Dependencies(const Steps& steps, const std::string& path, const std::set<std::string>& ids) {
    std::map<std::string, int> index;
    for (int i = 0; i < steps.size(); ++i) index[steps[i].id()] = i;
    for (int i = 0; i < steps.size(); ++i) {
      for (int k = 0; k < steps[i].depends_on_size(); ++k) {
        const std::string& name = steps[i].depends_on(k);
        if (ids.count(name) == 0) {
          Fail(absl::StrCat(path, "[", i, "].depends_on[", k, "]"),
               absl::StrCat("no step \"", name, "\" in this block", DidYouMean(name, {ids.begin(), ids.end()})));
        }
      }
    }
    // Depth-first with the way taken, so that the message can show the cycle.
    std::vector<int> state(steps.size(), 0);
    std::vector<std::string> way;
    std::function<bool(int)> visit = [&](int i) {
      state[i] = 1;
      way.push_back(steps[i].id());
      for (const auto& name : steps[i].depends_on()) {
        auto it = index.find(name);
        if (it == index.end() || state[it->second] == 2) continue;
        if (state[it->second] == 1) {
          way.push_back(name);
          auto begin = std::find(way.begin(), way.end(), name);
          Fail(absl::StrCat(path, "[", i, "].depends_on"),
               absl::StrCat("cycle: ", absl::StrJoin(begin, way.end(), " -> ")));
          return false;
        }
        if (!visit(it->second)) return false;
      }
      way.pop_back();
      state[i] = 2;
      return true;
    };
    for (int i = 0; i < steps.size(); ++i) {
      if (state[i] == 0 && !visit(i)) return;
    }
  }

  void One(const Step& step, const std::string& path, int depth) {
    if (!step.when().empty()) Expression(step.when(), path + ".when");
    if (step.has_retry()) Retry(step, path + ".retry");
    switch (step.kind_case()) {
      case Step::kAgent:
        return Agent(step.agent(), path + ".agent");
      case Step::kTool:
        return ToolCall(step.tool(), path + ".tool");
      case Step::kTransform:
        if (!step.transform().has_value()) Fail(path + ".transform.value", "must be set");
        return Template(ToJson(step.transform().value()), path + ".transform.value");
      case Step::kSwitch: {
        if (step.switch_().cases().empty()) Fail(path + ".switch.cases", "must have at least one case");
        for (int i = 0; i < step.switch_().cases_size(); ++i) {
          std::string case_path = absl::StrCat(path, ".switch.cases[", i, "]");
          Expression(step.switch_().cases(i).when(), case_path + ".when");
          NonEmptyBlock(step.switch_().cases(i).steps(), case_path + ".steps", depth);
        }
        return Block(step.switch_().default_(), path + ".switch.default", depth + 1);
      }
      case Step::kParallel: {
        if (step.parallel().branches().empty()) Fail(path + ".parallel.branches", "must have at least one branch");
        if (step.parallel().max_concurrency() < 0) Fail(path + ".parallel.max_concurrency", "must not be negative");
        std::set<std::string> ids;
        for (int i = 0; i < step.parallel().branches_size(); ++i) {
          std::string branch_path = absl::StrCat(path, ".parallel.branches[", i, "]");
          Id(step.parallel().branches(i).id(), branch_path + ".id", ids);
          NonEmptyBlock(step.parallel().branches(i).steps(), branch_path + ".steps", depth);
        }
        return;
      }
      case Step::kPipeline: {
        if (step.pipeline().stages().empty()) Fail(path + ".pipeline.stages", "must have at least one stage");
        std::set<std::string> ids;
        for (int i = 0; i < step.pipeline().stages_size(); ++i) {
          const auto& stage = step.pipeline().stages(i);
          std::string stage_path = absl::StrCat(path, ".pipeline.stages[", i, "]");
          Id(stage.id(), stage_path + ".id", ids);
          NonEmptyBlock(stage.steps(), stage_path + ".steps", depth);
          if (stage.has_gate()) GateOf(stage.gate(), stage_path + ".gate");
        }
        return;
      }
      case Step::kReflect: {
        const auto& reflect = step.reflect();
        NonEmptyBlock(reflect.generate(), path + ".reflect.generate", depth);
        NonEmptyBlock(reflect.critique(), path + ".reflect.critique", depth);
        Block(reflect.improve(), path + ".reflect.improve", depth + 1);
        if (reflect.has_threshold() && (reflect.threshold() < 0 || reflect.threshold() > 1)) {
          Fail(path + ".reflect.threshold", "must be 0 to 1");
        }
        if (reflect.max_rounds() < 0 || reflect.max_rounds() > 20)
          Fail(path + ".reflect.max_rounds", "must be 1 to 20");
        return;
      }
      default:
        Fail(path, "has no kind; it must have one of agent, tool, transform, switch, parallel, pipeline, reflect");
    }
  }

  void NonEmptyBlock(const Steps& steps, const std::string& path, int depth) {
    if (steps.empty()) Fail(path, "must have at least one step");
    Block(steps, path, depth + 1);
  }

  void Retry(const Step& step, const std::string& path) {
    const auto& retry = step.retry();
    if (retry.max_attempts() < 0 || retry.max_attempts() > 100) Fail(path + ".max_attempts", "must be 1 to 100");
    if (retry.backoff_multiplier() != 0 && (retry.backoff_multiplier() < 1 || retry.backoff_multiplier() > 10)) {
      Fail(path + ".backoff_multiplier", "must be 1 to 10");
    }
    for (int i = 0; i < retry.retryable_codes_size(); ++i) {
      const std::string& name = retry.retryable_codes(i);
      if (name != "UNKNOWN" && CodeFromName(name) == absl::StatusCode::kUnknown) {
        Fail(absl::StrCat(path, ".retryable_codes[", i, "]"), absl::StrCat("\"", name, "\" is no gRPC status code"));
      }
    }
  }

  void GateOf(const Gate& gate, const std::string& path) {
    if (gate.has_threshold() && (gate.threshold() < 0 || gate.threshold() > 1))
      Fail(path + ".threshold", "must be 0 to 1");
    if (gate.max_attempts() < 0 || gate.max_attempts() > 20) Fail(path + ".max_attempts", "must be 1 to 20");
    switch (gate.check_case()) {
      case Gate::kExpression:
        return Expression(gate.expression(), path + ".expression");
      case Gate::kJsonSchema:
        return Schema(ToJson(gate.json_schema()), path + ".json_schema");
      case Gate::kTool:
        return ToolCall(gate.tool(), path + ".tool");
      case Gate::kAgent:
        return Agent(gate.agent(), path + ".agent");
      default:
        Fail(path, "has no check; it must have one of expression, json_schema, tool, agent");
    }
  }

  void Agent(const AgentStep& agent, const std::string& path) {
    if (std::find(agents_.begin(), agents_.end(), agent.agent()) == agents_.end()) {
      Fail(path + ".agent", absl::StrCat("no agent \"", agent.agent(), "\"", DidYouMean(agent.agent(), agents_),
                                         " Known: ", absl::StrJoin(agents_, ", ")));
    }
    if (agent.has_input()) Template(ToJson(agent.input()), path + ".input");
  }

  void ToolCall(const ToolStep& tool, const std::string& path) {
    Tool(tool.tool(), path + ".tool");
    if (tool.has_parameters()) Template(ToJson(tool.parameters()), path + ".parameters");
  }

  void Tool(const std::string& name, const std::string& path) {
    if (std::find(tools_.begin(), tools_.end(), name) == tools_.end()) {
      Fail(path,
           absl::StrCat("no tool \"", name, "\"", DidYouMean(name, tools_), " Known: ", absl::StrJoin(tools_, ", ")));
    }
  }

  void Expression(const std::string& text, const std::string& path) {
    if (absl::Status status = evaluator_.CheckExpression(ExpressionBody(text)); !status.ok())
      Fail(path, status.message());
  }

  void Template(const Json& value, const std::string& path) {
    if (absl::Status status = evaluator_.CheckTemplate(value); !status.ok()) Fail(path, status.message());
  }

  void Schema(const Json& schema, const std::string& path) {
    absl::Status status = ValidateJson(schema, nullptr, path);
    if (ReasonOf(status) == "INVALID_SCHEMA") Fail(path, status.message());
  }

  Evaluator& evaluator_;
  std::vector<std::string> agents_, tools_;
  std::vector<FieldViolation> violations_;
  int count_ = 0;
};

}  // namespace

absl::Status ValidateSpec(const WorkflowSpec& spec, const KnownNames& known, Evaluator& evaluator) {
  Check check(spec, known, evaluator);
  return check.Run(spec);
}

}  // namespace tutti::engine
