#include "services/workflow-engine/domain/cron.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/status/macros.h"

namespace tutti::engine {
namespace {

constexpr int kYears = 40;  // a 29th of February that must be a Sunday comes every 28 years, or 40 around 2100

struct Field {
  const char* name;
  int min, max;
  const char* words;  // names of the values from `first_word` on, three letters each
  int first_word;
};
constexpr Field kMinute{"minute", 0, 59, "", 0};
constexpr Field kHour{"hour", 0, 23, "", 0};
constexpr Field kDay{"day of month", 1, 31, "", 0};
constexpr Field kMonth{"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1};
constexpr Field kWeekday{"day of week", 0, 7, "sunmontuewedthufrisat", 0};

absl::Status Wrong(const Field& field, absl::string_view text, absl::string_view what = "") {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no ", field.name, " (", field.min, " to ",
                                                 field.max, *field.words ? ", or a name" : "", what.empty() ? "" : "; ",
                                                 what, ")"));
}

absl::StatusOr<int> Value(const Field& field, absl::string_view text) {
  int value = 0;
  if (!text.empty() && absl::ascii_isdigit(static_cast<unsigned char>(text[0])) && absl::SimpleAtoi(text, &value)) {
    if (value < field.min || value > field.max) return Wrong(field, text);
    return value;
  }
  const std::string word = absl::AsciiStrToLower(text);
  const absl::string_view words = field.words;
  for (size_t at = 0; word.size() == 3 && at < words.size(); at += 3) {
    if (words.substr(at, 3) == word) return field.first_word + static_cast<int>(at / 3);
  }
  return Wrong(field, text);
}

// `a`, `a-b`, `*`, each with `/step`; the values' bits.
absl::StatusOr<uint64_t> Part(const Field& field, absl::string_view text) {
  std::vector<absl::string_view> halves = absl::StrSplit(text, absl::MaxSplits('/', 1));
  int step = 1;
  if (halves.size() == 2 && (!absl::SimpleAtoi(halves[1], &step) || step < 1 || step > field.max)) {
    return Wrong(field, text, "a step is a number from 1 on");
  }
  int from = field.min;
  int to = field.max;
  if (halves[0] != "*" && halves[0] != "?") {
    std::vector<absl::string_view> ends = absl::StrSplit(halves[0], absl::MaxSplits('-', 1));
    TUTTI_ASSIGN_OR_RETURN(from, Value(field, ends[0]));
    if (ends.size() == 2) {
      TUTTI_ASSIGN_OR_RETURN(to, Value(field, ends[1]));
    } else if (halves.size() == 1) {
      to = from;
    }
    if (from > to) return Wrong(field, text, "a range goes upwards");
  }
  uint64_t bits = 0;
  for (int value = from; value <= to; value += step) bits |= uint64_t{1} << value;
  return bits;
}

absl::StatusOr<uint64_t> Parts(const Field& field, absl::string_view text) {
  uint64_t bits = 0;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    TUTTI_ASSIGN_OR_RETURN(uint64_t some, Part(field, part));
    bits |= some;
  }
  return bits;
}

bool Unrestricted(absl::string_view text) { return text[0] == '*' || text[0] == '?'; }

int WeekdayOf(absl::CivilDay day) { return (static_cast<int>(absl::GetWeekday(day)) + 1) % 7; }
int DaysIn(absl::CivilDay day) {
  return static_cast<int>(absl::CivilDay(absl::CivilMonth(day) + 1) - absl::CivilDay(absl::CivilMonth(day)));
}

absl::string_view Macro(absl::string_view line) {
  if (line == "@hourly") return "0 * * * *";
  if (line == "@daily" || line == "@midnight") return "0 0 * * *";
  if (line == "@weekly") return "0 0 * * 0";
  if (line == "@monthly") return "0 0 1 * *";
  if (line == "@yearly" || line == "@annually") return "0 0 1 1 *";
  return line;
}

}  // namespace

absl::StatusOr<CronLine> CronLine::Parse(absl::string_view line) {
  if (line.size() > 500) return absl::InvalidArgumentError("is longer than 500 characters");
  const absl::string_view text = Macro(absl::StripAsciiWhitespace(line));
  if (!text.empty() && text[0] == '@') {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is none of @hourly, @daily, @weekly, @monthly, @yearly"));
  }
  std::vector<absl::string_view> fields = absl::StrSplit(text, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (fields.size() != 5) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has ", fields.size(), " fields; a crontab line has 5: minute, hour, day of month, month, day of week"));
  }
  CronLine out;
  TUTTI_ASSIGN_OR_RETURN(out.minutes_, Parts(kMinute, fields[0]));
  TUTTI_ASSIGN_OR_RETURN(uint64_t hours, Parts(kHour, fields[1]));
  TUTTI_ASSIGN_OR_RETURN(uint64_t months, Parts(kMonth, fields[3]));
  out.hours_ = static_cast<uint32_t>(hours);
  out.months_ = static_cast<uint32_t>(months);
  out.any_hour_ = Unrestricted(fields[1]);
  out.any_day_ = Unrestricted(fields[2]);
  out.any_weekday_ = Unrestricted(fields[4]);
  for (absl::string_view part : absl::StrSplit(fields[2], ',')) {
    if (part == "L" || part == "l") {
      out.last_day_ = true;
      continue;
    }
    TUTTI_ASSIGN_OR_RETURN(uint64_t days, Part(kDay, part));
    out.days_ |= static_cast<uint32_t>(days);
  }
  for (absl::string_view part : absl::StrSplit(fields[4], ',')) {
    const size_t hash = part.find('#');
    const bool last = part.size() > 1 && (part.back() == 'L' || part.back() == 'l') && hash == absl::string_view::npos;
    if (hash == absl::string_view::npos && !last) {
      TUTTI_ASSIGN_OR_RETURN(uint64_t days, Part(kWeekday, part));
      out.weekdays_ |= static_cast<uint32_t>(days | (days >> 7 & 1)) & 0x7f;
      continue;
    }
    TUTTI_ASSIGN_OR_RETURN(int day, Value(kWeekday, part.substr(0, last ? part.size() - 1 : hash)));
    int nth = 0;
    if (last) {
      out.last_weekdays_ |= 1u << day % 7;
    } else if (absl::SimpleAtoi(part.substr(hash + 1), &nth) && nth >= 1 && nth <= 5) {
      out.nth_weekdays_[nth] |= 1u << day % 7;
    } else {
      return Wrong(kWeekday, part, "after # comes 1 to 5");
    }
  }
  return out;
}

bool CronLine::MatchesDay(absl::CivilDay day) const {
  if ((months_ >> day.month() & 1) == 0) return false;
  const int weekday = WeekdayOf(day);
  const bool by_day = (days_ >> day.day() & 1) != 0 || (last_day_ && day.day() == DaysIn(day));
  const bool by_weekday = (weekdays_ >> weekday & 1) != 0 || (nth_weekdays_[(day.day() + 6) / 7] >> weekday & 1) != 0 ||
                          ((last_weekdays_ >> weekday & 1) != 0 && day.day() + 7 > DaysIn(day));
  // Where both are restricted, one is enough: crontab(5).
  if (any_day_ || any_weekday_) return by_day && by_weekday;
  return by_day || by_weekday;
}

absl::CivilDay CronLine::FirstDay(absl::CivilDay day, int64_t last_year) const {
  while (day.year() <= last_year && !MatchesDay(day)) {
    const bool month = (months_ >> day.month() & 1) != 0;
    day = month ? day + 1 : absl::CivilDay(absl::CivilMonth(day) + 1);
  }
  return day;
}

absl::Time CronLine::Next(absl::Time after, const absl::TimeZone& zone) const {
  return any_hour_ ? NextByTheClock(after, zone) : NextAtHours(after, zone);
}

// Hours as `*`: minute by minute as the clock shows them, whatever hours it leaves out or shows twice.
absl::Time CronLine::NextByTheClock(absl::Time after, const absl::TimeZone& zone) const {
  const int64_t limit = absl::ToCivilYear(after, zone).year() + kYears;
  absl::Time at = absl::FromUnixSeconds((absl::ToUnixSeconds(after) / 60 + 1) * 60);
  for (;;) {
    const absl::CivilSecond civil = absl::ToCivilSecond(at, zone);
    if (civil.year() > limit) return absl::InfiniteFuture();
    if (!MatchesDay(absl::CivilDay(civil))) {
      // Where midnight is left out, the day begins at the change; where it comes twice, it may begin twice.
      const auto midnight = zone.At(absl::CivilSecond(FirstDay(absl::CivilDay(civil) + 1, limit)));
      const absl::Time begin = midnight.kind == absl::TimeZone::TimeInfo::SKIPPED ? midnight.trans : midnight.pre;
      at = begin > at ? begin : midnight.post;
      continue;
    }
    if (civil.second() == 0 && (minutes_ >> civil.minute() & 1) != 0 && (hours_ >> civil.hour() & 1) != 0) return at;
    at += absl::Minutes(1) - absl::Seconds(civil.second());
  }
}

// Named hours: each once a day. An hour that is left out comes right after the change, one that comes twice the first
// time.
absl::Time CronLine::NextAtHours(absl::Time after, const absl::TimeZone& zone) const {
  absl::CivilDay day = absl::ToCivilDay(after, zone);
  // What an hour left out stands for may be on the day after.
  day -= 1;
  const int64_t limit = day.year() + kYears;
  for (day = FirstDay(day, limit); day.year() <= limit; day = FirstDay(day + 1, limit)) {
    for (int hour = 0; hour < 24; ++hour) {
      if ((hours_ >> hour & 1) == 0) continue;
      for (int minute = 0; minute < 60; ++minute) {
        if ((minutes_ >> minute & 1) == 0) continue;
        const auto info = zone.At(absl::CivilSecond(day.year(), day.month(), day.day(), hour, minute));
        const absl::Time at = info.kind == absl::TimeZone::TimeInfo::SKIPPED ? info.trans : info.pre;
        if (at > after) return at;
      }
    }
  }
  return absl::InfiniteFuture();
}

}  // namespace tutti::engine
