// What a schedule does, without doing it: its times, what is due, what an overlap means, when to look again.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/workflow-engine/domain/cron.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/schedule_service.pb.h"

namespace tutti::engine {

// A calendar's times; for one thread. What is due is later than its time by the jitter.
class CalendarTimes {
 public:
  // `seed` makes the jitter: another schedule has another. INVALID_ARGUMENT names each wrong field, below `field`.
  static absl::StatusOr<CalendarTimes> Create(const tutti::workflow::v1::Calendar& calendar, std::string seed,
                                              const std::string& field);

  struct Occurrence {
    absl::Time time;  // the calendar's
    absl::Time due;   // when it is acted upon: later by the jitter, always before the next `time`
  };
  // The first whose time is after `after`; InfiniteFuture: there is none any more.
  Occurrence Next(absl::Time after) const;
  // The same, without its jitter.
  absl::Time NextTime(absl::Time after) const;
  // A moment after which Next() is what is not due yet at `now`.
  absl::Time PassedUntil(absl::Time now) const;
  absl::Duration jitter() const { return jitter_; }

 private:
  // A line and its latest answer, which is the same for whatever lies between: times are asked for in their order, and
  // a line that comes once in years is not searched for again at each minute of another.
  struct Line {
    CronLine cron;
    mutable absl::Time asked = absl::InfiniteFuture(), answer = absl::InfinitePast();
  };

  std::string seed_;
  absl::TimeZone zone_ = absl::UTCTimeZone();
  std::vector<Line> lines_;
  absl::Duration every_, offset_, jitter_;
  absl::Time begin_, end_;
};

// INVALID_ARGUMENT names each field of the schedule that is wrong; also a calendar without a time after `now`.
absl::Status CheckSchedule(const tutti::workflow::v1::Schedule& schedule, absl::Time now);
// INVALID_ARGUMENT: it is none of the years 1 to 9999, which is all that messages can hold.
absl::Status CheckTime(const google::protobuf::Timestamp& time, const std::string& field);
// Of a schedule that was checked, its times.
absl::StatusOr<CalendarTimes> TimesOf(const tutti::workflow::v1::Schedule& schedule);

// The times that are due at `now` and not done with, at most `limit`; the state is done with them, and with those too
// long ago, which it counts as missed.
std::vector<absl::Time> TakeDue(const tutti::workflow::v1::Schedule& schedule, const CalendarTimes& times,
                                absl::Time now, size_t limit, tutti::workflow::v1::ScheduleState* state);
// A caller changes a schedule from `before` to `after`, whose state this is. What is due and not begun waits to be
// started, as far as the overlap policy lets it; the rest is counted. Another calendar begins at `now`; what passes
// while it is paused is not made up for.
void ChangeSchedule(const tutti::workflow::v1::Schedule& before, absl::Time now, tutti::workflow::v1::Schedule* after);

enum class AtTime {
  kStart,
  kSkip,
  kBuffer,
  kCancelAndBuffer,    // what runs is asked to stop; the time waits for its end, in place of others that do
  kTerminateAndStart,  // what runs is ended
};
// What a due time means while the state's runs have not ended.
AtTime Decide(const tutti::workflow::v1::Schedule& schedule, const tutti::workflow::v1::ScheduleState& state);

// Up to when the calendar is done with; of a new schedule, when it was made.
absl::Time DoneUntil(const tutti::workflow::v1::Schedule& schedule);

// When a schedule wants to be looked at again; InfiniteFuture: when a caller changes it.
absl::Time NextLook(const tutti::workflow::v1::Schedule& schedule, const CalendarTimes& times, absl::Time now);

// The run of a time, without its request_id.
tutti::workflow::v1::StartRunRequest StartOf(const tutti::workflow::v1::Schedule& schedule, absl::Time time);

// The same time of the same schedule is the same run. At most 36 characters.
std::string RequestIdOf(const tutti::workflow::v1::Schedule& schedule, absl::Time time);

// Keeps the latest 20.
void AddAction(tutti::workflow::v1::ScheduleState::Action action, tutti::workflow::v1::ScheduleState* state);

}  // namespace tutti::engine
