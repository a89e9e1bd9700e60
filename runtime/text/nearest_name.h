// "Did you mean …?"
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tutti {

// The candidate with the smallest edit distance, or empty when none is near (more than a third of the letters differ).
std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates);
// `; did you mean "x"?` or empty.
std::string DidYouMean(absl::string_view name, const std::vector<std::string>& candidates);
// The same, and all that is known: `; did you mean "x"? Known: w, x, y` or `; known: w, x, y`.
std::string DidYouMeanOf(absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace tutti
