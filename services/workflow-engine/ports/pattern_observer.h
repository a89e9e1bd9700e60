// Told how patterns fare, for metrics.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace tutti::engine {

class PatternObserver {
 public:
  virtual ~PatternObserver() = default;
  // A step that is made of steps (`kind` as journals name it), or a graph, has ended, well or not. Once for each end
  // that is recorded.
  virtual void Ended(const std::string& kind, bool good, absl::Duration took) = 0;
  // A reflective or a supervised step took so many rounds, at least 1, and reached this score, 0 to 1.
  virtual void Rounds(const std::string& kind, int rounds, double score) = 0;
  // A quality gate has judged.
  virtual void Judged(bool passed) = 0;
};

}  // namespace tutti::engine
