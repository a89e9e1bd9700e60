#include "services/workflow-engine/domain/validator.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/struct.pb.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/text/nearest_name.h"
#include "services/workflow-engine/domain/fusion.h"
#include "services/workflow-engine/domain/spec_search.h"

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

bool IsStepId(const std::string& id) {
  if (id.empty() || id.size() > 63 || !islower(static_cast<unsigned char>(id[0]))) return false;
  for (unsigned char c : id) {
    if (!islower(c) && !isdigit(c) && c != '_') return false;
  }
  return true;
}

bool IsReason(const std::string& reason) {
  return reason.size() <= 63 && isupper(static_cast<unsigned char>(reason[0])) &&
         std::all_of(reason.begin(), reason.end(),
                     [](unsigned char c) { return isupper(c) || isdigit(c) || c == '_'; });
}

class Check {
 public:
  Check(const WorkflowSpec& spec, const KnownNames& known, Evaluator& evaluator) : evaluator_(evaluator) {
    for (const auto& [name, what] : known.agents) agents_.push_back(name);
    for (const auto& [name, what] : known.tools) tools_.push_back(name);
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
    Handlers(spec.on_error(), "on_error", 0);
    if (spec.max_concurrent_steps() < 0 || spec.max_concurrent_steps() > 10000) {
      Fail("max_concurrent_steps", "must be 0 to 10000");
    }
    if (spec.has_timeout()) Positive(spec.timeout(), "timeout");
    if (spec.has_budget()) Budgeted(spec.budget(), "budget");
    Numbers(spec, "");
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

  // Refuses NaN and infinities wherever a number may stand: comparisons with them hold in no way that a reader expects.
  void Numbers(const google::protobuf::Message& message, const std::string& path) {
    using google::protobuf::FieldDescriptor;
    const auto& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const bool is_double = field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
      if (!is_double && field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      // JSON values have rules of their own.
      if (!is_double && field->message_type()->file() == google::protobuf::Value::descriptor()->file()) continue;
      const std::string place = absl::StrCat(path, path.empty() ? "" : ".", field->name());
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) {
        const std::string item = field->is_repeated() ? absl::StrCat(place, "[", i, "]") : place;
        if (!is_double) {
          Numbers(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                       : reflection.GetMessage(message, field),
                  item);
        } else if (!std::isfinite(field->is_repeated() ? reflection.GetRepeatedDouble(message, field, i)
                                                       : reflection.GetDouble(message, field))) {
          Fail(item, "must be a finite number");
        }
      }
    }
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
                                                    "draft", "critique", "round",  "gate",  "compensate"};
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
    Common(step, path, depth);
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
        if (step.parallel().has_straggler_deadline()) {
          Positive(step.parallel().straggler_deadline(), path + ".parallel.straggler_deadline");
        }
        if (step.parallel().has_hedge_after()) Positive(step.parallel().hedge_after(), path + ".parallel.hedge_after");
        if (step.parallel().has_fusion()) FusionOf(step.parallel(), path + ".parallel.fusion", ids);
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
          if (!stage.has_gate()) continue;
          GateOf(stage.gate(), stage_path + ".gate", depth);
          if (!stage.gate().go_back_to().empty() && ids.count(stage.gate().go_back_to()) == 0) {
            Fail(stage_path + ".gate.go_back_to",
                 absl::StrCat("no stage \"", stage.gate().go_back_to(), "\" up to here",
                              DidYouMean(stage.gate().go_back_to(), {ids.begin(), ids.end()})));
          }
        }
        return;
      }
      case Step::kReflect: {
        const auto& reflect = step.reflect();
        NonEmptyBlock(reflect.generate(), path + ".reflect.generate", depth);
        if (reflect.panel().empty()) {
          NonEmptyBlock(reflect.critique(), path + ".reflect.critique", depth);
        } else if (!reflect.critique().empty()) {
          Fail(path + ".reflect.critique", "must not be set beside panel");
        }
        std::set<std::string> critics, criteria;
        for (int i = 0; i < reflect.panel_size(); ++i) {
          std::string critic_path = absl::StrCat(path, ".reflect.panel[", i, "]");
          Id(reflect.panel(i).id(), critic_path + ".id", critics);
          NonEmptyBlock(reflect.panel(i).steps(), critic_path + ".steps", depth);
          if (reflect.panel(i).weight() < 0) Fail(critic_path + ".weight", "must not be negative");
        }
        for (int i = 0; i < reflect.rubric_size(); ++i) {
          std::string rubric_path = absl::StrCat(path, ".reflect.rubric[", i, "]");
          Id(reflect.rubric(i).name(), rubric_path + ".name", criteria);
          if (reflect.rubric(i).weight() < 0) Fail(rubric_path + ".weight", "must not be negative");
        }
        Range(reflect.patience(), 0, 20, path + ".reflect.patience");
        if (reflect.has_lessons()) {
          AgentName(reflect.lessons().agent(), path + ".reflect.lessons.agent");
          Range(reflect.lessons().limit(), 0, 20, path + ".reflect.lessons.limit");
        }
        Block(reflect.improve(), path + ".reflect.improve", depth + 1);
        if (reflect.has_threshold() && (reflect.threshold() < 0 || reflect.threshold() > 1)) {
          Fail(path + ".reflect.threshold", "must be 0 to 1");
        }
        if (reflect.max_rounds() < 0 || reflect.max_rounds() > 20)
          Fail(path + ".reflect.max_rounds", "must be 1 to 20");
        return;
      }
      case Step::kHttp:
        return Http(step.http(), path + ".http");
      case Step::kForEach:
        Expression(step.for_each().items(), path + ".for_each.items");
        Range(step.for_each().max_concurrency(), 0, 1000, path + ".for_each.max_concurrency");
        return NonEmptyBlock(step.for_each().steps(), path + ".for_each.steps", depth);
      case Step::kWhile:
        Expression(step.while_().condition(), path + ".while.condition");
        Range(step.while_().max_iterations(), 0, 1000000, path + ".while.max_iterations");
        return NonEmptyBlock(step.while_().steps(), path + ".while.steps", depth);
      case Step::kSubWorkflow:
        if (!IsResourceId(step.sub_workflow().workflow())) {
          Fail(path + ".sub_workflow.workflow", "must be the name of a stored workflow");
        }
        if (step.sub_workflow().version() < 0) Fail(path + ".sub_workflow.version", "must not be negative");
        if (step.sub_workflow().has_input())
          Template(ToJson(step.sub_workflow().input()), path + ".sub_workflow.input");
        if (!step.sub_workflow().output().empty())
          Expression(step.sub_workflow().output(), path + ".sub_workflow.output");
        return;
      case Step::kSleep:
        if (step.sleep().has_duration() == !step.sleep().until().empty()) {
          return Fail(path + ".sleep", "must have one of duration and until");
        }
        if (step.sleep().has_duration()) return Positive(step.sleep().duration(), path + ".sleep.duration");
        return Expression(step.sleep().until(), path + ".sleep.until");
      case Step::kWaitForSignal:
        return Wait(step.wait_for_signal(), path + ".wait_for_signal");
      case Step::kEmit:
        if (step.emit().type().empty() || step.emit().type().size() > 200) {
          Fail(path + ".emit.type", "must have 1 to 200 characters");
        }
        Template(Json(step.emit().subject()), path + ".emit.subject");
        if (step.emit().has_data()) Template(ToJson(step.emit().data()), path + ".emit.data");
        return;
      case Step::kFail:
        if (!step.fail().code().empty()) Code(step.fail().code(), path + ".fail.code");
        if (!step.fail().reason().empty() && !IsReason(step.fail().reason())) {
          Fail(path + ".fail.reason", "must match ^[A-Z][A-Z0-9_]{0,62}$");
        }
        if (step.fail().message().empty()) Fail(path + ".fail.message", "must be set");
        return Template(Json(step.fail().message()), path + ".fail.message");
      case Step::kSupervisor:
        return Supervisor(step.supervisor(), path + ".supervisor");
      case Step::kAdaptive:
        AgentName(step.adaptive().planner(), path + ".adaptive.planner");
        Range(step.adaptive().max_steps(), 0, 100, path + ".adaptive.max_steps");
        if (step.adaptive().has_task()) Template(ToJson(step.adaptive().task()), path + ".adaptive.task");
        return Block(step.adaptive().steps(), path + ".adaptive.steps", depth + 1);
      default:
        Fail(path,
             "has no kind; it must have one of agent, tool, transform, switch, parallel, pipeline, reflect, http, "
             "for_each, while, sub_workflow, sleep, wait_for_signal, emit, fail, supervisor, adaptive");
    }
  }

  // What any step may have.
  void Common(const Step& step, const std::string& path, int depth) {
    if (!step.when().empty()) Expression(step.when(), path + ".when");
    if (step.has_retry()) Retry(step, path + ".retry");
    if (step.has_timeout()) Positive(step.timeout(), path + ".timeout");
    Conditions(step.preconditions(), path + ".preconditions");
    Conditions(step.postconditions(), path + ".postconditions");
    if (step.has_gate()) {
      GateOf(step.gate(), path + ".gate", depth);
      if (!step.gate().go_back_to().empty()) Fail(path + ".gate.go_back_to", "only stages of a pipeline may go back");
    }
    Block(step.fallback(), path + ".fallback", depth + 1);
    Block(step.compensation(), path + ".compensation", depth + 1);
    if (HoldsField(step, "compensation")) {
      for (const Step& inner : step.compensation()) {
        if (HoldsField(inner, "compensation")) Fail(path + ".compensation", "a compensation cannot be compensated");
      }
    }
    if (step.has_cache()) {
      Template(Json(step.cache().key()), path + ".cache.key");
      if (step.cache().has_ttl()) Positive(step.cache().ttl(), path + ".cache.ttl");
      if (HoldsField(step, "wait_for_signal") || HoldsField(step, "sleep")) {
        Fail(path + ".cache", "a step that waits cannot be answered from before");
      }
    }
    Budgeted(step.budget(), path + ".budget");
    Range(step.priority(), -100, 100, path + ".priority");
    Handlers(step.on_error(), path + ".on_error", depth);
  }

  void Budgeted(const tutti::workflow::v1::StepBudget& budget, const std::string& path) {
    if (budget.tokens() < 0 || budget.cost_nano_units() < 0 || budget.calls() < 0) Fail(path, "must not be negative");
    if (budget.has_time()) Positive(budget.time(), path + ".time");
  }

  void Conditions(const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Condition>& conditions,
                  const std::string& path) {
    for (int i = 0; i < conditions.size(); ++i) {
      Expression(conditions[i].expression(), absl::StrCat(path, "[", i, "].expression"));
      Template(Json(conditions[i].message()), absl::StrCat(path, "[", i, "].message"));
    }
  }

  void Handlers(const google::protobuf::RepeatedPtrField<tutti::workflow::v1::ErrorHandler>& handlers,
                const std::string& path, int depth) {
    for (int i = 0; i < handlers.size(); ++i) {
      std::string handler_path = absl::StrCat(path, "[", i, "]");
      for (int k = 0; k < handlers[i].codes_size(); ++k) {
        Code(handlers[i].codes(k), absl::StrCat(handler_path, ".codes[", k, "]"));
      }
      NonEmptyBlock(handlers[i].steps(), handler_path + ".steps", depth);
    }
  }

  void Http(const tutti::workflow::v1::HttpStep& http, const std::string& path) {
    static const std::set<std::string> kMethods = {"", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"};
    if (kMethods.count(http.method()) == 0) {
      Fail(path + ".method", absl::StrCat("\"", http.method(), "\" must be GET, HEAD, POST, PUT, PATCH or DELETE"));
    }
    bool literal = !absl::StartsWith(http.url(), "${");
    if (http.url().empty() ||
        (literal && !absl::StartsWith(http.url(), "http://") && !absl::StartsWith(http.url(), "https://"))) {
      Fail(path + ".url", "must begin with http:// or https://");
    }
    Template(Json(http.url()), path + ".url");
    for (const auto& [name, value] : http.headers()) Template(Json(value), absl::StrCat(path, ".headers.", name));
    if (http.has_body()) Template(ToJson(http.body()), path + ".body");
    if (!http.response().empty()) Expression(http.response(), path + ".response");
    if (!http.auth_header().empty() && http.auth_secret().empty()) Fail(path + ".auth_header", "needs auth_secret");
    for (int i = 0; i < http.expected_status_size(); ++i) {
      Range(http.expected_status(i), 100, 599, absl::StrCat(path, ".expected_status[", i, "]"));
    }
  }

  void Wait(const tutti::workflow::v1::WaitForSignalStep& wait, const std::string& path) {
    if (!IsSignalName(wait.signal())) Fail(path + ".signal", "must match ^[a-z][a-z0-9_.-]{0,62}$");
    if (wait.has_schema()) Schema(ToJson(wait.schema()), path + ".schema");
    if (wait.has_timeout()) Positive(wait.timeout(), path + ".timeout");
    if (wait.has_default_() && !wait.has_timeout()) Fail(path + ".default", "is for the timeout, which is not set");
    if (wait.has_approval()) {
      if (wait.approval().title().empty()) Fail(path + ".approval.title", "must be set");
      Template(Json(wait.approval().title()), path + ".approval.title");
      if (wait.approval().has_form()) Template(ToJson(wait.approval().form()), path + ".approval.form");
    }
  }

  void Supervisor(const tutti::workflow::v1::SupervisorStep& step, const std::string& path) {
    static const std::set<std::string> kStrategies = {"", "sequential", "parallel", "hierarchical"};
    if (kStrategies.count(step.strategy()) == 0) {
      Fail(path + ".strategy", absl::StrCat("\"", step.strategy(), "\" must be sequential, parallel or hierarchical"));
    }
    if (step.has_task()) Template(ToJson(step.task()), path + ".task");
    AgentName(step.decomposer(), path + ".decomposer");
    if (!step.integrator().empty()) AgentName(step.integrator(), path + ".integrator");
    if (!step.judge().empty()) AgentName(step.judge(), path + ".judge");
    if (step.specialists().empty() || step.specialists_size() > 100) Fail(path + ".specialists", "must be 1 to 100");
    std::set<std::string> agents;
    for (int i = 0; i < step.specialists_size(); ++i) {
      std::string agent_path = absl::StrCat(path, ".specialists[", i, "].agent");
      AgentName(step.specialists(i).agent(), agent_path);
      if (!agents.insert(step.specialists(i).agent()).second) Fail(agent_path, "stands here twice");
    }
    if (step.has_threshold() && (step.threshold() < 0 || step.threshold() > 1))
      Fail(path + ".threshold", "must be 0 to 1");
    Range(step.max_rounds(), 0, 10, path + ".max_rounds");
    Range(step.max_concurrency(), 0, 100, path + ".max_concurrency");
    Range(step.max_subtasks(), 0, 200, path + ".max_subtasks");
    const auto& weights = step.weights();
    if (weights.capability() < 0 || weights.success() < 0 || weights.load() < 0 || weights.specialisation() < 0) {
      Fail(path + ".weights", "must not be negative");
    }
  }

  void FusionOf(const tutti::workflow::v1::ParallelStep& parallel, const std::string& path,
                const std::set<std::string>& branches) {
    const auto& fusion = parallel.fusion();
    if (!IsFusionMethod(fusion.method())) {
      Fail(path + ".method", absl::StrCat("\"", fusion.method(),
                                          "\" must be concat, deep_merge, majority_vote, weighted_vote, "
                                          "best_by_score, first_success, quorum or agent"));
    }
    if (!fusion.value().empty()) Expression(fusion.value(), path + ".value");
    if (!fusion.score().empty()) Expression(fusion.score(), path + ".score");
    for (const auto& [branch, weight] : fusion.weights()) {
      if (branches.count(branch) == 0) Fail(absl::StrCat(path, ".weights.", branch), "is no branch");
      if (weight < 0) Fail(absl::StrCat(path, ".weights.", branch), "must not be negative");
    }
    Range(fusion.quorum(), 0, parallel.branches_size(), path + ".quorum");
    if (fusion.method() == "agent") {
      if (!fusion.has_agent()) return Fail(path + ".agent", "must be set");
      Agent(fusion.agent(), path + ".agent");
    }
  }

  void Range(int64_t value, int64_t least, int64_t most, const std::string& path) {
    if (value < least || value > most) Fail(path, absl::StrCat("must be ", least, " to ", most));
  }
  void Positive(const google::protobuf::Duration& duration, const std::string& path) {
    if (duration.seconds() < 0 || duration.nanos() < 0 || (duration.seconds() == 0 && duration.nanos() == 0)) {
      Fail(path, "must be longer than nothing");
    }
  }
  void Code(const std::string& name, const std::string& path) {
    if (name == "OK" || (name != "UNKNOWN" && CodeFromName(name) == absl::StatusCode::kUnknown)) {
      Fail(path, absl::StrCat("\"", name, "\" is no gRPC status code"));
    }
  }
  void AgentName(const std::string& name, const std::string& path) {
    if (std::find(agents_.begin(), agents_.end(), name) == agents_.end()) {
      Fail(path, absl::StrCat("no agent \"", name, "\"", DidYouMeanOf(name, agents_)));
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
      Code(retry.retryable_codes(i), absl::StrCat(path, ".retryable_codes[", i, "]"));
    }
  }

  void GateOf(const Gate& gate, const std::string& path, int depth) {
    Range(gate.max_returns(), 0, 20, path + ".max_returns");
    Block(gate.fallback(), path + ".fallback", depth + 1);
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
    AgentName(agent.agent(), path + ".agent");
    if (agent.has_input()) Template(ToJson(agent.input()), path + ".input");
  }

  void ToolCall(const ToolStep& tool, const std::string& path) {
    Tool(tool.tool(), path + ".tool");
    if (tool.has_parameters()) Template(ToJson(tool.parameters()), path + ".parameters");
  }

  void Tool(const std::string& name, const std::string& path) {
    if (std::find(tools_.begin(), tools_.end(), name) == tools_.end()) {
      Fail(path, absl::StrCat("no tool \"", name, "\"", DidYouMeanOf(name, tools_)));
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

bool IsResourceId(const std::string& name) {
  if (name.empty() || name.size() > 63 || !islower(static_cast<unsigned char>(name[0])) || name.back() == '-')
    return false;
  for (unsigned char c : name) {
    if (!islower(c) && !isdigit(c) && c != '-') return false;
  }
  return true;
}

bool IsSignalName(const std::string& name) {
  if (name.empty() || name.size() > 63 || !islower(static_cast<unsigned char>(name[0]))) return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return islower(c) || isdigit(c) || c == '_' || c == '.' || c == '-'; });
}

absl::Status ValidateSpec(const WorkflowSpec& spec, const KnownNames& known, Evaluator& evaluator) {
  Check check(spec, known, evaluator);
  return check.Run(spec);
}

}  // namespace tutti::engine
