#include "services/workflow-engine/domain/progress.h"

#include <algorithm>

namespace tutti::engine {
namespace {

using tutti::workflow::v1::Step;
using Steps = google::protobuf::RepeatedPtrField<Step>;

void AddLeaves(const Steps& steps, std::set<const void*>* out);

void AddLeaves(const Step& step, std::set<const void*>* out) {
  switch (step.kind_case()) {
    case Step::kSwitch:
      for (const auto& way : step.switch_().cases()) AddLeaves(way.steps(), out);
      return AddLeaves(step.switch_().default_(), out);
    case Step::kParallel:
      for (const auto& branch : step.parallel().branches()) AddLeaves(branch.steps(), out);
      return;
    case Step::kPipeline:
      for (const auto& stage : step.pipeline().stages()) {
        AddLeaves(stage.steps(), out);
        if (stage.has_gate()) out->insert(&stage.gate());
      }
      return;
    case Step::kReflect:
      AddLeaves(step.reflect().generate(), out);
      for (const auto& critic : step.reflect().panel()) AddLeaves(critic.steps(), out);
      return AddLeaves(step.reflect().critique(), out);
    default:  // a loop counts once, when it has ended
      out->insert(&step);
  }
}

void AddLeaves(const Steps& steps, std::set<const void*>* out) {
  for (const auto& step : steps) AddLeaves(step, out);
}

}  // namespace

Progress::Progress(const tutti::workflow::v1::WorkflowSpec& spec) { AddLeaves(spec.steps(), &all_); }

void Progress::Complete(const Step& step) {
  std::set<const void*> leaves;
  AddLeaves(step, &leaves);
  // Steps that are not on the way as the spec shows it (of loops, supervisors, compensations) do not count.
  for (const void* leaf : leaves) {
    if (all_.count(leaf) > 0) done_.insert(leaf);
  }
}
void Progress::Complete(const tutti::workflow::v1::Gate& gate) {
  if (all_.count(&gate) > 0) done_.insert(&gate);
}
int Progress::percent() const { return all_.empty() ? 0 : static_cast<int>(99 * done_.size() / all_.size()); }

}  // namespace tutti::engine
