#include "services/workflow-engine/domain/cron.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/status/testing/matchers.h"

namespace tutti::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::TimeZone Zone(const std::string& name) {
  absl::TimeZone zone;
  EXPECT_TRUE(absl::LoadTimeZone(name, &zone)) << name;
  return zone;
}

// The first `count` times after a moment given with its offset, as the zone's clock shows them, with offsets.
std::vector<std::string> Times(const std::string& line, const std::string& zone_name, const std::string& after,
                               int count) {
  auto cron = CronLine::Parse(line);
  EXPECT_TRUE(cron.ok()) << cron.status();
  absl::Time at;
  std::string error;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_sec, after, &at, &error)) << error;
  const absl::TimeZone zone = Zone(zone_name);
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    at = cron->Next(at, zone);
    out.push_back(at == absl::InfiniteFuture() ? "never" : absl::FormatTime("%Y-%m-%d %H:%M%Ez", at, zone));
    if (at == absl::InfiniteFuture()) break;
  }
  return out;
}

TEST(CronTest, FieldsListsRangesAndSteps) {
  EXPECT_THAT(Times("*/20 9-10 * * *", "UTC", "2026-03-01T09:19:59Z", 5),
              ElementsAre("2026-03-01 09:20+00:00", "2026-03-01 09:40+00:00", "2026-03-01 10:00+00:00",
                          "2026-03-01 10:20+00:00", "2026-03-01 10:40+00:00"));
  EXPECT_THAT(Times("5/20 0,12 1 JAN,jul *", "UTC", "2026-01-01T12:25:00Z", 2),
              ElementsAre("2026-01-01 12:45+00:00", "2026-07-01 00:05+00:00"));
  // Exactly at a time: the one after it.
  EXPECT_THAT(Times("@daily", "UTC", "2026-03-01T00:00:00Z", 1), ElementsAre("2026-03-02 00:00+00:00"));
  EXPECT_THAT(Times("@weekly", "UTC", "2026-11-21T00:00:00Z", 1), ElementsAre("2026-11-22 00:00+00:00"));
}

TEST(CronTest, WhereBothDaysAreGivenOneIsEnough) {
  // 2026-11-13 is a Friday.
  EXPECT_THAT(Times("0 0 13 * 5", "UTC", "2026-11-01T00:00:00Z", 4),
              ElementsAre("2026-11-06 00:00+00:00", "2026-11-13 00:00+00:00", "2026-11-20 00:00+00:00",
                          "2026-11-27 00:00+00:00"));
  EXPECT_THAT(Times("0 0 */10 * MON", "UTC", "2026-06-01T00:00:00Z", 1), ElementsAre("2026-08-31 00:00+00:00"));
}

TEST(CronTest, LastDaysAndNthWeekdays) {
  EXPECT_THAT(Times("0 18 L * *", "UTC", "2028-01-31T18:00:00Z", 2),
              ElementsAre("2028-02-29 18:00+00:00", "2028-03-31 18:00+00:00"));
  EXPECT_THAT(Times("0 9 * * MON#1", "UTC", "2026-11-21T00:00:00Z", 2),
              ElementsAre("2026-12-07 09:00+00:00", "2027-01-04 09:00+00:00"));
  EXPECT_THAT(Times("0 9 ? * 5L", "UTC", "2026-11-21T00:00:00Z", 2),
              ElementsAre("2026-11-27 09:00+00:00", "2026-12-25 09:00+00:00"));
  EXPECT_THAT(Times("0 0 * * 7", "UTC", "2026-11-21T00:00:00Z", 1), ElementsAre("2026-11-22 00:00+00:00"));
  EXPECT_THAT(Times("0 0 * * 5-7", "UTC", "2026-11-20T00:00:00Z", 2),
              ElementsAre("2026-11-21 00:00+00:00", "2026-11-22 00:00+00:00"));
}

TEST(CronTest, AnHourThatIsLeftOutComesOnceRightAfterTheChange) {
  // Berlin, 2026-03-29: 02:00 becomes 03:00.
  EXPECT_THAT(Times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
              ElementsAre("2026-03-28 02:30+01:00", "2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"));
  // All of them together are one.
  EXPECT_THAT(Times("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", 3),
              ElementsAre("2026-03-29 03:00+02:00", "2026-03-29 03:30+02:00", "2026-03-30 02:00+02:00"));
  // Midnight itself is left out: Beirut, 2026-03-29.
  EXPECT_THAT(Times("15 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", 2),
              ElementsAre("2026-03-29 01:00+03:00", "2026-03-30 00:15+03:00"));
}

TEST(CronTest, AnHourThatComesTwiceComesTheFirstTime) {
  // New York, 2026-11-01: 02:00 becomes 01:00.
  EXPECT_THAT(Times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
              ElementsAre("2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"));
  // Asked within the second pass: not again.
  EXPECT_THAT(Times("30 1 * * *", "America/New_York", "2026-11-01T06:10:00Z", 1),
              ElementsAre("2026-11-02 01:30-05:00"));
}

TEST(CronTest, EveryHourFollowsTheClockThroughBothChanges) {
  EXPECT_THAT(Times("30 * * * *", "America/New_York", "2026-11-01T05:00:00Z", 3),
              ElementsAre("2026-11-01 01:30-04:00", "2026-11-01 01:30-05:00", "2026-11-01 02:30-05:00"));
  EXPECT_THAT(Times("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
              ElementsAre("2026-03-29 01:30+01:00", "2026-03-29 03:30+02:00", "2026-03-29 04:30+02:00"));
  // By half an hour: Lord Howe, 2026-10-04, 02:00 becomes 02:30.
  EXPECT_THAT(Times("*/15 * * * *", "Australia/Lord_Howe", "2026-10-03T15:14:00Z", 3),
              ElementsAre("2026-10-04 01:45+10:30", "2026-10-04 02:30+11:00", "2026-10-04 02:45+11:00"));
  // A day whose midnight is left out.
  EXPECT_THAT(Times("0 * 29 3 *", "Asia/Beirut", "2026-03-28T12:00:00Z", 1), ElementsAre("2026-03-29 01:00+03:00"));
}

TEST(CronTest, RareAndNever) {
  EXPECT_THAT(Times("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), ElementsAre("2104-02-29 00:00+00:00"));
  EXPECT_THAT(Times("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ElementsAre("never"));
  EXPECT_THAT(Times("0 * 31 4,6 *", "UTC", "2026-01-01T00:00:00Z", 1), ElementsAre("never"));
}

// Whatever the line and the zone: times only go forward, and asking from just before one gives it again.
TEST(CronTest, TimesAreInOrderAndDoNotDependOnWhereTheQuestionBegins) {
  for (const char* zone_name :
       {"UTC", "Europe/Berlin", "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "Asia/Kolkata"}) {
    const absl::TimeZone zone = Zone(zone_name);
    for (const char* line : {"*/7 * * * *", "13 */3 * * *", "0,59 0-4 * * *", "0 0 L * 0#1", "30 2 * 3,4,10,11 0"}) {
      auto cron = CronLine::Parse(line);
      ASSERT_THAT(cron, testing::IsOk());
      absl::Time at = absl::FromCivil(absl::CivilDay(2026, 3, 1), zone);
      for (int i = 0; i < 3000; ++i) {
        const absl::Time next = cron->Next(at, zone);
        ASSERT_GT(next, at) << line << " " << zone_name;
        if (next == absl::InfiniteFuture()) break;
        ASSERT_EQ(cron->Next(next - absl::Nanoseconds(1), zone), next) << line << " " << zone_name;
        ASSERT_EQ(cron->Next(at + (next - at) / 2, zone), next) << line << " " << zone_name;
        at = next;
      }
    }
  }
}

TEST(CronTest, WrongLinesSayWhatIsWrong) {
  auto wrong = [](const std::string& line) { return std::string(CronLine::Parse(line).status().message()); };
  EXPECT_THAT(wrong("* * * *"), HasSubstr("has 4 fields"));
  EXPECT_THAT(wrong(""), HasSubstr("has 0 fields"));
  EXPECT_THAT(wrong("60 * * * *"), HasSubstr("\"60\" is no minute (0 to 59)"));
  EXPECT_THAT(wrong("* 24 * * *"), HasSubstr("is no hour"));
  EXPECT_THAT(wrong("* * 0 * *"), HasSubstr("is no day of month (1 to 31)"));
  EXPECT_THAT(wrong("* * * foo *"), HasSubstr("is no month (1 to 12, or a name)"));
  EXPECT_THAT(wrong("* * * * 8"), HasSubstr("is no day of week"));
  EXPECT_THAT(wrong("10-5 * * * *"), HasSubstr("a range goes upwards"));
  EXPECT_THAT(wrong("*/0 * * * *"), HasSubstr("a step is a number"));
  EXPECT_THAT(wrong("1,,2 * * * *"), HasSubstr("\"\" is no minute"));
  EXPECT_THAT(wrong("* * * * 5#6"), HasSubstr("after # comes 1 to 5"));
  EXPECT_THAT(wrong("@reboot"), HasSubstr("none of @hourly"));
}

}  // namespace
}  // namespace tutti::engine
