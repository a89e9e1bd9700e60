// How far a run is, in percent of the spec's leaves that can be seen to be done. Repeated rounds and attempts count
// once, so the figure only grows; it reaches 100 with the run's end and nothing else.
#pragma once

#include <set>

#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

class Progress {
 public:
  explicit Progress(const tutti::workflow::v1::WorkflowSpec& spec);
  // A step of the spec has ended: all its leaves count.
  void Complete(const tutti::workflow::v1::Step& step);
  void Complete(const tutti::workflow::v1::Gate& gate);
  int percent() const;

 private:
  std::set<const void*> all_, done_;
};

}  // namespace tutti::engine
