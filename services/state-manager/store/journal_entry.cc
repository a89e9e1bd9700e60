#include "services/state-manager/store/journal_entry.h"

#include "absl/strings/str_cat.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

using tutti::state::v1::JournalEntry;

template <class Step>
EntryKey KeyOfStep(const char* kind, const Step& step) {
  return {kind, step.path(), step.kind(), step.target(), step.attempt()};
}

bool HasNul(absl::string_view text) { return text.find('\0') != absl::string_view::npos; }

}  // namespace

tutti::type::v1::Payload* PayloadOf(JournalEntry& entry) {
  switch (entry.entry_case()) {
    case JournalEntry::kStepCompleted:
      return entry.mutable_step_completed()->mutable_result();
    case JournalEntry::kRunFinished:
      return entry.run_finished().has_output() ? entry.mutable_run_finished()->mutable_output() : nullptr;
    case JournalEntry::kSignalReceived:
      return entry.signal_received().has_payload() ? entry.mutable_signal_received()->mutable_payload() : nullptr;
    case JournalEntry::kStepWaiting:
      return entry.step_waiting().has_form() ? entry.mutable_step_waiting()->mutable_form() : nullptr;
    case JournalEntry::kEventEmitted:
      return entry.event_emitted().has_data() ? entry.mutable_event_emitted()->mutable_data() : nullptr;
    case JournalEntry::kLoopCheckpoint:
      return entry.loop_checkpoint().has_last() ? entry.mutable_loop_checkpoint()->mutable_last() : nullptr;
    default:
      return nullptr;
  }
}

std::string PlaceOf(const std::string& run_id, int64_t seq) { return absl::StrCat("runs/", run_id, "/journal/", seq); }

EntryKey KeyOf(const JournalEntry& entry) {
  switch (entry.entry_case()) {
    case JournalEntry::kRunStarted:
      return {"run_started"};
    case JournalEntry::kStepStarted:
      return KeyOfStep("step_started", entry.step_started());
    case JournalEntry::kStepCompleted: {
      EntryKey key = KeyOfStep("step_completed", entry.step_completed());
      key.usage = &entry.step_completed().usage();
      return key;
    }
    case JournalEntry::kStepFailed: {
      EntryKey key = KeyOfStep("step_failed", entry.step_failed());
      key.usage = &entry.step_failed().usage();
      key.error_code = entry.step_failed().error().code();
      return key;
    }
    case JournalEntry::kCancelRequested:
      return {"cancel_requested"};
    case JournalEntry::kRunFinished: {
      EntryKey key = {"run_finished"};
      key.error_code = entry.run_finished().error().code();
      return key;
    }
    case JournalEntry::kStepWaiting:
      return {"step_waiting", entry.step_waiting().path(), entry.step_waiting().kind(), entry.step_waiting().signal()};
    case JournalEntry::kSignalReceived:  // found again by its request id
      return {"signal_received", "", entry.signal_received().name(), entry.signal_received().request_id()};
    case JournalEntry::kPauseRequested:
      return {"pause_requested"};
    case JournalEntry::kResumeRequested:
      return {"resume_requested"};
    case JournalEntry::kRunParked:
      return {"run_parked"};
    case JournalEntry::kEventEmitted:
      return {"event_emitted", entry.event_emitted().path(), "emit", entry.event_emitted().type()};
    case JournalEntry::kRunReopened:
      return {"run_reopened"};
    case JournalEntry::kRunForked:
      return {"run_forked", entry.run_forked().from_step(), "", entry.run_forked().run_id()};
    case JournalEntry::kLoopCheckpoint:
      return {"loop_checkpoint", entry.loop_checkpoint().path(), "while"};
    case JournalEntry::kRunSettled:
      return {"run_settled"};
    default:
      return {"unknown"};
  }
}

absl::Status CheckForm(const tutti::state::v1::AppendRequest& request) {
  if (request.entries().empty()) return Invalid("entries", "must be given");
  if (request.writer_seq() < 1) return Invalid("writer_seq", "must be at least 1");
  for (const auto& entry : request.entries()) {
    EntryKey key = KeyOf(entry);
    bool nul = HasNul(key.path) || HasNul(key.step_kind) || HasNul(key.target);
    for (const auto& usage : *key.usage) {
      nul |=
          HasNul(usage.agent()) || HasNul(usage.provider()) || HasNul(usage.model()) || HasNul(usage.currency_code());
    }
    if (nul) return Invalid("entries", "have a name with a NUL character");
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
