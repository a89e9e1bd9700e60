// Functions upon numbers.
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "runtime/json/number_text.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

std::string Named(const Value& value) { return absl::StrCat(value.type_name(), " (", Excerpt(value), ")"); }

Value NumberRequired(Machine& machine, const Value& value) {
  return machine.Fail(absl::StrCat(Named(value), " number required"));
}

template <double (*Fn)(double)>
Value Math1(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  return Value::Number(Fn(input.number()));
}

template <double (*Fn)(double, double)>
Value Math2(Machine& machine, Value&, Value* args) {
  for (int i = 0; i < 2; ++i) {
    if (!args[i].is_number()) return NumberRequired(machine, args[i]);
  }
  return Value::Number(Fn(args[0].number(), args[1].number()));
}

double Exp10(double x) { return std::pow(10, x); }
double Gamma(double x) {
  int sign = 0;
  return lgamma_r(x, &sign);
}
double Significand(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  return std::ldexp(x, -std::ilogb(x));
}
double Ldexp(double x, double n) { return std::ldexp(x, static_cast<int>(std::clamp(n, -10000.0, 10000.0))); }
double Drem(double x, double y) { return std::remainder(x, y); }

Value Fma(Machine& machine, Value&, Value* args) {
  for (int i = 0; i < 3; ++i) {
    if (!args[i].is_number()) return NumberRequired(machine, args[i]);
  }
  return Value::Number(std::fma(args[0].number(), args[1].number(), args[2].number()));
}

Value Pair(Machine& machine, double first, double second) {
  return Value::Array(&machine.heap(), {Value::Number(first), Value::Number(second)});
}

Value Frexp(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  int exponent = 0;
  double fraction = std::frexp(input.number(), &exponent);
  return Pair(machine, fraction, std::isfinite(input.number()) ? exponent : 0);
}

Value Modf(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  double whole = 0;
  double fraction = std::modf(input.number(), &whole);
  return Pair(machine, fraction, whole);
}

Value LgammaR(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  int sign = 0;
  double value = lgamma_r(input.number(), &sign);
  return Pair(machine, value, sign);
}

Value Infinite(Machine&, Value&, Value*) { return Value::Number(INFINITY); }
Value Nan(Machine&, Value&, Value*) { return Value::Number(NAN); }
Value True(Machine&, Value&, Value*) { return Value::Bool(true); }
Value Zero(Machine&, Value&, Value*) { return Value::Number(0); }

Value IsInfinite(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  return Value::Bool(std::isinf(input.number()));
}
Value IsNan(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  return Value::Bool(std::isnan(input.number()));
}
Value IsNormal(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) return NumberRequired(machine, input);
  return Value::Bool(std::isnormal(input.number()));
}
Value IsFinite(Machine&, Value& input, Value*) { return Value::Bool(input.is_number() && !std::isinf(input.number())); }

Value Abs(Machine& machine, Value& input, Value*) {
  if (!input.is_number()) {
    // Follows jq: a value that is not below 0 in the order of all values is its own absolute value.
    if (input.kind() < Kind::kNumber) return machine.Fail(absl::StrCat(Named(input), " has no absolute value"));
    return input;
  }
  if (!input.literal().empty()) return input.literal()[0] == '-' ? Negate(machine, input) : input;
  return Value::Number(std::fabs(input.number()));
}

Value ToNumber(Machine& machine, Value& input, Value*) {
  if (input.is_number()) return input;
  if (!input.is_string()) return machine.Fail(absl::StrCat(Named(input), " cannot be parsed as a number"));
  // A sign, digits with a point, an exponent; nothing before or behind.
  std::string text(input.text());
  auto refuse = [&] { return machine.Fail(absl::StrCat(Named(input), " cannot be parsed as a number")); };
  size_t at = 0;
  bool negative = false;
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) negative = text[at++] == '-';
  std::string body = text.substr(at);
  if (body == "nan" || body == "NaN") return Value::Number(NAN);
  size_t point = body.find('.');
  size_t digits = body.find_first_of("0123456789");
  if (digits == std::string::npos || digits > 1 || (digits == 1 && point != 0)) return refuse();
  // JSON's grammar: digits on both sides of the point, no zeros in front.
  if (point == 0) body.insert(0, "0");
  size_t zeros = 0;
  while (zeros + 1 < body.size() && body[zeros] == '0' && isdigit(static_cast<unsigned char>(body[zeros + 1]))) ++zeros;
  body.erase(0, zeros);
  point = body.find('.');
  if (point != std::string::npos &&
      (point + 1 == body.size() || !isdigit(static_cast<unsigned char>(body[point + 1])))) {
    body.erase(point, 1);
  }
  if (NumberTextLength(body) != body.size()) return refuse();
  if (negative) body.insert(0, "-");
  return Value::NumberFromText(&machine.heap(), body);
}

Value ToBoolean(Machine& machine, Value& input, Value*) {
  if (input.is_boolean()) return input;
  if (input.is_string() && input.text() == "true") return Value::Bool(true);
  if (input.is_string() && input.text() == "false") return Value::Bool(false);
  return machine.Fail(absl::StrCat(Named(input), " cannot be parsed as a boolean"));
}

constexpr Native kNatives[] = {
    {"floor", 0, Math1<std::floor>},
    {"ceil", 0, Math1<std::ceil>},
    {"round", 0, Math1<std::round>},
    {"trunc", 0, Math1<std::trunc>},
    {"rint", 0, Math1<std::rint>},
    {"nearbyint", 0, Math1<std::nearbyint>},
    {"sqrt", 0, Math1<std::sqrt>},
    {"cbrt", 0, Math1<std::cbrt>},
    {"exp", 0, Math1<std::exp>},
    {"exp2", 0, Math1<std::exp2>},
    {"exp10", 0, Math1<Exp10>},
    {"pow10", 0, Math1<Exp10>},
    {"expm1", 0, Math1<std::expm1>},
    {"log", 0, Math1<std::log>},
    {"log2", 0, Math1<std::log2>},
    {"log10", 0, Math1<std::log10>},
    {"log1p", 0, Math1<std::log1p>},
    {"logb", 0, Math1<std::logb>},
    {"sin", 0, Math1<std::sin>},
    {"cos", 0, Math1<std::cos>},
    {"tan", 0, Math1<std::tan>},
    {"asin", 0, Math1<std::asin>},
    {"acos", 0, Math1<std::acos>},
    {"atan", 0, Math1<std::atan>},
    {"sinh", 0, Math1<std::sinh>},
    {"cosh", 0, Math1<std::cosh>},
    {"tanh", 0, Math1<std::tanh>},
    {"asinh", 0, Math1<std::asinh>},
    {"acosh", 0, Math1<std::acosh>},
    {"atanh", 0, Math1<std::atanh>},
    {"fabs", 0, Math1<std::fabs>},
    {"gamma", 0, Math1<Gamma>},
    {"lgamma", 0, Math1<Gamma>},
    {"tgamma", 0, Math1<std::tgamma>},
    {"j0", 0, Math1<::j0>},
    {"j1", 0, Math1<::j1>},
    {"y0", 0, Math1<::y0>},
    {"y1", 0, Math1<::y1>},
    {"significand", 0, Math1<Significand>},
    {"pow", 2, Math2<std::pow>},
    {"atan2", 2, Math2<std::atan2>},
    {"fmod", 2, Math2<std::fmod>},
    {"fmin", 2, Math2<std::fmin>},
    {"fmax", 2, Math2<std::fmax>},
    {"fdim", 2, Math2<std::fdim>},
    {"hypot", 2, Math2<std::hypot>},
    {"copysign", 2, Math2<std::copysign>},
    {"nextafter", 2, Math2<std::nextafter>},
    {"nexttoward", 2, Math2<std::nextafter>},
    {"drem", 2, Math2<Drem>},
    {"ldexp", 2, Math2<Ldexp>},
    {"scalb", 2, Math2<Ldexp>},
    {"scalbln", 2, Math2<Ldexp>},
    {"fma", 3, Fma},
    {"frexp", 0, Frexp},
    {"modf", 0, Modf},
    {"lgamma_r", 0, LgammaR},
    {"infinite", 0, Infinite},
    {"nan", 0, Nan},
    {"isinfinite", 0, IsInfinite},
    {"isnan", 0, IsNan},
    {"isnormal", 0, IsNormal},
    {"isfinite", 0, IsFinite},
    {"abs", 0, Abs},
    {"tonumber", 0, ToNumber},
    {"toboolean", 0, ToBoolean},
    {"have_literal_numbers", 0, True},
    {"have_decnum", 0, True},
    {"input_line_number", 0, Zero},
};

}  // namespace

NativeTable NumberNatives() { return {kNatives, std::size(kNatives)}; }

}  // namespace tutti::engine::expressions
