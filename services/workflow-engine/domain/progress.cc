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
      return AddLeaves(step.reflect().critique(), out);
    default:
      out->insert(&step);
  }
}

void AddLeaves(const Steps& steps, std::set<const void*>* out) {
  for (const auto& step : steps) AddLeaves(step, out);
}

}  // namespace

Progress::Progress(const tutti::workflow::v1::WorkflowSpec& spec) {
  std::set<const void*> all;
  AddLeaves(spec.steps(), &all);
  total_ = std::max<size_t>(1, all.size());
}

void Progress::Complete(const Step& step) { AddLeaves(step, &done_); }
void Progress::Complete(const tutti::workflow::v1::Gate& gate) { done_.insert(&gate); }
int Progress::percent() const { return static_cast<int>(std::min<size_t>(99, 99 * done_.size() / total_)); }

}  // namespace tutti::engine
