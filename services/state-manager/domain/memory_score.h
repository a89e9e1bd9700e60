// How good a memory is for a query: score = relevance^r x recency^c x importance^i.
#pragma once

#include <cmath>

namespace tutti::state_manager {

struct ScoreWeights {
  double relevance = 1, recency = 0.5, importance = 0.5;  // exponents; 0 leaves a part out
  double text = 0.5;                                      // share of full text in relevance
  double half_life_seconds = 30.0 * 86400;
};

struct ScoreParts {
  double text = 0, vector = 0;  // 0 to 1
  double relevance = 0, recency = 0, importance = 0;
  double score = 0;
};

// `age_seconds` since it was stored or last brought by a search.
inline ScoreParts Score(const ScoreWeights& weights, double text, double vector, double age_seconds,
                        double importance) {
  ScoreParts out;
  out.text = text;
  out.vector = vector;
  out.relevance = weights.text * text + (1 - weights.text) * vector;
  out.recency = std::exp2(-std::fmax(0, age_seconds) / weights.half_life_seconds);
  out.importance = importance;
  out.score = std::pow(out.relevance, weights.relevance) * std::pow(out.recency, weights.recency) *
              std::pow(out.importance, weights.importance);
  return out;
}

}  // namespace tutti::state_manager
