#include "services/tool-service/domain/calculator.h"

#include <boost/multiprecision/cpp_int.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::tool_service {
namespace {

using Integer = boost::multiprecision::cpp_int;
using Fraction = boost::multiprecision::cpp_rational;

constexpr int kMaxDepth = 100;
constexpr size_t kMaxBits = 34000;  // about 10,000 decimal digits
constexpr int kMaxExponent = 1000;

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  absl::StatusOr<Fraction> Parse() {
    TUTTI_ASSIGN_OR_RETURN(Fraction value, Sum());
    Skip();
    if (at_ != text_.size()) {
      size_t end = at_ + 1;  // a whole character, not a byte of it
      while (end < text_.size() && (static_cast<unsigned char>(text_[end]) & 0xC0) == 0x80) ++end;
      return Wrong(absl::StrCat("unexpected \"", text_.substr(at_, end - at_), "\""));
    }
    return value;
  }

 private:
  absl::Status Wrong(absl::string_view what) const {
    return Error(absl::StatusCode::kInvalidArgument, "BAD_CALCULATION", absl::StrCat("column ", at_ + 1, ": ", what))
        .Violation("expression", absl::StrCat("column ", at_ + 1, ": ", what));
  }
  void Skip() {
    while (at_ < text_.size() && isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool Take(char c) {
    Skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  absl::StatusOr<Fraction> Bounded(Fraction value) const {
    if (msb(abs(numerator(value)) + 1) > kMaxBits || msb(denominator(value)) > kMaxBits)
      return Wrong("the result is too large");
    return value;
  }

  absl::StatusOr<Fraction> Sum() {
    TUTTI_ASSIGN_OR_RETURN(Fraction value, Product());
    for (;;) {
      if (Take('+')) {
        TUTTI_ASSIGN_OR_RETURN(Fraction other, Product());
        TUTTI_ASSIGN_OR_RETURN(value, Bounded(value + other));
      } else if (Take('-')) {
        TUTTI_ASSIGN_OR_RETURN(Fraction other, Product());
        TUTTI_ASSIGN_OR_RETURN(value, Bounded(value - other));
      } else {
        return value;
      }
    }
  }

  absl::StatusOr<Fraction> Product() {
    TUTTI_ASSIGN_OR_RETURN(Fraction value, Unary());
    for (;;) {
      if (Take('*')) {
        TUTTI_ASSIGN_OR_RETURN(Fraction other, Unary());
        TUTTI_ASSIGN_OR_RETURN(value, Bounded(value * other));
      } else if (Take('/')) {
        TUTTI_ASSIGN_OR_RETURN(Fraction other, Unary());
        if (other == 0) return Wrong("division by zero");
        TUTTI_ASSIGN_OR_RETURN(value, Bounded(value / other));
      } else {
        return value;
      }
    }
  }

  absl::StatusOr<Fraction> Unary() {
    if (++depth_ > kMaxDepth) return Wrong("nested too deeply");
    bool negative = Take('-');
    absl::StatusOr<Fraction> value = negative ? Unary() : Power();
    --depth_;
    if (negative && value.ok()) *value = -*value;
    return value;
  }

  absl::StatusOr<Fraction> Power() {
    TUTTI_ASSIGN_OR_RETURN(Fraction base, Atom());
    if (!Take('^')) return base;
    TUTTI_ASSIGN_OR_RETURN(Fraction exponent, Unary());
    if (denominator(exponent) != 1) return Wrong("an exponent must be a whole number");
    if (abs(numerator(exponent)) > kMaxExponent)
      return Wrong(absl::StrCat("an exponent must be at most ", kMaxExponent));
    int n = static_cast<int>(numerator(exponent));
    if (base == 0 && n < 0) return Wrong("division by zero");
    Fraction result = 1;
    for (int i = 0; i < std::abs(n); ++i) {
      TUTTI_ASSIGN_OR_RETURN(result, Bounded(result * base));
    }
    return n < 0 ? Fraction(1) / result : result;
  }

  absl::StatusOr<Fraction> Atom() {
    if (Take('(')) {
      TUTTI_ASSIGN_OR_RETURN(Fraction value, Sum());
      if (!Take(')')) return Wrong("a parenthesis is not closed");
      return value;
    }
    Skip();
    return Number();
  }

  absl::StatusOr<Fraction> Number() {
    std::string digits;
    int places = 0;
    bool point = false;
    while (at_ < text_.size() && (isdigit(static_cast<unsigned char>(text_[at_])) || (text_[at_] == '.' && !point))) {
      if (text_[at_] == '.') {
        point = true;
      } else {
        digits += text_[at_];
        places += point ? 1 : 0;
      }
      ++at_;
    }
    if (digits.empty()) return Wrong(at_ < text_.size() ? "a number was expected" : "the expression ends too early");
    if (digits.size() > 10000) return Wrong("a number has too many digits");
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      size_t end = at_ + 1;
      if (end < text_.size() && (text_[end] == '-' || text_[end] == '+')) ++end;
      while (end < text_.size() && isdigit(static_cast<unsigned char>(text_[end]))) ++end;
      int exponent = 0;
      if (!absl::SimpleAtoi(text_.substr(at_ + 1, end - at_ - 1), &exponent) || exponent < -kMaxExponent ||
          exponent > kMaxExponent) {
        return Wrong("a bad exponent");
      }
      places -= exponent;
      at_ = end;
    }
    size_t first = digits.find_first_not_of('0');
    Integer whole(first == std::string::npos ? "0" : digits.substr(first));  // a leading 0 would mean octal
    Integer scale = pow(Integer(10), static_cast<unsigned>(std::abs(places)));
    return places >= 0 ? Fraction(whole, scale) : Fraction(whole * scale);
  }

  const std::string& text_;
  size_t at_ = 0;
  int depth_ = 0;
};

// The value at `digits` places, half to even, trailing zeros removed.
std::string ToDecimal(const Fraction& value, int digits, bool* exact) {
  Integer scale = pow(Integer(10), static_cast<unsigned>(digits));
  Integer scaled = abs(numerator(value)) * scale;
  Integer quotient, rest;
  divide_qr(scaled, Integer(denominator(value)), quotient, rest);
  *exact = rest == 0;
  Integer twice = rest * 2;
  if (twice > denominator(value) || (twice == denominator(value) && quotient % 2 != 0)) ++quotient;
  std::string text = quotient.str();
  if (digits > 0) {
    if (text.size() <= static_cast<size_t>(digits)) text.insert(0, static_cast<size_t>(digits) + 1 - text.size(), '0');
    text.insert(text.size() - static_cast<size_t>(digits), ".");
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return numerator(value) < 0 && text != "0" ? "-" + text : text;
}

}  // namespace

absl::StatusOr<CalculatorResult> Calculate(const std::string& expression, int digits) {
  Parser parser(expression);
  TUTTI_ASSIGN_OR_RETURN(Fraction value, parser.Parse());
  CalculatorResult out;
  out.decimal = ToDecimal(value, digits, &out.exact);
  out.fraction = absl::StrCat(Integer(numerator(value)).str(), "/", Integer(denominator(value)).str());
  return out;
}

}  // namespace tutti::tool_service
