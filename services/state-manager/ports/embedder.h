// Turns text into a vector, so that texts of like meaning lie close.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tutti::state_manager {

class Embedder {
 public:
  virtual ~Embedder() = default;
  // Vectors of different names are never compared.
  virtual std::string name() const = 0;
  // Of length 1 (or all zero for a text without words). The same text always gives the same vector.
  virtual std::vector<float> Embed(absl::string_view text) const = 0;
};

}  // namespace tutti::state_manager
