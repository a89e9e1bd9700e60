// How patterns fare, for Prometheus.
#pragma once

#include <map>
#include <string>

#include "services/workflow-engine/ports/pattern_observer.h"

namespace prometheus {
class Registry;
template <class T>
class Family;
class Counter;
class Histogram;
}  // namespace prometheus

namespace tutti::engine {

// On one executor.
class PatternMetrics final : public PatternObserver {
 public:
  explicit PatternMetrics(prometheus::Registry& registry);
  void Ended(const std::string& kind, bool good, absl::Duration took) override;
  void Rounds(const std::string& kind, int rounds, double score) override;
  void Judged(bool passed) override;

 private:
  struct OfKind {
    prometheus::Counter *good, *bad;
    prometheus::Histogram* seconds;
  };
  struct OfRounds {
    prometheus::Histogram *rounds, *score;
  };
  const OfKind& Of(const std::string& kind);

  prometheus::Family<prometheus::Counter>& ended_;
  prometheus::Family<prometheus::Histogram>& seconds_;
  prometheus::Family<prometheus::Histogram>& rounds_;
  prometheus::Family<prometheus::Histogram>& scores_;
  prometheus::Family<prometheus::Counter>& gates_;
  prometheus::Counter &passed_, &failed_;
  // Found once: loops end often.
  std::map<std::string, OfKind> kinds_;
  std::map<std::string, OfRounds> with_rounds_;
};

}  // namespace tutti::engine
