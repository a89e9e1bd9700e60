// How far a run is, in percent of the spec's parts that can be seen to be done. Repeated rounds and attempts count
// once, so the figure only grows; it reaches 100 with the run's end and nothing else.
#pragma once

#include <map>
#include <vector>

#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

class Progress {
 public:
  explicit Progress(const tutti::workflow::v1::WorkflowSpec& spec);
  // A step of the spec has ended: all its parts count.
  void Complete(const tutti::workflow::v1::Step& step);
  void Complete(const tutti::workflow::v1::Gate& gate);
  // A loop or a pattern (`kind` is the message of the step's oneof) has done this share of its work, 0 to 1.
  void Reach(const google::protobuf::Message& kind, double share);
  // What a pattern does has become known: its steps take its place, and must live as long as this. False: they do not.
  bool Unfold(const google::protobuf::Message& kind,
              const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Step>& steps);
  int percent() const;

 private:
  struct Part {
    double weight = 1, share = 0;
  };
  using Parts = std::map<const void*, Part>;
  static void Add(const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Step>& steps, Parts* out);
  static void Add(const tutti::workflow::v1::Step& step, Parts* out);
  void Reach(Part& part, double share);

  Parts parts_;
  std::map<const void*, std::vector<const void*>> unfolded_;  // what stands in a part's place
  double all_ = 0, done_ = 0;
};

}  // namespace tutti::engine
