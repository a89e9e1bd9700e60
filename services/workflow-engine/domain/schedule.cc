#include "services/workflow-engine/domain/schedule.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/digest.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/validator.h"

namespace tutti::engine {
namespace {

namespace v1 = tutti::workflow::v1;

constexpr int kMostLines = 20;
constexpr int kMostBuffered = 100;
constexpr int kMostRecent = 20;
constexpr int kMostLabels = 60;
constexpr int64_t kMostMissed = 10000;  // counted one by one; what is before is passed over at once
constexpr absl::Duration kYear = absl::Hours(24 * 366);
constexpr absl::Duration kDefaultCatchup = absl::Hours(1);
// How soon after the end of a run its successor begins.
constexpr absl::Duration kLookAtRunning = absl::Seconds(1);

class Violations {
 public:
  void Add(const std::string& field, std::string what) { found_.push_back({field, std::move(what)}); }
  absl::Status ToStatus() const {
    if (found_.empty()) return absl::OkStatus();
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_SCHEDULE",
                 absl::StrCat(found_[0].field, ": ", found_[0].description,
                              found_.size() > 1 ? absl::StrCat(" (and ", found_.size() - 1, " more)") : ""))
        .Violations(found_);
  }
  void AddAll(const absl::Status& status, const std::string& field) {
    std::vector<FieldViolation> more = ViolationsOf(status);
    found_.insert(found_.end(), more.begin(), more.end());
    if (more.empty() && !status.ok()) Add(field, std::string(status.message()));
  }

 private:
  std::vector<FieldViolation> found_;
};

// Of whole seconds, whatever the protos say of less.
absl::Time FloorTo(absl::Time time, absl::Duration every, absl::Duration offset) {
  return absl::UnixEpoch() + offset + absl::Floor(time - absl::UnixEpoch() - offset, every);
}

bool InRange(const google::protobuf::Duration& duration, absl::Duration least, absl::Duration most) {
  const absl::Duration value = FromProto(duration);
  return value >= least && value <= most;
}

absl::Duration CatchupOf(const v1::Schedule& schedule) {
  return schedule.has_catchup_window() ? FromProto(schedule.catchup_window()) : kDefaultCatchup;
}

}  // namespace

absl::StatusOr<CalendarTimes> CalendarTimes::Create(const v1::Calendar& calendar, std::string seed,
                                                    const std::string& field) {
  CalendarTimes out;
  out.seed_ = std::move(seed);
  Violations wrong;
  if (calendar.cron().empty() && !calendar.has_every()) {
    wrong.Add(field, "one of cron and every must be given");
  }
  if (calendar.cron_size() > kMostLines)
    wrong.Add(field + ".cron", absl::StrCat("has more than ", kMostLines, " lines"));
  if (!calendar.time_zone().empty() &&
      (absl::StrContains(calendar.time_zone(), "..") || calendar.time_zone()[0] == '/' ||
       !absl::LoadTimeZone(calendar.time_zone(), &out.zone_))) {
    wrong.Add(field + ".time_zone", absl::StrCat("\"", calendar.time_zone(),
                                                 "\" is no time zone of the IANA database that is installed here, ",
                                                 "such as Europe/Berlin"));
  }
  for (int i = 0; i < std::min(calendar.cron_size(), kMostLines); ++i) {
    auto line = CronLine::Parse(calendar.cron(i));
    if (line.ok()) {
      out.lines_.push_back(*std::move(line));
    } else {
      wrong.Add(absl::StrCat(field, ".cron[", i, "]"), std::string(line.status().message()));
    }
  }
  if (calendar.has_every()) {
    if (!InRange(calendar.every(), absl::Seconds(1), kYear)) wrong.Add(field + ".every", "must be 1 s to 366 days");
    out.every_ = FromProto(calendar.every());
    out.offset_ = FromProto(calendar.offset());
  }
  if (calendar.has_offset() &&
      (!calendar.has_every() || out.offset_ < absl::ZeroDuration() || out.offset_ >= out.every_)) {
    wrong.Add(field + ".offset", "must be less than every, and not negative");
  }
  if (!InRange(calendar.jitter(), absl::ZeroDuration(), absl::Hours(24))) {
    wrong.Add(field + ".jitter", "must be 0 to 1 day");
  }
  out.jitter_ = FromProto(calendar.jitter());
  if (calendar.has_start_time()) out.begin_ = FromProto(calendar.start_time());
  if (calendar.has_end_time()) out.end_ = FromProto(calendar.end_time());
  if (out.begin_ >= out.end_) wrong.Add(field + ".end_time", "must be after start_time");
  TUTTI_RETURN_IF_ERROR(wrong.ToStatus());
  return out;
}

absl::Time CalendarTimes::NextTime(absl::Time after) const {
  after = std::max(after, begin_ - absl::Nanoseconds(1));
  absl::Time next = absl::InfiniteFuture();
  for (const CronLine& line : lines_) next = std::min(next, line.Next(after, zone_));
  if (every_ > absl::ZeroDuration()) next = std::min(next, FloorTo(after, every_, offset_) + every_);
  return next < end_ ? next : absl::InfiniteFuture();
}

CalendarTimes::Occurrence CalendarTimes::Next(absl::Time after) const {
  Occurrence out;
  out.time = out.due = NextTime(after);
  if (jitter_ == absl::ZeroDuration() || out.time == absl::InfiniteFuture()) return out;
  const int64_t most = absl::ToInt64Milliseconds(std::min(jitter_, NextTime(out.time) - out.time));
  uint64_t hash = 0;
  (void)absl::SimpleHexAtoi(HexDigest(absl::StrCat(seed_, "/", absl::ToUnixSeconds(out.time))).substr(0, 15), &hash);
  out.due += absl::Milliseconds(static_cast<int64_t>(hash % static_cast<uint64_t>(std::max<int64_t>(1, most))));
  return out;
}

absl::StatusOr<CalendarTimes> TimesOf(const v1::Schedule& schedule) {
  return CalendarTimes::Create(schedule.calendar(), schedule.name(), "schedule.calendar");
}

absl::Status CheckSchedule(const v1::Schedule& schedule) {
  Violations wrong;
  if (!IsResourceId(schedule.name())) {
    wrong.Add("schedule.name", "must be 1 to 63 of a-z, 0-9 and -, and begin with a letter");
  }
  if (schedule.description().size() > 1000) wrong.Add("schedule.description", "must have at most 1000 characters");
  if (schedule.note().size() > 1000) wrong.Add("schedule.note", "must have at most 1000 characters");
  if (schedule.workflow().empty()) wrong.Add("schedule.workflow", "must name a stored workflow");
  if (schedule.workflow_version() < 0) wrong.Add("schedule.workflow_version", "must not be negative");
  if (schedule.labels_size() > kMostLabels) {
    wrong.Add("schedule.labels", absl::StrCat("must have at most ", kMostLabels, " entries"));
  }
  for (const auto& [key, value] : schedule.labels()) {
    if (key.empty() || key.size() > 63) wrong.Add("schedule.labels", "a key must have 1 to 63 characters");
    if (absl::StartsWith(key, "tutti.")) wrong.Add("schedule.labels", "keys that begin with `tutti.` are Tutti's");
    if (value.size() > 255) wrong.Add(absl::StrCat("schedule.labels.", key), "must have at most 255 characters");
  }
  if (!v1::OverlapPolicy_IsValid(schedule.overlap_policy())) wrong.Add("schedule.overlap_policy", "is unknown");
  if (schedule.has_catchup_window() && !InRange(schedule.catchup_window(), absl::Seconds(10), kYear)) {
    wrong.Add("schedule.catchup_window", "must be 10 s to 366 days");
  }
  auto times = TimesOf(schedule);
  wrong.AddAll(times.status(), "schedule.calendar");
  if (times.ok() && times->Next(absl::UnixEpoch()).time == absl::InfiniteFuture()) {
    wrong.Add("schedule.calendar", "never comes");
  }
  return wrong.ToStatus();
}

std::vector<absl::Time> TakeDue(const v1::Schedule& schedule, const CalendarTimes& times, absl::Time now, size_t limit,
                                v1::ScheduleState* state) {
  std::vector<absl::Time> due;
  absl::Time done = DoneUntil(schedule);
  const absl::Time oldest = now - CatchupOf(schedule);
  int64_t missed = 0;
  while (due.size() < limit) {
    const CalendarTimes::Occurrence next = times.Next(done);
    if (next.due > now) break;
    done = next.time;
    if (next.due >= oldest) {
      due.push_back(next.time);
    } else if (++missed == kMostMissed) {
      // From just before the window on: a calendar of seconds after a year would take all day.
      done = std::max(done, oldest - absl::Hours(25));
    }
  }
  state->set_missed(state->missed() + missed);
  ToProto(done, state->mutable_done_until());
  return due;
}

void ChangeCalendar(const v1::Schedule& before, absl::Time now, v1::ScheduleState* state) {
  auto times = TimesOf(before);
  if (times.ok() && !before.paused()) {
    const auto room = static_cast<size_t>(std::max(0, kMostBuffered - state->buffered_size()));
    for (absl::Time time : TakeDue(before, *times, now, room, state)) ToProto(time, state->add_buffered());
  }
  ToProto(now, state->mutable_done_until());
}

AtTime Decide(const v1::Schedule& schedule, const v1::ScheduleState& state) {
  const bool free = state.running().empty() && state.buffered().empty();
  if (free) return AtTime::kStart;
  switch (schedule.overlap_policy()) {
    case v1::OVERLAP_POLICY_BUFFER_ONE:
      return state.buffered().empty() ? AtTime::kBuffer : AtTime::kSkip;
    case v1::OVERLAP_POLICY_BUFFER_ALL:
      return state.buffered_size() < kMostBuffered ? AtTime::kBuffer : AtTime::kSkip;
    case v1::OVERLAP_POLICY_CANCEL_OTHER:
      return AtTime::kCancelAndBuffer;
    case v1::OVERLAP_POLICY_TERMINATE_OTHER:
      return AtTime::kTerminateAndStart;
    case v1::OVERLAP_POLICY_ALLOW_ALL:
      return AtTime::kStart;
    default:
      return AtTime::kSkip;
  }
}

absl::Time DoneUntil(const v1::Schedule& schedule) {
  return FromProto(schedule.state().has_done_until() ? schedule.state().done_until() : schedule.create_time());
}

absl::Time NextLook(const v1::Schedule& schedule, const CalendarTimes& times, absl::Time now) {
  if (schedule.paused()) return absl::InfiniteFuture();
  const absl::Time next = times.Next(DoneUntil(schedule)).due;
  return schedule.state().buffered().empty() ? next : std::min(next, now + kLookAtRunning);
}

std::string RequestIdOf(const v1::Schedule& schedule, absl::Time time) {
  // A schedule of the same name that is made anew is another.
  return absl::StrCat("s-", HexDigest(absl::StrCat(schedule.name(), "/", schedule.create_time().seconds(), "/",
                                                   schedule.create_time().nanos(), "/", absl::ToUnixNanos(time))));
}

void AddAction(v1::ScheduleState::Action action, v1::ScheduleState* state) {
  *state->add_recent() = std::move(action);
  if (state->recent_size() > kMostRecent)
    state->mutable_recent()->DeleteSubrange(0, state->recent_size() - kMostRecent);
}

}  // namespace tutti::engine
