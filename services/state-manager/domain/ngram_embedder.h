// The embedded default: words, pairs of words and their letters' trigrams, hashed into a fixed number of dimensions
// with a sign (feature hashing: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"). It knows
// spelling, not meaning, needs no model, and says so by its name.
#pragma once

#include "services/state-manager/ports/embedder.h"

namespace tutti::state_manager {

class NgramEmbedder final : public Embedder {
 public:
  static constexpr size_t kDimensions = 256;
  std::string name() const override { return "ngram-256-v1"; }
  std::vector<float> Embed(absl::string_view text) const override;
};

}  // namespace tutti::state_manager
