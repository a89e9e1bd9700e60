// Numbers as text, in JSON's grammar: for those that a double, or a 64-bit integer, does not carry as they were
// written.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tutti {

// The length of the number at the start of `text`; 0: there is none.
size_t NumberTextLength(absl::string_view text);

// The nearest double; infinite beyond the largest.
double NumberTextToDouble(absl::string_view text);

// Negative, 0 or positive: exact, whatever the digits and exponents. Both are numbers in JSON's grammar.
int CompareNumberTexts(absl::string_view a, absl::string_view b);

}  // namespace tutti
