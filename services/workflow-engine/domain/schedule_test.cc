#include "services/workflow-engine/domain/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/time/proto_time.h"

namespace tutti::engine {
namespace {

namespace v1 = tutti::workflow::v1;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

const absl::Time kBegin = absl::FromCivil(absl::CivilHour(2026, 11, 21, 12), absl::UTCTimeZone());

v1::Schedule Every(absl::Duration every) {
  v1::Schedule out;
  out.set_name("nightly");
  out.set_workflow("report");
  ToProto(every, out.mutable_calendar()->mutable_every());
  ToProto(kBegin, out.mutable_create_time());
  return out;
}

std::vector<absl::Duration> Due(v1::Schedule& schedule, absl::Time now, size_t limit = 100) {
  auto times = TimesOf(schedule);
  EXPECT_THAT(times, IsOk());
  std::vector<absl::Duration> out;
  for (absl::Time time : TakeDue(schedule, *times, now, limit, schedule.mutable_state())) out.push_back(time - kBegin);
  return out;
}

TEST(CalendarTest, LinesAndIntervalsAreOneCalendar) {
  v1::Calendar calendar;
  calendar.add_cron("0 13 * * *");
  calendar.add_cron("0 13,14 * * *");
  ToProto(absl::Minutes(90), calendar.mutable_every());
  ToProto(absl::Minutes(30), calendar.mutable_offset());
  auto times = CalendarTimes::Create(calendar, "x", "calendar");
  ASSERT_THAT(times, IsOk());
  std::vector<std::string> seen;
  absl::Time at = kBegin;
  for (int i = 0; i < 4; ++i) {
    at = times->Next(at).time;
    seen.push_back(absl::FormatTime("%H:%M", at, absl::UTCTimeZone()));
  }
  EXPECT_THAT(seen, ElementsAre("12:30", "13:00", "14:00", "15:30"));
}

TEST(CalendarTest, BeginsAndEnds) {
  v1::Calendar calendar;
  calendar.add_cron("0 * * * *");
  ToProto(kBegin + absl::Hours(5), calendar.mutable_start_time());
  ToProto(kBegin + absl::Hours(7), calendar.mutable_end_time());
  auto times = CalendarTimes::Create(calendar, "x", "calendar");
  ASSERT_THAT(times, IsOk());
  EXPECT_EQ(times->Next(kBegin).time, kBegin + absl::Hours(5));                  // at the beginning itself
  EXPECT_EQ(times->Next(kBegin + absl::Hours(6)).time, absl::InfiniteFuture());  // not at the end itself
}

TEST(CalendarTest, TimesAreThoseThatMessagesCanHold) {
  v1::Calendar calendar;
  calendar.add_cron("* * * * *");
  ToProto(absl::Seconds(1), calendar.mutable_every());
  auto times = CalendarTimes::Create(calendar, "x", "calendar");
  ASSERT_THAT(times, IsOk());
  EXPECT_EQ(times->Next(absl::InfiniteFuture()).time, absl::InfiniteFuture());
  EXPECT_EQ(times->Next(absl::FromUnixSeconds(253402300799)).time, absl::InfiniteFuture());
  EXPECT_EQ(times->Next(absl::InfinitePast()).time, absl::FromUnixSeconds(-62135596800));
  calendar.mutable_start_time()->set_seconds(std::numeric_limits<int64_t>::max());
  EXPECT_THAT(CalendarTimes::Create(calendar, "x", "calendar"),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "years 1 to 9999"));
}

TEST(CalendarTest, JitterIsBoundedTheSameEachTimeAndNeverPassesTheNextTime) {
  v1::Calendar calendar;
  ToProto(absl::Minutes(1), calendar.mutable_every());
  ToProto(absl::Minutes(5), calendar.mutable_jitter());
  auto times = CalendarTimes::Create(calendar, "one", "calendar");
  auto other = CalendarTimes::Create(calendar, "two", "calendar");
  ASSERT_THAT(times, IsOk());
  std::set<absl::Duration> jitters;
  bool differ = false;
  absl::Time at = kBegin;
  for (int i = 0; i < 500; ++i) {
    auto next = times->Next(at);
    EXPECT_GE(next.due, next.time);
    EXPECT_LT(next.due, next.time + absl::Minutes(1));
    EXPECT_EQ(times->Next(at).due, next.due);
    differ = differ || other->Next(at).due != next.due;
    jitters.insert(next.due - next.time);
    at = next.time;
  }
  EXPECT_TRUE(differ);
  EXPECT_GT(jitters.size(), 400u);
  EXPECT_LT(*jitters.begin(), absl::Seconds(2));
  EXPECT_GT(*jitters.rbegin(), absl::Seconds(58));
}

TEST(ScheduleTest, WhatIsWrongIsNamed) {
  v1::Schedule schedule;
  schedule.set_name("Bad Name");
  schedule.mutable_calendar()->add_cron("0 0 * *");
  schedule.mutable_calendar()->set_time_zone("Mars/Olympus");
  schedule.mutable_calendar()->mutable_jitter()->set_seconds(-1);
  schedule.mutable_catchup_window()->set_seconds(1);
  (*schedule.mutable_labels())["tutti.schedule"] = "x";
  std::set<std::string> fields;
  for (const auto& violation : ViolationsOf(CheckSchedule(schedule, kBegin))) fields.insert(violation.field);
  EXPECT_EQ(fields, (std::set<std::string>{"schedule.name", "schedule.workflow", "schedule.calendar.cron[0]",
                                           "schedule.calendar.time_zone", "schedule.calendar.jitter",
                                           "schedule.catchup_window", "schedule.labels"}));
  v1::Schedule never = Every(absl::Hours(1));
  never.mutable_calendar()->clear_every();
  EXPECT_THAT(CheckSchedule(never, kBegin),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "one of cron and every"));
  never.mutable_calendar()->add_cron("0 0 31 2 *");
  EXPECT_THAT(CheckSchedule(never, kBegin), HasCodeAndText(absl::StatusCode::kInvalidArgument, "has no time to come"));
  for (const char* zone :
       {"../../../etc/passwd", "file:/etc/localtime", "/etc/localtime", "localtime", "libc:localtime"}) {
    never.mutable_calendar()->set_time_zone(zone);
    EXPECT_THAT(CheckSchedule(never, kBegin), HasCodeAndText(absl::StatusCode::kInvalidArgument, "is no time zone"));
  }
  // What no message can say is refused, not bent.
  v1::Schedule bent = Every(absl::Seconds(2));
  bent.mutable_calendar()->mutable_every()->set_nanos(-1);
  EXPECT_THAT(CheckSchedule(bent, kBegin), HasCodeAndText(absl::StatusCode::kInvalidArgument, "every"));
  bent = Every(absl::Seconds(2));
  bent.mutable_calendar()->mutable_end_time()->set_seconds(std::numeric_limits<int64_t>::max());
  EXPECT_THAT(CheckSchedule(bent, kBegin), HasCodeAndText(absl::StatusCode::kInvalidArgument, "years 1 to 9999"));
  // All of its times are over.
  bent = Every(absl::Seconds(2));
  ToProto(kBegin - absl::Hours(1), bent.mutable_calendar()->mutable_end_time());
  EXPECT_THAT(CheckSchedule(bent, kBegin), HasCodeAndText(absl::StatusCode::kInvalidArgument, "no time to come"));
}

TEST(ScheduleTest, WhatIsDueComesOnceAndWhatIsTooLongAgoIsMissed) {
  v1::Schedule schedule = Every(absl::Minutes(10));
  ToProto(absl::Minutes(25), schedule.mutable_catchup_window());
  EXPECT_THAT(Due(schedule, kBegin + absl::Minutes(9)), IsEmpty());
  EXPECT_THAT(Due(schedule, kBegin + absl::Minutes(10)), ElementsAre(absl::Minutes(10)));
  EXPECT_THAT(Due(schedule, kBegin + absl::Minutes(10)), IsEmpty());
  // Nobody was there for an hour.
  EXPECT_THAT(Due(schedule, kBegin + absl::Minutes(75)),
              ElementsAre(absl::Minutes(50), absl::Minutes(60), absl::Minutes(70)));
  EXPECT_EQ(schedule.state().missed(), 3);
  auto times = TimesOf(schedule);
  EXPECT_EQ(NextLook(schedule, *times, kBegin + absl::Minutes(75)), kBegin + absl::Minutes(80));
}

TEST(ScheduleTest, MoreThanTheLimitComesNextTime) {
  v1::Schedule schedule = Every(absl::Seconds(1));
  EXPECT_THAT(Due(schedule, kBegin + absl::Seconds(5), 3), SizeIs(3));
  auto times = TimesOf(schedule);
  EXPECT_EQ(NextLook(schedule, *times, kBegin + absl::Seconds(5)), kBegin + absl::Seconds(4));
  EXPECT_THAT(Due(schedule, kBegin + absl::Seconds(5), 3), ElementsAre(absl::Seconds(4), absl::Seconds(5)));
}

TEST(ScheduleTest, AYearOfMissedSecondsTakesNoTime) {
  v1::Schedule schedule = Every(absl::Seconds(1));
  ToProto(absl::Seconds(10), schedule.mutable_catchup_window());
  EXPECT_THAT(Due(schedule, kBegin + absl::Hours(24 * 365)), SizeIs(11));
  EXPECT_GE(schedule.state().missed(), 10000);
}

TEST(ScheduleTest, Overlaps) {
  v1::Schedule schedule = Every(absl::Hours(1));
  v1::ScheduleState idle, busy, full;
  busy.add_running("run");
  full.add_running("run");
  for (int i = 0; i < 100; ++i) full.add_buffered();
  struct Case {
    v1::OverlapPolicy policy;
    AtTime busy, full;
  };
  for (const Case& c :
       {Case{v1::OVERLAP_POLICY_UNSPECIFIED, AtTime::kSkip, AtTime::kSkip},
        Case{v1::OVERLAP_POLICY_SKIP, AtTime::kSkip, AtTime::kSkip},
        Case{v1::OVERLAP_POLICY_BUFFER_ONE, AtTime::kBuffer, AtTime::kSkip},
        Case{v1::OVERLAP_POLICY_BUFFER_ALL, AtTime::kBuffer, AtTime::kSkip},
        Case{v1::OVERLAP_POLICY_CANCEL_OTHER, AtTime::kCancelAndBuffer, AtTime::kCancelAndBuffer},
        Case{v1::OVERLAP_POLICY_TERMINATE_OTHER, AtTime::kTerminateAndStart, AtTime::kTerminateAndStart},
        Case{v1::OVERLAP_POLICY_ALLOW_ALL, AtTime::kStart, AtTime::kStart}}) {
    schedule.set_overlap_policy(c.policy);
    EXPECT_EQ(Decide(schedule, idle), AtTime::kStart);
    EXPECT_EQ(Decide(schedule, busy), c.busy) << c.policy;
    EXPECT_EQ(Decide(schedule, full), c.full) << c.policy;
  }
}

TEST(ScheduleTest, WhatWaitsIsLookedAtSoonAndAPausedScheduleNever) {
  v1::Schedule schedule = Every(absl::Hours(1));
  auto times = TimesOf(schedule);
  EXPECT_EQ(NextLook(schedule, *times, kBegin), kBegin + absl::Hours(1));
  ToProto(kBegin, schedule.mutable_state()->add_buffered());
  EXPECT_EQ(NextLook(schedule, *times, kBegin), kBegin + absl::Seconds(1));
  schedule.set_paused(true);
  EXPECT_EQ(NextLook(schedule, *times, kBegin), absl::InfiniteFuture());
}

TEST(ScheduleTest, WhatIsDueByTheOldCalendarIsNotLost) {
  v1::Schedule schedule = Every(absl::Minutes(10));
  schedule.set_overlap_policy(v1::OVERLAP_POLICY_BUFFER_ALL);
  v1::Schedule changed = schedule;
  changed.mutable_calendar()->mutable_every()->set_seconds(7 * 60);
  ChangeSchedule(schedule, kBegin + absl::Minutes(21), &changed);
  ASSERT_EQ(changed.state().buffered_size(), 2);
  EXPECT_EQ(FromProto(changed.state().buffered(1)), kBegin + absl::Minutes(20));
  EXPECT_EQ(DoneUntil(changed), kBegin + absl::Minutes(21));
  // Where one time may wait, the others are skipped, and said to be.
  schedule.set_overlap_policy(v1::OVERLAP_POLICY_SKIP);
  changed = schedule;
  changed.set_paused(true);
  ChangeSchedule(schedule, kBegin + absl::Minutes(35), &changed);
  EXPECT_EQ(changed.state().buffered_size(), 1);
  EXPECT_EQ(changed.state().skipped(), 2);
}

TEST(ScheduleTest, APauseLosesNothingThatIsToCome) {
  v1::Schedule schedule = Every(absl::Hours(10));
  schedule.mutable_calendar()->mutable_jitter()->set_seconds(3600);
  auto times = TimesOf(schedule);
  const CalendarTimes::Occurrence first = times->Next(kBegin);
  ASSERT_GT(first.due, first.time + absl::Seconds(10));
  const absl::Time between = first.time + (first.due - first.time) / 2;
  v1::Schedule paused = schedule;
  paused.set_paused(true);
  ChangeSchedule(schedule, between, &paused);
  v1::Schedule resumed = paused;
  resumed.set_paused(false);
  ChangeSchedule(paused, between + absl::Seconds(1), &resumed);
  EXPECT_EQ(times->Next(DoneUntil(resumed)).due, first.due) << "its time has come, it is not due yet";
  // What passed meanwhile is over; what waited is, when it is too long ago.
  ToProto(kBegin, paused.mutable_state()->add_buffered());
  resumed = paused;
  resumed.set_paused(false);
  ChangeSchedule(paused, kBegin + absl::Hours(35), &resumed);
  EXPECT_EQ(resumed.state().buffered_size(), 0);
  EXPECT_EQ(resumed.state().missed(), 1);
  EXPECT_EQ(times->Next(DoneUntil(resumed)).time, kBegin + absl::Hours(36)) << "multiples of ten hours since 1970";
}

TEST(ScheduleTest, ATimeOfAScheduleIsOneRequest) {
  v1::Schedule schedule = Every(absl::Hours(1)), again = schedule, other = schedule;
  ToProto(kBegin + absl::Seconds(1), again.mutable_create_time());
  other.set_name("daily");
  EXPECT_EQ(RequestIdOf(schedule, kBegin), RequestIdOf(schedule, kBegin));
  EXPECT_LE(RequestIdOf(schedule, kBegin).size(), 36u);
  EXPECT_NE(RequestIdOf(schedule, kBegin), RequestIdOf(schedule, kBegin + absl::Hours(1)));
  EXPECT_NE(RequestIdOf(schedule, kBegin), RequestIdOf(again, kBegin));
  EXPECT_NE(RequestIdOf(schedule, kBegin), RequestIdOf(other, kBegin));
}

TEST(ScheduleTest, TheLatestActionsAreKept) {
  v1::ScheduleState state;
  for (int i = 0; i < 25; ++i) {
    v1::ScheduleState::Action action;
    action.set_run_id(std::to_string(i));
    AddAction(action, &state);
  }
  ASSERT_EQ(state.recent_size(), 20);
  EXPECT_EQ(state.recent(0).run_id(), "5");
  EXPECT_EQ(state.recent(19).run_id(), "24");
}

}  // namespace
}  // namespace tutti::engine
