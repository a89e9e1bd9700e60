// Functions upon time: all in UTC, and `now` is what the evaluation was told.
#include <time.h>

#include <cmath>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

constexpr double kMaxSeconds = 6.7e16;  // within gmtime's years

// jq's form of a broken-down time: year, month from 0, day, hours, minutes, seconds, day of the week, of the year.
Value FromTm(Machine& machine, const tm& parts, double seconds) {
  return Value::Array(&machine.heap(),
                      {Value::Number(parts.tm_year + 1900.0), Value::Number(parts.tm_mon), Value::Number(parts.tm_mday),
                       Value::Number(parts.tm_hour), Value::Number(parts.tm_min), Value::Number(seconds),
                       Value::Number(parts.tm_wday), Value::Number(parts.tm_yday)});
}

// Missing parts at the end are 0. False: not that form.
bool ToTm(const Value& value, tm* out) {
  *out = {};
  if (!value.is_array() || value.size() < 1) return false;
  double parts[8] = {};
  for (size_t i = 0; i < std::min<size_t>(value.size(), 8); ++i) {
    Value part = value.At(i);
    if (!part.is_number() || !std::isfinite(part.number()) || std::fabs(part.number()) > 2e9) return false;
    parts[i] = part.number();
  }
  out->tm_year = static_cast<int>(parts[0]) - 1900;
  out->tm_mon = static_cast<int>(parts[1]);
  out->tm_mday = static_cast<int>(parts[2]);
  out->tm_hour = static_cast<int>(parts[3]);
  out->tm_min = static_cast<int>(parts[4]);
  out->tm_sec = static_cast<int>(parts[5]);
  out->tm_wday = static_cast<int>(parts[6]);
  out->tm_yday = static_cast<int>(parts[7]);
  return true;
}

Value Now(Machine& machine, Value&, Value*) {
  return Value::Number(absl::ToDoubleSeconds(machine.now() - absl::UnixEpoch()));
}

Value BreakDown(Machine& machine, const Value& input, const char* name) {
  if (!input.is_number()) return machine.Fail(absl::StrCat(name, "() requires a number"));
  double seconds = input.number();
  if (!std::isfinite(seconds) || std::fabs(seconds) > kMaxSeconds) {
    return machine.Fail("error converting number of seconds since epoch to datetime");
  }
  auto whole = static_cast<time_t>(std::floor(seconds));
  tm parts;
  if (!gmtime_r(&whole, &parts)) return machine.Fail("error converting number of seconds since epoch to datetime");
  return FromTm(machine, parts, parts.tm_sec + (seconds - std::floor(seconds)));
}
Value GmTime(Machine& machine, Value& input, Value*) { return BreakDown(machine, input, "gmtime"); }
Value LocalTime(Machine& machine, Value& input, Value*) { return BreakDown(machine, input, "localtime"); }

Value MkTime(Machine& machine, Value& input, Value*) {
  if (!input.is_array()) return machine.Fail("mktime requires array of 6 numbers");
  tm parts;
  if (!ToTm(input, &parts)) return machine.Fail("mktime requires parsed datetime inputs");
  return Value::Number(static_cast<double>(timegm(&parts)));
}

Value Format(Machine& machine, const Value& input, const Value& format, const char* name) {
  Value value = input;
  if (value.is_number()) {
    if (!format.is_string()) return machine.Fail(absl::StrCat(name, "/1 requires a string format"));
    value = BreakDown(machine, input, "gmtime");
    if (value.absent()) return {};
  } else if (!value.is_array()) {
    return machine.Fail(absl::StrCat(name, "/1 requires parsed datetime inputs"));
  }
  if (!format.is_string()) return machine.Fail(absl::StrCat(name, "/1 requires a string format"));
  tm parts;
  if (!ToTm(value, &parts)) return machine.Fail(absl::StrCat(name, "/1 requires parsed datetime inputs"));
  // The days of the week and of the year follow from the date.
  tm normal = parts;
  timegm(&normal);
  parts.tm_wday = normal.tm_wday;
  parts.tm_yday = normal.tm_yday;
  parts.tm_zone = "UTC";
  if (format.text().empty()) return Value::Text(&machine.heap(), "");
  if (format.text().size() > 4096) return machine.Fail(absl::StrCat(name, "/1: the format is too long"));
  std::string pattern(format.text());
  std::string out(16384, '\0');
  size_t size = strftime(out.data(), out.size(), pattern.c_str(), &parts);
  if (size == 0) return machine.Fail(absl::StrCat(name, "/1: unknown system failure"));
  out.resize(size);
  return Value::Text(&machine.heap(), std::move(out));
}
Value StrFTime(Machine& machine, Value& input, Value* args) { return Format(machine, input, args[0], "strftime"); }
Value StrFLocalTime(Machine& machine, Value& input, Value* args) {
  return Format(machine, input, args[0], "strflocaltime");
}

Value StrPTime(Machine& machine, Value& input, Value* args) {
  if (!input.is_string()) return machine.Fail(absl::StrCat("strptime/1 requires string inputs and arguments"));
  if (!args[0].is_string()) return machine.Fail("strptime/1 requires string inputs and arguments");
  if (input.text().size() > 4096 || args[0].text().size() > 4096)
    return machine.Fail("strptime/1: the text is too long");
  std::string text(input.text()), format(args[0].text());
  tm parts = {};
  parts.tm_wday = 8;
  parts.tm_yday = 367;
  const char* end = strptime(text.c_str(), format.c_str(), &parts);
  if (!end || *end != '\0' || text.size() != std::strlen(text.c_str())) {
    return machine.Fail(absl::StrCat("date \"", text, "\" does not match format \"", format, "\""));
  }
  if (parts.tm_wday == 8 || parts.tm_yday == 367) {
    tm normal = parts;
    normal.tm_isdst = 0;
    timegm(&normal);
    parts.tm_wday = normal.tm_wday;
    parts.tm_yday = normal.tm_yday;
  }
  return FromTm(machine, parts, parts.tm_sec);
}

constexpr Native kNatives[] = {
    {"now", 0, Now},       {"gmtime", 0, GmTime},     {"localtime", 0, LocalTime},         {"mktime", 0, MkTime},
    {"timegm", 0, MkTime}, {"strftime", 1, StrFTime}, {"strflocaltime", 1, StrFLocalTime}, {"strptime", 1, StrPTime},
};

}  // namespace

NativeTable TimeNatives() { return {kNatives, std::size(kNatives)}; }

}  // namespace tutti::engine::expressions
