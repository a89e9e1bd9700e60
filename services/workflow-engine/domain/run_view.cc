#include "services/workflow-engine/domain/run_view.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/telemetry/trace.h"
#include "runtime/text/nearest_name.h"
#include "runtime/time/proto_time.h"
#include "runtime/usage/usage_totals.h"
#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

using tutti::state::v1::JournalEntry;
using tutti::workflow::v1::StepRecord;

tutti::workflow::v1::RunState StateOf(tutti::state::v1::Outcome outcome, bool started) {
  switch (outcome) {
    case tutti::state::v1::OUTCOME_SUCCEEDED:
      return tutti::workflow::v1::RUN_STATE_SUCCEEDED;
    case tutti::state::v1::OUTCOME_FAILED:
      return tutti::workflow::v1::RUN_STATE_FAILED;
    case tutti::state::v1::OUTCOME_CANCELLED:
      return tutti::workflow::v1::RUN_STATE_CANCELLED;
    default:
      return started ? tutti::workflow::v1::RUN_STATE_RUNNING : tutti::workflow::v1::RUN_STATE_PENDING;
  }
}

tutti::workflow::v1::RunState StateOf(const tutti::state::v1::StoredRun& row) {
  bool open = row.outcome() == tutti::state::v1::OUTCOME_UNSPECIFIED;
  if (open && row.paused()) return tutti::workflow::v1::RUN_STATE_PAUSED;
  if (open && row.waiting()) return tutti::workflow::v1::RUN_STATE_WAITING;
  return StateOf(row.outcome(), row.started());
}

void ToValue(const tutti::type::v1::Payload& payload, google::protobuf::Value* out) {
  auto json = FromPayload(payload);
  if (json.ok()) ToProto(*json, out);
}

// What an entry says of its step; false when it is about none.
bool FillRecord(const JournalEntry& entry, StepRecord* record) {
  auto common = [record](const auto& step) {
    record->set_path(step.path());
    record->set_kind(step.kind());
    record->set_attempt(step.attempt());
    record->set_target(step.target());
  };
  switch (entry.entry_case()) {
    case JournalEntry::kStepStarted:
      common(entry.step_started());
      record->set_state(tutti::workflow::v1::STEP_STATE_RUNNING);
      if (!record->has_start_time()) *record->mutable_start_time() = entry.time();
      return true;
    case JournalEntry::kStepCompleted:
      common(entry.step_completed());
      record->set_state(entry.step_completed().skipped() ? tutti::workflow::v1::STEP_STATE_SKIPPED
                                                         : tutti::workflow::v1::STEP_STATE_SUCCEEDED);
      *record->mutable_end_time() = entry.time();
      if (!record->has_start_time() && entry.step_completed().has_start_time()) {
        *record->mutable_start_time() = entry.step_completed().start_time();
      }
      record->clear_error();
      record->clear_wait();
      record->set_cached(entry.step_completed().cached());
      for (const auto& usage : entry.step_completed().usage()) *record->add_usage() = usage;
      if (entry.step_completed().has_child_usage())
        AddUsage(entry.step_completed().child_usage(), record->mutable_child_usage());
      return true;
    case JournalEntry::kStepFailed:
      common(entry.step_failed());
      record->set_state(entry.step_failed().has_retry_time() ? tutti::workflow::v1::STEP_STATE_RETRYING
                                                             : tutti::workflow::v1::STEP_STATE_FAILED);
      *record->mutable_end_time() = entry.time();
      *record->mutable_error() = entry.step_failed().error();
      for (const auto& usage : entry.step_failed().usage()) *record->add_usage() = usage;
      if (entry.step_failed().has_child_usage())
        AddUsage(entry.step_failed().child_usage(), record->mutable_child_usage());
      return true;
    case JournalEntry::kStepWaiting: {
      const auto& waiting = entry.step_waiting();
      record->set_path(waiting.path());
      record->set_kind(waiting.kind());
      record->set_attempt(std::max(1, record->attempt()));
      record->set_state(tutti::workflow::v1::STEP_STATE_WAITING);
      auto* wait = record->mutable_wait();
      wait->set_signal(waiting.signal());
      if (waiting.has_wake_time()) *wait->mutable_wake_time() = waiting.wake_time();
      wait->set_title(waiting.title());
      if (waiting.has_form()) ToValue(waiting.form(), wait->mutable_form());
      *wait->mutable_approvers() = waiting.approvers();
      wait->set_child_run_id(waiting.child_run_id());
      return true;
    }
    default:
      return false;
  }
}

const std::string& PathOf(const JournalEntry& entry) {
  static const std::string kNone;
  switch (entry.entry_case()) {
    case JournalEntry::kStepStarted:
      return entry.step_started().path();
    case JournalEntry::kStepCompleted:
      return entry.step_completed().path();
    case JournalEntry::kStepFailed:
      return entry.step_failed().path();
    case JournalEntry::kStepWaiting:
      return entry.step_waiting().path();
    default:
      return kNone;
  }
}

absl::Status BadFilter(absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILTER", absl::StrCat("filter: ", what))
      .Violation("filter", what);
}

// The filter's words: names, operators, quoted values.
absl::StatusOr<std::vector<std::string>> Words(const std::string& filter) {
  std::vector<std::string> words;
  for (size_t i = 0; i < filter.size();) {
    char c = filter[i];
    if (isspace(static_cast<unsigned char>(c))) {
      ++i;
    } else if (c == '"' || c == '\'') {
      size_t end = filter.find(c, i + 1);
      if (end == std::string::npos) return BadFilter("a quotation mark is not closed");
      words.push_back(absl::StrCat("\"", filter.substr(i + 1, end - i - 1)));
      i = end + 1;
    } else if (absl::StrContains("=<>!", std::string(1, c))) {
      size_t length = i + 1 < filter.size() && filter[i + 1] == '=' ? 2 : 1;
      words.push_back(filter.substr(i, length));
      i += length;
    } else {
      size_t end = i;
      while (end < filter.size() && !isspace(static_cast<unsigned char>(filter[end])) &&
             !absl::StrContains("=<>!\"'", std::string(1, filter[end]))) {
        ++end;
      }
      words.push_back(filter.substr(i, end - i));
      i = end;
    }
  }
  return words;
}

absl::Status ApplyTerm(const std::string& field, const std::string& op, const std::string& value,
                       tutti::state::v1::ListRunsRequest* out) {
  if (field == "create_time") {
    absl::Time time;
    std::string error;
    if (!absl::ParseTime(absl::RFC3339_full, value, &time, &error)) {
      return BadFilter(absl::StrCat("create_time must be compared with a time such as \"2026-01-31T12:00:00Z\", not \"",
                                    value, "\""));
    }
    bool after = op == ">" || op == ">=";
    if (!after && op != "<" && op != "<=") return BadFilter("create_time knows >, >=, < and <=");
    if (op == ">" || op == "<=") time += absl::Microseconds(1);
    auto* bound = after ? out->mutable_created_after() : out->mutable_created_before();
    bound->set_seconds(absl::ToUnixSeconds(time));
    bound->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(bound->seconds()))));
    return absl::OkStatus();
  }
  if (op != "=") return BadFilter(absl::StrCat(field, " knows only ="));
  if (field == "state") {
    std::string state = absl::AsciiStrToUpper(value);
    if (absl::StartsWith(state, "RUN_STATE_")) state = state.substr(10);
    for (const char* known : {"PENDING", "RUNNING", "WAITING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"}) {
      if (state == known) {
        out->set_state(state);
        return absl::OkStatus();
      }
    }
    return BadFilter(absl::StrCat(
        "state must be PENDING, RUNNING, WAITING, PAUSED, SUCCEEDED, FAILED or CANCELLED, not \"", value, "\""));
  }
  if (field == "workflow") {
    out->set_workflow(value);
    return absl::OkStatus();
  }
  if (field == "tenant") {
    out->set_tenant(value);
    return absl::OkStatus();
  }
  if (absl::StartsWith(field, "labels.") && field.size() > 7) {
    (*out->mutable_labels())[field.substr(7)] = value;
    return absl::OkStatus();
  }
  return BadFilter(absl::StrCat("unknown field \"", field, "\"",
                                DidYouMeanOf(field, {"state", "workflow", "tenant", "create_time", "labels.KEY"})));
}

}  // namespace

tutti::workflow::v1::Run ToRun(const tutti::state::v1::StoredRun& row, bool with_payloads) {
  tutti::workflow::v1::Run run;
  run.set_run_id(row.run_id());
  run.set_workflow(row.workflow());
  run.set_workflow_version(row.workflow_version());
  run.set_state(StateOf(row));
  run.set_parent_run_id(row.parent_run_id());
  run.set_forked_from(row.forked_from());
  run.set_tenant(row.tenant());
  run.set_priority(row.priority());
  if (row.has_wake_time()) *run.mutable_wake_time() = row.wake_time();
  if (with_payloads) {
    if (row.has_input()) ToValue(row.input(), run.mutable_input());
    if (row.has_output()) ToValue(row.output(), run.mutable_output());
  }
  if (row.has_error()) *run.mutable_error() = row.error();
  *run.mutable_create_time() = row.create_time();
  if (row.has_end_time()) *run.mutable_end_time() = row.end_time();
  *run.mutable_labels() = row.labels();
  run.set_progress_percent(row.progress_percent());
  *run.mutable_usage() = row.usage();
  run.set_trace_id(TraceContext::FromTraceparent(row.traceparent()).TraceIdHex());
  return run;
}

void ApplyEnd(const JournalEntry& entry, tutti::workflow::v1::Run* run) {
  const auto& finished = entry.run_finished();
  run->set_state(StateOf(finished.outcome(), true));
  run->set_progress_percent(entry.progress_percent());
  *run->mutable_end_time() = entry.time();
  if (finished.has_output()) ToValue(finished.output(), run->mutable_output());
  if (finished.has_error()) *run->mutable_error() = finished.error();
}

bool IsEnded(tutti::workflow::v1::RunState state) {
  return state == tutti::workflow::v1::RUN_STATE_SUCCEEDED || state == tutti::workflow::v1::RUN_STATE_FAILED ||
         state == tutti::workflow::v1::RUN_STATE_CANCELLED;
}

void StepRecords::Apply(const JournalEntry& entry) {
  const std::string& path = PathOf(entry);
  if (path.empty()) return;
  auto [known, anew] = index_.try_emplace(path, run_.steps_size());
  // The spec's own steps are never left out: there are at most a thousand.
  if (anew && bytes_ > kMostBytes && absl::StrContains(path, '/')) {
    known->second = -1;
    run_.set_omitted_steps(run_.omitted_steps() + 1);
  }
  if (known->second < 0) return;
  StepRecord* record = anew ? run_.add_steps() : run_.mutable_steps(known->second);
  const size_t before = anew ? 0 : record->ByteSizeLong();
  FillRecord(entry, record);
  if (!record->has_start_time()) *record->mutable_start_time() = entry.time();
  if (outputs_ && entry.has_step_completed() && entry.step_completed().has_result()) {
    ToValue(entry.step_completed().result(), record->mutable_output());
  }
  bytes_ += record->ByteSizeLong() - before;
}

absl::Status CheckTenant(absl::string_view field, absl::string_view tenant) {
  const bool fits = tenant.size() <= 63 && std::all_of(tenant.begin(), tenant.end(), [](unsigned char c) {
                      return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                    });
  if (fits) return absl::OkStatus();
  constexpr char kWhat[] = "must have at most 63 letters, digits, -, _ and .";
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", absl::StrCat(field, ": ", kWhat))
      .Violation(field, kWhat);
}

absl::Status CheckPriority(absl::string_view field, int32_t priority) {
  if (priority >= -100 && priority <= 100) return absl::OkStatus();
  constexpr char kWhat[] = "must be -100 to 100";
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FIELD", absl::StrCat(field, ": ", kWhat))
      .Violation(field, kWhat);
}

tutti::workflow::v1::RunEvent ToEvent(const tutti::state::v1::LiveText& text, absl::Time now) {
  tutti::workflow::v1::RunEvent event;
  ToProto(now, event.mutable_time());
  event.set_run_id(text.run_id());
  auto* out = event.mutable_text();
  out->set_path(text.path());
  out->set_agent(text.agent());
  out->set_attempt(text.attempt());
  out->set_turn(text.turn());
  out->set_offset(text.offset());
  out->set_text(text.text());
  return event;
}

tutti::workflow::v1::RunEvent ToEvent(const JournalEntry& entry, const std::string& run_id) {
  tutti::workflow::v1::RunEvent event;
  event.set_offset(entry.seq());
  *event.mutable_time() = entry.time();
  event.set_run_id(run_id);
  event.set_progress_percent(entry.progress_percent());
  if (entry.has_run_started()) {
    event.set_state(tutti::workflow::v1::RUN_STATE_RUNNING);
  } else if (entry.has_run_parked()) {
    event.set_state(tutti::workflow::v1::RUN_STATE_WAITING);
  } else if (entry.has_pause_requested()) {
    event.set_state(tutti::workflow::v1::RUN_STATE_PAUSED);
  } else if (entry.has_resume_requested() || entry.has_run_reopened()) {
    event.set_state(tutti::workflow::v1::RUN_STATE_RUNNING);
  } else if (entry.has_signal_received()) {
    event.mutable_signal()->set_name(entry.signal_received().name());
    event.mutable_signal()->set_sender(entry.signal_received().sender());
    ToValue(entry.signal_received().payload(), event.mutable_signal()->mutable_payload());
  } else if (entry.has_event_emitted()) {
    event.mutable_emitted()->set_path(entry.event_emitted().path());
    event.mutable_emitted()->set_type(entry.event_emitted().type());
    event.mutable_emitted()->set_subject(entry.event_emitted().subject());
    ToValue(entry.event_emitted().data(), event.mutable_emitted()->mutable_data());
  } else if (entry.has_run_finished()) {
    event.set_state(StateOf(entry.run_finished().outcome(), true));
  } else if (entry.has_step_completed() && entry.step_completed().kind() == "gate") {
    auto verdict = FromPayload(entry.step_completed().result());
    event.mutable_gate()->set_path(entry.step_completed().path());
    if (verdict.ok() && verdict->is_object()) {
      event.mutable_gate()->set_passed(verdict->value("passed", false));
      event.mutable_gate()->set_score(verdict->value("score", 0.0));
      event.mutable_gate()->set_feedback(verdict->value("feedback", ""));
    }
    *event.mutable_gate()->mutable_usage() = entry.step_completed().usage();
  } else {
    StepRecord record;
    if (FillRecord(entry, &record)) *event.mutable_step() = std::move(record);
  }
  return event;
}

std::string PatternOf(const tutti::workflow::v1::WorkflowSpec& spec) {
  return spec.steps_size() == 1 ? KindOf(spec.steps(0)) : "graph";
}

absl::Status ParseRunFilter(const std::string& filter, tutti::state::v1::ListRunsRequest* out) {
  if (filter.size() > 2000) return BadFilter("longer than 2000 characters");
  auto words = Words(filter);
  if (!words.ok()) return words.status();
  for (size_t i = 0; i < words->size(); i += 4) {
    if (i + 2 >= words->size())
      return BadFilter(absl::StrCat("after \"", (*words)[i], "\" comes an operator and a value"));
    const std::string& op = (*words)[i + 1];
    if (op != "=" && op != "<" && op != "<=" && op != ">" && op != ">=") {
      return BadFilter(absl::StrCat("\"", op, "\" is no operator; known are = < <= > >="));
    }
    std::string value = (*words)[i + 2];
    if (!value.empty() && value[0] == '"') value = value.substr(1);
    if (absl::Status status = ApplyTerm((*words)[i], op, value, out); !status.ok()) return status;
    if (i + 3 < words->size() && (*words)[i + 3] != "AND") {
      return BadFilter(absl::StrCat("terms are joined by AND, not \"", (*words)[i + 3], "\""));
    }
    if (i + 4 == words->size()) return BadFilter("a term must follow AND");
  }
  return absl::OkStatus();
}

}  // namespace tutti::engine
