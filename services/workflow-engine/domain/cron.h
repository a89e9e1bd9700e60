// Crontab lines: parsed, and asked for the next time. The grammar is crontab(5)'s, with L, `#` and `?`; what happens
// when clocks change is as in Debian's cron(8), "daylight saving time and other time changes".
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"

namespace tutti::engine {

class CronLine {
 public:
  // INVALID_ARGUMENT says which field is wrong and what it may be.
  static absl::StatusOr<CronLine> Parse(absl::string_view line);

  // The first time after `after`; InfiniteFuture: none within the 40 years that follow.
  absl::Time Next(absl::Time after, const absl::TimeZone& zone) const;

 private:
  bool MatchesDay(absl::CivilDay day) const;
  // The first that matches from `day` on; one after `last_year` when there is none until then.
  absl::CivilDay FirstDay(absl::CivilDay day, int64_t last_year) const;
  absl::Time NextByTheClock(absl::Time after, const absl::TimeZone& zone) const;
  absl::Time NextAtHours(absl::Time after, const absl::TimeZone& zone) const;

  uint64_t minutes_ = 0;  // bit by value
  uint32_t hours_ = 0;
  uint32_t days_ = 0;  // of the month
  uint32_t months_ = 0;
  uint32_t weekdays_ = 0;          // 0 is Sunday
  uint32_t nth_weekdays_[6] = {};  // [n]: weekdays of which only the nth of a month counts
  uint32_t last_weekdays_ = 0;     // of which only the last counts
  bool last_day_ = false;          // L as day of the month
  bool any_day_ = false;           // the field begins with `*`: it does not restrict
  bool any_weekday_ = false;
  bool any_hour_ = false;
};

}  // namespace tutti::engine
