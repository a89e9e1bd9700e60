#include "services/workflow-engine/domain/history.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"

namespace tutti::engine {
namespace {

constexpr char kChildEnded[] = "child/";

bool IsCall(const std::string& kind, const std::string& target) {
  return kind == "agent" || kind == "tool" || kind == "http" || (kind == "gate" && !target.empty());
}

Spent SpentBy(const google::protobuf::RepeatedPtrField<tutti::type::v1::ModelUsage>& usage) {
  Spent out;
  for (const auto& item : usage) out.Add(engine::SpentBy(item));
  return out;
}

}  // namespace

bool IsBlockKind(const std::string& kind) {
  static const std::set<std::string> kBlocks = {"switch",   "parallel", "pipeline",   "reflect",
                                                "for_each", "while",    "supervisor", "adaptive"};
  return kBlocks.count(kind) > 0;
}

std::string ChildEndedSignal(absl::string_view child_run_id) { return absl::StrCat(kChildEnded, child_run_id); }

absl::string_view EndedChild(const tutti::state::v1::JournalEntry& entry) {
  absl::string_view name = entry.signal_received().name();
  return absl::ConsumePrefix(&name, kChildEnded) ? name : absl::string_view();
}

absl::Status History::Add(const tutti::state::v1::JournalEntry& entry) {
  using tutti::state::v1::JournalEntry;
  progress_percent_ = std::max(progress_percent_, entry.progress_percent());
  last_seq_ = std::max(last_seq_, entry.seq());
  switch (entry.entry_case()) {
    case JournalEntry::kRunStarted:
      if (!started_) expression_version_ = entry.run_started().expression_version();
      started_ = true;
      break;
    case JournalEntry::kStepStarted: {
      const auto& started = entry.step_started();
      StepHistory& step = steps_[started.path()];
      step.started = true;
      step.start_time = std::min(step.start_time, FromProto(entry.time()));
      if (started.attempt() > step.failed_attempts)
        step.attempt_time = std::min(step.attempt_time, FromProto(entry.time()));
      compensated_ |= step_path::PassesThrough(started.path(), step_path::kCompensate);
      break;
    }
    case JournalEntry::kStepCompleted: {
      const auto& completed = entry.step_completed();
      StepHistory& step = steps_[completed.path()];
      step.skipped = completed.skipped();
      step.order = entry.seq();
      step.spent.Add(SpentBy(completed.usage()));
      if (completed.has_child_usage()) step.spent.Add(SpentBy(completed.child_usage()));
      // Also of the attempts whose failures a snapshot has left out.
      if (IsCall(completed.kind(), completed.target()) && !completed.skipped() && !completed.cached()) {
        step.spent.calls = std::max<int64_t>(step.spent.calls, completed.attempt());
      }
      TUTTI_ASSIGN_OR_RETURN(Json result, FromPayload(completed.result()));
      if (completed.kind() == "gate") Judged(completed.path(), result);
      step.result = std::make_shared<const Json>(std::move(result));
      step.result_bytes = completed.result().data().size();
      for (Signal& signal : signals_) signal.taken |= signal.seq == completed.signal_seq();
      // A failure that was caught here, or inside what has ended well, is nobody's to try again.
      Caught(completed.path());
      break;
    }
    case JournalEntry::kStepFailed: {
      const auto& failed = entry.step_failed();
      StepHistory& step = steps_[failed.path()];
      step.failed_attempts = std::max(step.failed_attempts, failed.attempt());
      step.last_error = FromRpcStatus(failed.error());
      step.retry_time = failed.has_retry_time() ? FromProto(failed.retry_time()) : absl::InfiniteFuture();
      step.waiting = false;
      step.attempt_time = absl::InfiniteFuture();
      step.spent.Add(SpentBy(failed.usage()));
      if (failed.has_child_usage()) step.spent.Add(SpentBy(failed.child_usage()));
      if (IsCall(failed.kind(), failed.target())) {
        step.spent.calls = std::max<int64_t>(step.spent.calls, failed.attempt());
      }
      if (failed.signal_seq() > 0) {
        for (Signal& signal : signals_) signal.taken |= signal.seq == failed.signal_seq();
      }
      if (step.failed_for_good()) kinds_[failed.path()] = failed.kind();
      break;
    }
    case JournalEntry::kStepWaiting: {
      const auto& waiting = entry.step_waiting();
      StepHistory& step = steps_[waiting.path()];
      step.waiting = true;
      step.wake_time = waiting.has_wake_time() ? FromProto(waiting.wake_time()) : absl::InfiniteFuture();
      step.child_run_id = waiting.child_run_id();
      break;
    }
    case JournalEntry::kSignalReceived: {
      if (!EndedChild(entry).empty()) {  // who waits for it looks for itself
        inbox_ = entry.seq();
        break;
      }
      TUTTI_ASSIGN_OR_RETURN(Json payload, FromPayload(entry.signal_received().payload()));
      signals_.push_back({entry.seq(), entry.signal_received().name(), entry.signal_received().sender(),
                          std::make_shared<const Json>(std::move(payload))});
      inbox_ = entry.seq();
      break;
    }
    case JournalEntry::kLoopCheckpoint: {
      TUTTI_ASSIGN_OR_RETURN(Json last, FromPayload(entry.loop_checkpoint().last()));
      loops_[entry.loop_checkpoint().path()] = {entry.loop_checkpoint().iteration(),
                                                std::make_shared<const Json>(std::move(last)),
                                                SpentBy(entry.loop_checkpoint().spent())};
      break;
    }
    case JournalEntry::kCancelRequested:
      cancel_requested_ = true;
      inbox_ = entry.seq();
      break;
    case JournalEntry::kPauseRequested:
      paused_ = true;
      inbox_ = entry.seq();
      break;
    case JournalEntry::kResumeRequested:
      paused_ = false;
      inbox_ = entry.seq();
      break;
    case JournalEntry::kRunReopened:
      Reopen(FromProto(entry.time()));
      break;
    case JournalEntry::kRunForked:
      for (auto& [path, step] : steps_) {
        step.inherited = step.result != nullptr;
        step.spent = Spent();  // the original has paid for it
      }
      for (auto& [path, loop] : loops_) loop.spent = Spent();
      break;
    case JournalEntry::kRunFinished:
      finished_ = true;
      break;
    default:
      break;
  }
  return absl::OkStatus();
}

void History::Caught(const std::string& path) {
  for (auto it = kinds_.begin(); it != kinds_.end();) {
    const bool instead = step_path::IsBelow(path, it->first, step_path::kFallback) ||
                         step_path::IsBelow(path, it->first, step_path::kOnError);
    it = step_path::IsAtOrBelow(it->first, path) || instead ? kinds_.erase(it) : std::next(it);
  }
  for (auto it = failed_gates_.begin(); it != failed_gates_.end();) {
    const bool instead = step_path::IsBelow(path, *it, step_path::kFallback) ||
                         step_path::IsBelow(path, *it, step_path::kOnError) ||
                         step_path::IsBelow(path, *it, absl::StrCat(step_path::kGateFallback, "/"));
    it = step_path::IsAtOrBelow(*it, path) || instead ? failed_gates_.erase(it) : std::next(it);
  }
}

// `stage/attempt-2/gate` is the gate of `stage`, `step/gated-2/gate` that of `step`.
void History::Judged(const std::string& gate_path, const Json& verdict) {
  std::string owner = step_path::Without(gate_path, step_path::kGate).value_or(gate_path);
  for (const char* again : {step_path::kAttempt, step_path::kGated}) {
    if (auto judged = step_path::Without(owner, again)) {
      owner = *std::move(judged);
      break;
    }
  }
  // A stage that was sent back to is visited again, and the later visit's verdict counts.
  const std::string stage = step_path::Without(owner, step_path::kVisit).value_or(owner);
  std::erase_if(failed_gates_, [&](const std::string& gate) {
    return gate == stage || step_path::Without(gate, step_path::kVisit) == stage;
  });
  if (!verdict.is_object() || !verdict.value("passed", false)) failed_gates_.insert(owner);
}

void History::Reopen(absl::Time time) {
  cancel_requested_ = paused_ = false;
  finished_ = false;
  reopen_time_ = time;
  for (const std::string& gate : failed_gates_) ++forgiven_gates_[gate];
  failed_gates_.clear();
  for (const auto& [path, kind] : kinds_) {
    StepHistory& step = steps_[path];
    step.retry_time = absl::InfinitePast();
    if (IsBlockKind(kind)) {
      --step.failed_attempts;  // its steps stand: the same attempt goes on
    } else {
      step.forgiven_attempts = step.failed_attempts;
    }
  }
  kinds_.clear();
}

bool History::IsBehind(const std::string& path) const {
  return step_path::AnyItem(path, [this](const std::string& loop_path, int64_t iteration) {
    const LoopHistory* loop = FindLoop(loop_path);
    return loop && iteration < loop->iteration;
  });
}

Spent History::SpentBelow(const std::string& path) const {
  Spent out;
  auto inside = [&](const std::string& other) {
    return (path.empty() || step_path::IsAtOrBelow(other, path)) &&
           !step_path::PassesThrough(other, step_path::kCompensate, path.size()) &&
           (loops_.empty() || !IsBehind(other));
  };
  for (auto it = steps_.lower_bound(path); it != steps_.end() && absl::StartsWith(it->first, path); ++it) {
    if (inside(it->first)) out.Add(it->second.spent);
  }
  for (auto it = loops_.lower_bound(path); it != loops_.end() && absl::StartsWith(it->first, path); ++it) {
    if (inside(it->first)) out.Add(it->second.spent);
  }
  return out;
}

const StepHistory* History::Find(const std::string& path) const {
  auto it = steps_.find(path);
  return it == steps_.end() ? nullptr : &it->second;
}

const LoopHistory* History::FindLoop(const std::string& path) const {
  auto it = loops_.find(path);
  return it == loops_.end() ? nullptr : &it->second;
}

bool History::KnowsBelow(const std::string& path) const {
  const std::string prefix = absl::StrCat(path, "/");
  auto it = steps_.lower_bound(prefix);
  return it != steps_.end() && absl::StartsWith(it->first, prefix);
}

}  // namespace tutti::engine
