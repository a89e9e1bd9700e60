#include "services/workflow-engine/domain/plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

using tutti::workflow::v1::Step;
using Steps = google::protobuf::RepeatedPtrField<Step>;

struct Size {
  int weight = 0;       // leaf steps on the longest way
  int parallelism = 0;  // most leaf steps at the same time
};

Size SizeOf(const Step& step);

struct Node {
  const Step* step;
  Size size;
  size_t level = 0;
  int way = 0;    // weight of the longest way up to and with it
  int from = -1;  // the step before it on that way
};

bool IsGraph(const Steps& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.depends_on_size() > 0; });
}

std::vector<Node> Nodes(const Steps& steps) {
  std::vector<Node> nodes;
  std::map<std::string, int> index;
  for (const Step& step : steps) {
    index[step.id()] = static_cast<int>(nodes.size());
    nodes.push_back({&step, SizeOf(step)});
  }
  std::vector<std::vector<int>> before(nodes.size());
  bool graph = IsGraph(steps);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (!graph && i > 0) before[i].push_back(static_cast<int>(i) - 1);
    for (const auto& name : nodes[i].step->depends_on()) before[i].push_back(index.at(name));
  }
  // A valid spec has no cycles: as many passes as there are levels reach every node.
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t i = 0; i < nodes.size(); ++i) {
      Node next = nodes[i];
      next.way = next.size.weight;
      for (int b : before[i]) {
        const Node& other = nodes[static_cast<size_t>(b)];
        next.level = std::max(next.level, other.level + 1);
        if (other.way + next.size.weight > next.way) {
          next.way = other.way + next.size.weight;
          next.from = b;
        }
      }
      moved |= next.level != nodes[i].level || next.way != nodes[i].way;
      nodes[i] = next;
    }
  }
  return nodes;
}

Size SizeOf(const Steps& steps) {
  Size out;
  std::map<size_t, int> levels;
  for (const Node& node : Nodes(steps)) {
    out.weight = std::max(out.weight, node.way);
    levels[node.level] += node.size.parallelism;
  }
  for (const auto& [level, sum] : levels) out.parallelism = std::max(out.parallelism, sum);
  return out;
}

void After(Size& size, const Size& next) {
  size.weight += next.weight;
  size.parallelism = std::max(size.parallelism, next.parallelism);
}

// Side by side, at most `limit` at the same time; 0 is all.
Size Beside(std::vector<Size> sizes, int limit) {
  Size out;
  std::sort(sizes.begin(), sizes.end(), [](const Size& a, const Size& b) { return a.parallelism > b.parallelism; });
  for (size_t i = 0; i < sizes.size(); ++i) {
    out.weight = std::max(out.weight, sizes[i].weight);
    if (limit == 0 || static_cast<int>(i) < limit) out.parallelism += sizes[i].parallelism;
  }
  return out;
}

Size SizeOf(const Step& step) {
  Size out;
  std::vector<Size> ways;
  switch (step.kind_case()) {
    case Step::kSwitch:
      for (const auto& way : step.switch_().cases()) ways.push_back(SizeOf(way.steps()));
      ways.push_back(SizeOf(step.switch_().default_()));
      return Beside(std::move(ways), 1);
    case Step::kParallel:
      for (const auto& branch : step.parallel().branches()) ways.push_back(SizeOf(branch.steps()));
      out = Beside(std::move(ways), step.parallel().max_concurrency());
      if (step.parallel().fusion().has_agent()) After(out, {1, 1});
      return out;
    case Step::kPipeline:
      for (const auto& stage : step.pipeline().stages()) {
        After(out, SizeOf(stage.steps()));
        if (stage.gate().has_agent() || stage.gate().has_tool()) After(out, {1, 1});
      }
      return out;
    case Step::kReflect: {
      After(out, SizeOf(step.reflect().generate()));
      for (const auto& critic : step.reflect().panel()) ways.push_back(SizeOf(critic.steps()));
      if (ways.empty()) ways.push_back(SizeOf(step.reflect().critique()));
      After(out, Beside(std::move(ways), 0));
      return out;
    }
    case Step::kForEach:
      out = SizeOf(step.for_each().steps());
      out.parallelism *= std::max(1, step.for_each().max_concurrency());
      return out;
    case Step::kWhile:
      return SizeOf(step.while_().steps());
    case Step::kSupervisor:
      return {2 + (step.supervisor().integrator().empty() ? 0 : 1) + (step.supervisor().judge().empty() ? 0 : 1),
              step.supervisor().strategy() == "sequential" ? 1
              : step.supervisor().max_concurrency() == 0   ? 8
                                                           : step.supervisor().max_concurrency()};
    case Step::kAdaptive:
      out = {1, 1};
      After(out, SizeOf(step.adaptive().steps()));
      return out;
    default:
      return {1, 1};
  }
}

}  // namespace

tutti::workflow::v1::PlanWorkflowResponse MakePlan(const tutti::workflow::v1::WorkflowSpec& spec) {
  tutti::workflow::v1::PlanWorkflowResponse plan;
  std::vector<Node> nodes = Nodes(spec.steps());
  if (nodes.empty()) return plan;
  auto last = std::max_element(nodes.begin(), nodes.end(), [](const Node& a, const Node& b) { return a.way < b.way; });
  std::set<std::string> critical;
  std::vector<std::string> way;
  for (auto at = static_cast<int>(last - nodes.begin()); at >= 0; at = nodes[static_cast<size_t>(at)].from) {
    way.push_back(nodes[static_cast<size_t>(at)].step->id());
    critical.insert(way.back());
  }
  for (auto it = way.rbegin(); it != way.rend(); ++it) plan.add_critical_path(*it);
  plan.set_critical_path_weight(last->way);
  for (const Node& node : nodes) {
    while (plan.stages_size() <= static_cast<int>(node.level)) plan.add_stages();
    auto* out = plan.mutable_stages(static_cast<int>(node.level))->add_steps();
    out->set_id(node.step->id());
    out->set_kind(KindOf(*node.step));
    out->set_target(TargetOf(*node.step));
    *out->mutable_depends_on() = node.step->depends_on();
    out->set_weight(node.size.weight);
    out->set_parallelism(node.size.parallelism);
    out->set_critical(critical.count(node.step->id()) > 0);
  }
  for (const auto& stage : plan.stages()) {
    int sum = std::accumulate(stage.steps().begin(), stage.steps().end(), 0,
                              [](int before, const auto& step) { return before + step.parallelism(); });
    plan.set_max_parallelism(std::max(plan.max_parallelism(), sum));
  }
  if (spec.max_concurrent_steps() > 0) {
    plan.set_max_parallelism(std::min(plan.max_parallelism(), spec.max_concurrent_steps()));
  }
  return plan;
}

}  // namespace tutti::engine
