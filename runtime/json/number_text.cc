#include "runtime/json/number_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

namespace tutti {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// 0.DIGITS × 10^exponent, without zeros at either end of the digits; no digits are zero.
struct Decimal {
  bool negative = false;
  std::string digits;
  int64_t exponent = 0;
};

Decimal ParseDecimal(absl::string_view text) {
  Decimal out;
  size_t i = 0;
  if (i < text.size() && text[i] == '-') {
    out.negative = true;
    ++i;
  }
  bool fraction = false;
  for (; i < text.size() && (IsDigit(text[i]) || text[i] == '.'); ++i) {
    if (text[i] == '.') {
      fraction = true;
      continue;
    }
    if (!fraction) ++out.exponent;
    out.digits.push_back(text[i]);
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    bool minus = i < text.size() && text[i] == '-';
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
    int64_t exponent = 0;
    constexpr int64_t kFar = int64_t{1} << 60;  // where numbers of that many digits do not come
    for (; i < text.size() && IsDigit(text[i]); ++i) {
      exponent = exponent >= kFar / 10 ? kFar : exponent * 10 + (text[i] - '0');
    }
    out.exponent += minus ? -exponent : exponent;
  }
  size_t zeros = std::min(out.digits.find_first_not_of('0'), out.digits.size());
  out.digits.erase(0, zeros);
  out.exponent -= static_cast<int64_t>(zeros);
  while (!out.digits.empty() && out.digits.back() == '0') out.digits.pop_back();
  if (out.digits.empty()) out = {};
  return out;
}

}  // namespace

size_t NumberTextLength(absl::string_view text) {
  size_t i = 0;
  auto digits = [&] {
    size_t begin = i;
    while (i < text.size() && IsDigit(text[i])) ++i;
    return i - begin;
  };
  if (i < text.size() && text[i] == '-') ++i;
  if (i < text.size() && text[i] == '0') {
    ++i;
  } else if (digits() == 0) {
    return 0;
  }
  if (i + 1 < text.size() && text[i] == '.' && IsDigit(text[i + 1])) {
    ++i;
    digits();
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    size_t before = i++;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (digits() == 0) i = before;
  }
  return i;
}

double NumberTextToDouble(absl::string_view text) {
  double number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) {
    Decimal decimal = ParseDecimal(text);
    number = decimal.exponent > 0 ? INFINITY : 0;
    return decimal.negative ? -number : number;
  }
  return number;
}

int CompareNumberTexts(absl::string_view a, absl::string_view b) {
  Decimal x = ParseDecimal(a), y = ParseDecimal(b);
  if (x.digits.empty() || y.digits.empty() || x.negative != y.negative) {
    auto sign = [](const Decimal& d) { return d.digits.empty() ? 0 : d.negative ? -1 : 1; };
    return sign(x) - sign(y);
  }
  int larger = x.negative ? -1 : 1;
  if (x.exponent != y.exponent) return x.exponent < y.exponent ? -larger : larger;
  int order = x.digits.compare(y.digits);  // a prefix is smaller, as it lacks only further digits
  return order < 0 ? -larger : order > 0 ? larger : 0;
}

}  // namespace tutti
