#include "services/workflow-engine/adapters/pattern_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

namespace tutti::engine {
namespace {

prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Histogram>& Histograms(prometheus::Registry& registry, const char* name,
                                                      const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace

PatternMetrics::PatternMetrics(prometheus::Registry& registry)
    : ended_(Counters(registry, "tutti_engine_patterns_total", "Steps made of steps that ended, by outcome.")),
      seconds_(Histograms(registry, "tutti_engine_pattern_duration_seconds",
                          "Time of steps made of steps, from their beginning to their end, waits included.")),
      rounds_(Histograms(registry, "tutti_engine_pattern_rounds", "Rounds that reflective and supervised steps took.")),
      scores_(Histograms(registry, "tutti_engine_pattern_score", "Scores that those steps reached, 0 to 1.")),
      gates_(Counters(registry, "tutti_engine_gates_total", "Verdicts of quality gates.")),
      passed_(gates_.Add({{"verdict", "passed"}})),
      failed_(gates_.Add({{"verdict", "failed"}})) {}

const PatternMetrics::OfKind& PatternMetrics::Of(const std::string& kind) {
  auto [known, anew] = kinds_.try_emplace(kind);
  if (anew) {
    static const prometheus::Histogram::BucketBoundaries kSeconds = {0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 86400};
    known->second = {&ended_.Add({{"pattern", kind}, {"outcome", "succeeded"}}),
                     &ended_.Add({{"pattern", kind}, {"outcome", "failed"}}),
                     &seconds_.Add({{"pattern", kind}}, kSeconds)};
  }
  return known->second;
}

void PatternMetrics::Ended(const std::string& kind, bool good, absl::Duration took) {
  const OfKind& of = Of(kind);
  (good ? of.good : of.bad)->Increment();
  of.seconds->Observe(absl::ToDoubleSeconds(took));
}

void PatternMetrics::Rounds(const std::string& kind, int rounds, double score) {
  auto [known, anew] = with_rounds_.try_emplace(kind);
  if (anew) {
    static const prometheus::Histogram::BucketBoundaries kRounds = {1, 2, 3, 5, 8, 13};
    static const prometheus::Histogram::BucketBoundaries kScores = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1};
    known->second = {&rounds_.Add({{"pattern", kind}}, kRounds), &scores_.Add({{"pattern", kind}}, kScores)};
  }
  known->second.rounds->Observe(rounds);
  known->second.score->Observe(score);
}

void PatternMetrics::Judged(bool passed) { (passed ? passed_ : failed_).Increment(); }

}  // namespace tutti::engine
