#include "services/workflow-engine/domain/schedule.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/digest.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/run_view.h"
#include "services/workflow-engine/domain/validator.h"

namespace tutti::engine {
namespace {

namespace v1 = tutti::workflow::v1;

constexpr int kMostLines = 10;
constexpr int kMostBuffered = 100;
constexpr int kMostRecent = 20;
constexpr int kMostLabels = 60;
constexpr int64_t kMostMissed = 10000;  // counted one by one; what is before is passed over at once
// The years 1 to 9999, which google.protobuf.Timestamp has.
constexpr absl::Time kFirst = absl::FromUnixSeconds(-62135596800), kEnd = absl::FromUnixSeconds(253402300800);
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

absl::Time FloorTo(absl::Time time, absl::Duration every, absl::Duration offset) {
  return absl::UnixEpoch() + offset + absl::Floor(time - absl::UnixEpoch() - offset, every);
}

// Of the IANA database: what else the library takes (a path, a file's URL) is not for callers.
bool IsZoneName(const std::string& name) {
  if (name.size() > 64 || !absl::ascii_isupper(static_cast<unsigned char>(name[0]))) return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '+' || c == '-' || c == '/';
  });
}

bool IsDuration(const google::protobuf::Duration& duration) {
  return std::abs(duration.seconds()) <= 315576000000 && std::abs(duration.nanos()) <= 999999999 &&
         (duration.seconds() == 0 || duration.nanos() == 0 || (duration.seconds() < 0) == (duration.nanos() < 0));
}

bool InRange(const google::protobuf::Duration& duration, absl::Duration least, absl::Duration most) {
  const absl::Duration value = FromProto(duration);
  return IsDuration(duration) && value >= least && value <= most;
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
      (!IsZoneName(calendar.time_zone()) || !absl::LoadTimeZone(calendar.time_zone(), &out.zone_))) {
    wrong.Add(field + ".time_zone", absl::StrCat("\"", calendar.time_zone(),
                                                 "\" is no time zone of the IANA database that is installed here, ",
                                                 "such as Europe/Berlin"));
  }
  for (int i = 0; i < std::min(calendar.cron_size(), kMostLines); ++i) {
    auto line = CronLine::Parse(calendar.cron(i));
    if (line.ok()) {
      out.lines_.push_back({*std::move(line)});
    } else {
      wrong.Add(absl::StrCat(field, ".cron[", i, "]"), std::string(line.status().message()));
    }
  }
  if (calendar.has_every()) {
    if (!InRange(calendar.every(), absl::Seconds(1), kYear)) wrong.Add(field + ".every", "must be 1 s to 366 days");
    out.every_ = FromProto(calendar.every());
    out.offset_ = FromProto(calendar.offset());
  }
  if (calendar.has_offset() && (!calendar.has_every() || !IsDuration(calendar.offset()) ||
                                out.offset_ < absl::ZeroDuration() || out.offset_ >= out.every_)) {
    wrong.Add(field + ".offset", "must be less than every, and not negative");
  }
  if (!InRange(calendar.jitter(), absl::ZeroDuration(), absl::Hours(24))) {
    wrong.Add(field + ".jitter", "must be 0 to 1 day");
  }
  out.jitter_ = FromProto(calendar.jitter());
  if (calendar.has_start_time()) wrong.AddAll(CheckTime(calendar.start_time(), field + ".start_time"), field);
  if (calendar.has_end_time()) wrong.AddAll(CheckTime(calendar.end_time(), field + ".end_time"), field);
  out.begin_ = calendar.has_start_time() ? std::max(kFirst, FromProto(calendar.start_time())) : kFirst;
  out.end_ = calendar.has_end_time() ? std::min(kEnd, FromProto(calendar.end_time())) : kEnd;
  if (out.begin_ >= out.end_) wrong.Add(field + ".end_time", "must be after start_time");
  TUTTI_RETURN_IF_ERROR(wrong.ToStatus());
  return out;
}

absl::Time CalendarTimes::NextTime(absl::Time after) const {
  after = std::max(after, begin_ - absl::Nanoseconds(1));
  if (after >= end_) return absl::InfiniteFuture();
  absl::Time next = absl::InfiniteFuture();
  for (const Line& line : lines_) {
    if (after < line.asked || after >= line.answer) {
      line.asked = after;
      line.answer = line.cron.Next(after, zone_);
    }
    next = std::min(next, line.answer);
  }
  if (every_ > absl::ZeroDuration()) next = std::min(next, FloorTo(after, every_, offset_) + every_);
  return next < end_ ? next : absl::InfiniteFuture();
}

absl::Time CalendarTimes::PassedUntil(absl::Time now) const {
  absl::Time done = now - jitter_;  // all until then are due
  for (;;) {
    const absl::Time time = NextTime(done);
    if (time > now) return done;
    // A time is due before the next one comes.
    if (NextTime(time) > now && Next(done).due > now) return done;
    done = time;
  }
}

CalendarTimes::Occurrence CalendarTimes::Next(absl::Time after) const {
  Occurrence out;
  out.time = out.due = NextTime(after);
  if (jitter_ == absl::ZeroDuration() || out.time == absl::InfiniteFuture()) return out;
  const int64_t most = absl::ToInt64Milliseconds(std::min({jitter_, NextTime(out.time) - out.time, end_ - out.time}));
  uint64_t hash = 0;
  (void)absl::SimpleHexAtoi(HexDigest(absl::StrCat(seed_, "/", absl::ToUnixSeconds(out.time))).substr(0, 15), &hash);
  out.due += absl::Milliseconds(static_cast<int64_t>(hash % static_cast<uint64_t>(std::max<int64_t>(1, most))));
  return out;
}

absl::Status CheckTime(const google::protobuf::Timestamp& time, const std::string& field) {
  if (FromProto(time) >= kFirst && FromProto(time) < kEnd && time.nanos() >= 0 && time.nanos() <= 999999999) {
    return absl::OkStatus();
  }
  Violations wrong;
  wrong.Add(field, "must be a time of the years 1 to 9999");
  return wrong.ToStatus();
}

absl::StatusOr<CalendarTimes> TimesOf(const v1::Schedule& schedule) {
  return CalendarTimes::Create(schedule.calendar(), schedule.name(), "schedule.calendar");
}

absl::Status CheckSchedule(const v1::Schedule& schedule, absl::Time now) {
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
  wrong.AddAll(CheckTenant("schedule.tenant", schedule.tenant()), "schedule.tenant");
  wrong.AddAll(CheckPriority("schedule.priority", schedule.priority()), "schedule.priority");
  if (!v1::OverlapPolicy_IsValid(schedule.overlap_policy())) wrong.Add("schedule.overlap_policy", "is unknown");
  if (schedule.has_catchup_window() && !InRange(schedule.catchup_window(), absl::Seconds(10), kYear)) {
    wrong.Add("schedule.catchup_window", "must be 10 s to 366 days");
  }
  auto times = TimesOf(schedule);
  wrong.AddAll(times.status(), "schedule.calendar");
  if (times.ok() && times->NextTime(now) == absl::InfiniteFuture()) {
    wrong.Add("schedule.calendar", "has no time to come");
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
    const absl::Time time = times.NextTime(done);
    if (time > now) break;
    if (time + times.jitter() < oldest) {
      done = time;
      // A calendar of seconds after a year would take all day: the rest is passed over at once, and not counted.
      if (++missed == kMostMissed) done = std::max(done, oldest - times.jitter() - absl::Nanoseconds(1));
      continue;
    }
    const CalendarTimes::Occurrence next = times.Next(done);
    if (next.due > now) break;
    done = next.time;
    if (next.due >= oldest) {
      due.push_back(next.time);
    } else {
      ++missed;
    }
  }
  state->set_missed(state->missed() + missed);
  ToProto(done, state->mutable_done_until());
  return due;
}

void ChangeSchedule(const v1::Schedule& before, absl::Time now, v1::Schedule* after) {
  v1::ScheduleState& state = *after->mutable_state();
  const bool other = !google::protobuf::util::MessageDifferencer::Equals(before.calendar(), after->calendar());
  auto times = TimesOf(before);
  if (!before.paused() && times.ok() && (other || after->paused())) {
    const bool many = before.overlap_policy() == v1::OVERLAP_POLICY_BUFFER_ALL ||
                      before.overlap_policy() == v1::OVERLAP_POLICY_ALLOW_ALL;
    const auto room = static_cast<size_t>(std::max(0, (many ? kMostBuffered : 1) - state.buffered_size()));
    v1::Schedule taken = before;
    std::vector<absl::Time> due = TakeDue(taken, *times, now, kMostMissed, taken.mutable_state());
    // Inside its jitter: come, and not due yet.
    const absl::Time pending = times->NextTime(DoneUntil(taken));
    if (other && pending <= now) due.push_back(pending);
    for (size_t i = 0; i < due.size() && i < room; ++i) ToProto(due[i], state.add_buffered());
    const auto rest = static_cast<int64_t>(due.size() - std::min(due.size(), room));
    state.set_missed(taken.state().missed() + (many ? rest : 0));
    state.set_skipped(state.skipped() + (many ? 0 : rest));
    *state.mutable_done_until() = taken.state().done_until();
  }
  if (before.paused() && !after->paused()) {
    // What waited when the pause began, and is too long ago.
    auto& waiting = *state.mutable_buffered();
    const auto old = [&](const google::protobuf::Timestamp& time) { return now - FromProto(time) > CatchupOf(*after); };
    const auto first = std::find_if_not(waiting.begin(), waiting.end(), old);
    state.set_missed(state.missed() + (first - waiting.begin()));
    waiting.erase(waiting.begin(), first);
    if (times.ok()) ToProto(std::max(DoneUntil(before), times->PassedUntil(now)), state.mutable_done_until());
  }
  if (other) ToProto(now, state.mutable_done_until());
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

v1::StartRunRequest StartOf(const v1::Schedule& schedule, absl::Time time) {
  v1::StartRunRequest out;
  out.set_workflow(schedule.workflow());
  out.set_workflow_version(schedule.workflow_version());
  if (schedule.has_input()) *out.mutable_input() = schedule.input();
  out.set_tenant(schedule.tenant());
  out.set_priority(schedule.priority());
  *out.mutable_labels() = schedule.labels();
  (*out.mutable_labels())["tutti.schedule"] = schedule.name();
  (*out.mutable_labels())["tutti.scheduled_time"] = absl::FormatTime(absl::RFC3339_sec, time, absl::UTCTimeZone());
  return out;
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
