#include "services/workflow-engine/domain/progress.h"

#include <algorithm>

namespace tutti::engine {

using tutti::workflow::v1::Step;

void Progress::Add(const Step& step, Parts* out) {
  // What is done as often as it takes counts as one, and as much as what one round of it has to do.
  auto as_one = [out](const google::protobuf::Message& kind, const Parts& inside, double more = 0) {
    (*out)[&kind].weight = std::max(1.0, static_cast<double>(inside.size()) + more);
  };
  Parts inside;
  switch (step.kind_case()) {
    case Step::kSwitch:
      for (const auto& way : step.switch_().cases()) Add(way.steps(), out);
      return Add(step.switch_().default_(), out);
    case Step::kParallel:
      for (const auto& branch : step.parallel().branches()) Add(branch.steps(), out);
      return;
    case Step::kPipeline:
      for (const auto& stage : step.pipeline().stages()) {
        Add(stage.steps(), out);
        if (stage.has_gate()) (*out)[&stage.gate()];
      }
      return;
    case Step::kReflect:
      Add(step.reflect().generate(), &inside);
      for (const auto& critic : step.reflect().panel()) Add(critic.steps(), &inside);
      Add(step.reflect().critique(), &inside);
      return as_one(step.reflect(), inside);
    case Step::kForEach:
      Add(step.for_each().steps(), &inside);
      return as_one(step.for_each(), inside);
    case Step::kWhile:
      Add(step.while_().steps(), &inside);
      return as_one(step.while_(), inside);
    case Step::kSupervisor:
      return as_one(step.supervisor(), inside, 2 + step.supervisor().specialists_size());
    case Step::kAdaptive:
      Add(step.adaptive().steps(), &inside);
      return as_one(step.adaptive(), inside);
    default:
      (*out)[&step];
  }
}

void Progress::Add(const google::protobuf::RepeatedPtrField<Step>& steps, Parts* out) {
  for (const auto& step : steps) Add(step, out);
}

Progress::Progress(const tutti::workflow::v1::WorkflowSpec& spec) {
  Add(spec.steps(), &parts_);
  for (const auto& [key, part] : parts_) all_ += part.weight;
}

void Progress::Reach(Part& part, double share) {
  share = std::clamp(share, part.share, 1.0);
  done_ += part.weight * (share - part.share);
  part.share = share;
}

void Progress::Reach(const google::protobuf::Message& kind, double share) {
  // What is not on the way as the spec shows it (inside of loops and patterns, compensations) does not count.
  if (auto part = parts_.find(&kind); part != parts_.end()) Reach(part->second, share);
}

bool Progress::Unfold(const google::protobuf::Message& kind, const google::protobuf::RepeatedPtrField<Step>& steps) {
  auto part = parts_.find(&kind);
  if (part == parts_.end() || part->second.share > 0 || unfolded_.count(&kind) > 0) return false;
  Parts inside;
  Add(steps, &inside);
  double weights = 0;
  for (const auto& [key, inner] : inside) weights += inner.weight;
  if (weights == 0) return false;
  const double scale = part->second.weight / weights;
  parts_.erase(part);
  for (auto& [key, inner] : inside) {
    inner.weight *= scale;
    parts_[key] = inner;
    unfolded_[&kind].push_back(key);
  }
  return true;
}

void Progress::Complete(const Step& step) {
  Parts ended;
  Add(step, &ended);
  for (const auto& [key, unused] : ended) {
    if (auto part = parts_.find(key); part != parts_.end()) Reach(part->second, 1);
    auto instead = unfolded_.find(key);
    if (instead == unfolded_.end()) continue;
    for (const void* inner : instead->second) {
      if (auto part = parts_.find(inner); part != parts_.end()) Reach(part->second, 1);
    }
  }
}

void Progress::Complete(const tutti::workflow::v1::Gate& gate) { Reach(gate, 1); }

int Progress::percent() const {
  // Sums of shares are not exact; what is nearly a whole is one.
  return all_ == 0 ? 0 : static_cast<int>(std::min(99.0, 99 * done_ / all_ + 1e-6));
}

}  // namespace tutti::engine
