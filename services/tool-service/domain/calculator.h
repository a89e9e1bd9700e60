// Exact arithmetic on decimals: + - * / ^ ( ), unary minus, numbers such as 1.5 or 2e-3. Values are fractions of
// integers of any size (Boost.Multiprecision), so 0.1 + 0.2 is 0.3.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace tutti::tool_service {

struct CalculatorResult {
  std::string decimal;  // exact when `exact`, else rounded half even at `digits` places
  bool exact = true;
  std::string fraction;  // "numerator/denominator", lowest terms
};

// INVALID_ARGUMENT with the column: a syntax error, a division by zero, an exponent over 1000, a result over 10,000
// digits.
absl::StatusOr<CalculatorResult> Calculate(const std::string& expression, int digits);

}  // namespace tutti::tool_service
