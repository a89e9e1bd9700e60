#include "services/state-manager/store/run_control.h"

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/state-manager/domain/child_end.h"
#include "services/state-manager/store/journal_entry.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

// Of one run, over its whole life: a loop that is signalled for ever belongs into a new run now and then.
constexpr int64_t kMostSignals = 10000;
constexpr int64_t kMostSignalsOfName = 1000;
constexpr size_t kMostForkedEntries = 10000;
constexpr size_t kMostForkedBytes = size_t{64} << 20;

absl::Status Ended(const std::string& run_id, const std::string& status) {
  return Error(absl::StatusCode::kFailedPrecondition, "RUN_ENDED",
               absl::StrCat("run ", run_id, " has ended (", status, ")"))
      .Metadata("run_id", run_id);
}

}  // namespace

absl::StatusOr<RunControl::Row> RunControl::Lock(Transaction& tx, const std::string& run_id) {
  Statement row = tx.Prepare(
      "SELECT last_seq, inbox, owner, status, waiting, paused, cancel_requested, progress_percent, "
      "parent_run_id FROM runs WHERE run_id = $1 FOR UPDATE");
  row.Bind(run_id);
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    return RunNotFound(run_id);
  }
  Row out;
  out.last_seq = row.Int(0);
  out.inbox = row.Int(1);
  out.owner = row.Text(2);
  out.status = row.Text(3);
  out.waiting = row.Int(4) != 0;
  out.paused = row.Int(5) != 0;
  out.cancel_requested = row.Int(6) != 0;
  out.progress_percent = static_cast<int>(row.Int(7));
  out.parent_run_id = row.Text(8);
  return out;
}

absl::Status RunControl::Write(Transaction& tx, const std::string& run_id, Row& row, v1::JournalEntry entry) const {
  BulkWriter insert(tx, kInsertEntry);
  TUTTI_RETURN_IF_ERROR(Add(tx, run_id, row, std::move(entry), insert));
  return insert.Flush();
}

absl::Status RunControl::Add(Transaction& tx, const std::string& run_id, Row& row, v1::JournalEntry entry,
                             BulkWriter& insert) const {
  entry.set_seq(++row.last_seq);
  entry.set_progress_percent(row.progress_percent);
  if (!entry.has_time()) SetMicros(tx.NowMicros(), entry.mutable_time());
  if (auto* payload = PayloadOf(entry); payload != nullptr && payload->data().size() > Payloads::kInline) {
    TUTTI_ASSIGN_OR_RETURN(*payload->mutable_hash(),
                           payloads_.PutShared(tx, absl::StrCat("runs/", run_id), payload->data()));
    payload->clear_data();
  }
  std::string cell = payloads_.codec().Seal(entry.SerializeAsString(), PlaceOf(run_id, entry.seq()));
  EntryKey key = KeyOf(entry);
  return insert.Add(run_id, entry.seq(), ToMicros(entry.time()), key.kind, key.path, key.step_kind, key.attempt,
                    key.target, key.error_code, SqlArg::Bytes(cell));
}

absl::Status RunControl::Wake(Transaction& tx, const std::string& run_id, const Row& row) {
  tx.Announce({News::Kind::kRun, run_id, ""});
  tx.Announce(row.owner.empty() ? News{News::Kind::kClaimable, "", ""} : News{News::Kind::kInbox, run_id, row.owner});
  return tx.Prepare("UPDATE runs SET last_seq = $2, inbox = $2, waiting = 0, wake_time = 0 WHERE run_id = $1")
      .BindAll(run_id, row.last_seq)
      .Run();
}

absl::Status RunControl::RequestCancel(Transaction& tx, const v1::RequestCancelRequest& request,
                                       v1::RequestCancelResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Lock(tx, request.run_id()));
  if (row.open() && !row.cancel_requested) {
    v1::JournalEntry entry;
    entry.mutable_cancel_requested()->set_reason(request.reason());
    TUTTI_RETURN_IF_ERROR(Write(tx, request.run_id(), row, std::move(entry)));
    TUTTI_RETURN_IF_ERROR(
        tx.Prepare("UPDATE runs SET cancel_requested = 1 WHERE run_id = $1").BindAll(request.run_id()).Run());
    TUTTI_RETURN_IF_ERROR(Wake(tx, request.run_id(), row));
    tx.Announce({News::Kind::kCancel, request.run_id(), row.owner});
  }
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_run(), runs_.Load(tx, request.run_id()));
  return absl::OkStatus();
}

absl::Status RunControl::TerminateRun(Transaction& tx, const v1::TerminateRunRequest& request,
                                      v1::TerminateRunResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Lock(tx, request.run_id()));
  if (row.open()) {
    absl::Status why =
        Error(absl::StatusCode::kCancelled, "RUN_TERMINATED",
              absl::StrCat("the run was terminated", request.reason().empty() ? "" : ": ", request.reason()));
    v1::JournalEntry entry;
    entry.mutable_run_finished()->set_outcome(v1::OUTCOME_CANCELLED);
    *entry.mutable_run_finished()->mutable_error() = ToRpcStatus(why);
    std::string error = payloads_.codec().Seal(entry.run_finished().error().SerializeAsString(),
                                               absl::StrCat("runs/", request.run_id(), "/error"));
    TUTTI_RETURN_IF_ERROR(Write(tx, request.run_id(), row, std::move(entry)));
    // Under a new epoch: who works on it can write nothing more.
    Statement end = tx.Prepare(
        "UPDATE runs SET status = 'CANCELLED', error = $2, error_code = $3, end_time = $4, last_seq = $5, owner = '', "
        "owner_incarnation = '', lease_epoch = lease_epoch + 1, waiting = 0, wake_time = 0 WHERE run_id = $1");
    end.BindAll(request.run_id(), SqlArg::Bytes(error), static_cast<int64_t>(why.code()), tx.NowMicros(), row.last_seq);
    TUTTI_RETURN_IF_ERROR(end.Run());
    if (!row.parent_run_id.empty()) {
      TUTTI_RETURN_IF_ERROR(outbox_.TellParent(tx, row.parent_run_id, request.run_id()));
    }
    tx.Announce({News::Kind::kRun, request.run_id(), ""});
    if (!row.owner.empty()) tx.Announce({News::Kind::kEnded, request.run_id(), row.owner});
  }
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_run(), runs_.Load(tx, request.run_id()));
  return absl::OkStatus();
}

absl::StatusOr<bool> RunControl::HasSignal(Transaction& tx, const std::string& run_id, const std::string& request_id,
                                           int64_t* seq) {
  Statement before =
      tx.Prepare("SELECT seq FROM journal WHERE run_id = $1 AND target = $2 AND kind = 'signal_received'");
  before.BindAll(run_id, request_id);
  const bool there = before.Step();
  if (there && seq) *seq = before.Int(0);
  TUTTI_RETURN_IF_ERROR(before.status());
  return there;
}

absl::Status RunControl::SignalRun(Transaction& tx, const v1::SignalRunRequest& request,
                                   v1::SignalRunResponse& response) const {
  TUTTI_RETURN_IF_ERROR(CheckText("signal.name", request.signal().name(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckText("signal.request_id", request.signal().request_id(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("signal.sender", request.signal().sender(), 200));
  TUTTI_ASSIGN_OR_RETURN(Row row, Lock(tx, request.run_id()));
  if (!request.signal().request_id().empty()) {
    int64_t seq = 0;
    TUTTI_ASSIGN_OR_RETURN(bool before, HasSignal(tx, request.run_id(), request.signal().request_id(), &seq));
    if (before) {
      response.set_seq(seq);
      return absl::OkStatus();
    }
  }
  if (!row.open()) return Ended(request.run_id(), row.status);
  const bool child = IsChildEnd(request.signal().name());  // a child's end: as many as there are
  if (row.inbox > 0 && !child) {
    Statement count = tx.Prepare(
        "SELECT count(*), count(CASE WHEN step_kind = $2 THEN 1 END) FROM journal WHERE run_id = $1 AND kind = "
        "'signal_received' AND NOT (target LIKE 'child/%')");
    count.BindAll(request.run_id(), request.signal().name());
    const bool counted = count.Step();
    const bool full = counted && count.Int(0) >= kMostSignals;
    const bool full_of_name = counted && count.Int(1) >= kMostSignalsOfName;
    TUTTI_RETURN_IF_ERROR(count.status());
    if (full_of_name) {
      return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_SIGNALS",
                   absl::StrCat("run ", request.run_id(), " has had ", kMostSignalsOfName, " signals named ",
                                request.signal().name(), ", the most a run may have of one name"));
    }
    if (full) {
      return Error(
          absl::StatusCode::kResourceExhausted, "TOO_MANY_SIGNALS",
          absl::StrCat("run ", request.run_id(), " has had ", kMostSignals, " signals, the most a run may have"));
    }
  }
  v1::JournalEntry entry;
  *entry.mutable_signal_received() = request.signal();
  TUTTI_RETURN_IF_ERROR(Write(tx, request.run_id(), row, std::move(entry)));
  response.set_seq(row.last_seq);
  return Wake(tx, request.run_id(), row);
}

absl::Status RunControl::SetRunPaused(Transaction& tx, const v1::SetRunPausedRequest& request,
                                      v1::SetRunPausedResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Lock(tx, request.run_id()));
  if (!row.open()) return Ended(request.run_id(), row.status);
  if (row.paused != request.paused()) {
    v1::JournalEntry entry;
    if (request.paused()) {
      entry.mutable_pause_requested()->set_reason(request.reason());
    } else {
      entry.mutable_resume_requested();
    }
    TUTTI_RETURN_IF_ERROR(Write(tx, request.run_id(), row, std::move(entry)));
    TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE runs SET paused = $2 WHERE run_id = $1")
                              .BindAll(request.run_id(), request.paused() ? 1 : 0)
                              .Run());
    TUTTI_RETURN_IF_ERROR(Wake(tx, request.run_id(), row));
  }
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_run(), runs_.Load(tx, request.run_id()));
  return absl::OkStatus();
}

absl::Status RunControl::ReopenRun(Transaction& tx, const v1::ReopenRunRequest& request,
                                   v1::ReopenRunResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Lock(tx, request.run_id()));
  if (!row.open()) {
    if (row.status != "FAILED") {
      return Error(absl::StatusCode::kFailedPrecondition, "RUN_NOT_FAILED",
                   absl::StrCat("run ", request.run_id(), " has not failed, it is ", row.status));
    }
    TUTTI_ASSIGN_OR_RETURN(std::vector<std::string> undone, UndoneSteps(tx, request.run_id(), 0));
    if (!undone.empty()) {
      return Error(
                 absl::StatusCode::kFailedPrecondition, "RUN_COMPENSATED",
                 absl::StrCat("what run ", request.run_id(), " had done was undone when it failed; fork it from step ",
                              undone.front(), ", the first of them"))
          .Metadata("step", undone.front());
    }
    Statement handled = tx.Prepare("SELECT 1 FROM journal WHERE run_id = $1 AND path LIKE 'on-error-%' LIMIT 1");
    handled.Bind(request.run_id());
    const bool was_handled = handled.Step();
    TUTTI_RETURN_IF_ERROR(handled.status());
    if (was_handled) {
      return Error(
          absl::StatusCode::kFailedPrecondition, "RUN_HANDLED",
          absl::StrCat("the failure of run ", request.run_id(), " was handled by its on_error; fork it instead"));
    }
    Statement end = tx.Prepare("SELECT 1 FROM journal WHERE run_id = $1 AND seq = $2 AND kind = 'run_finished'");
    end.BindAll(request.run_id(), row.last_seq);
    const bool whole = end.Step();
    TUTTI_RETURN_IF_ERROR(end.status());
    if (!whole) {
      return Error(absl::StatusCode::kFailedPrecondition, "RUN_EXPIRED",
                   absl::StrCat("run ", request.run_id(), " is past its retention and is being removed"));
    }
    v1::JournalEntry entry;
    entry.mutable_run_reopened();
    TUTTI_RETURN_IF_ERROR(Write(tx, request.run_id(), row, std::move(entry)));
    Statement open = tx.Prepare(
        "UPDATE runs SET status = 'RUNNING', error = NULL, error_code = 0, end_time = 0, last_seq = $2, "
        "cancel_requested = "
        "0, paused = 0, owner = '', "
        "owner_incarnation = '', lease_epoch = lease_epoch + 1, waiting = 0, wake_time = 0 WHERE run_id = $1");
    TUTTI_RETURN_IF_ERROR(open.BindAll(request.run_id(), row.last_seq).Run());
    tx.Announce({News::Kind::kRun, request.run_id(), ""});
    tx.Announce({News::Kind::kClaimable, "", ""});
  }
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_run(), runs_.Load(tx, request.run_id()));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> RunControl::UndoneSteps(Transaction& tx, const std::string& run_id,
                                                                 int64_t after) {
  // They are undone in reverse order. What the run's handler did is undone after all, and nothing goes on from there.
  Statement rows = tx.Prepare(
      "SELECT path FROM journal WHERE run_id = $1 AND seq > $2 AND path LIKE '%/compensate/%' AND NOT (path LIKE "
      "'on-error-%') ORDER BY seq DESC");
  rows.BindAll(run_id, after);
  std::vector<std::string> out;
  while (rows.Step()) {
    const std::string path = rows.Text(0);
    std::string step = path.substr(0, path.find("/compensate/"));
    if (out.empty() || out.back() != step) out.push_back(std::move(step));
  }
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::StatusOr<std::vector<v1::JournalEntry>> RunControl::EntriesBefore(Transaction& tx, const std::string& run_id,
                                                                        const std::string& from_step) const {
  std::vector<v1::JournalEntry> out;
  std::map<int64_t, int64_t> renumbered;
  std::set<std::string> completed;
  size_t bytes = 0;
  bool found = from_step.empty();
  for (int64_t after = 0; !from_step.empty();) {
    TUTTI_ASSIGN_OR_RETURN(v1::ReadJournalResponse page, journal_.ReadPage(tx, run_id, after, 1000));
    if (page.entries().empty()) break;
    after = page.entries().rbegin()->seq();
    for (auto& entry : *page.mutable_entries()) {
      EntryKey key = KeyOf(entry);
      if (step_path::IsAtOrBelow(std::string(key.path), from_step)) {
        found = true;
        TUTTI_ASSIGN_OR_RETURN(std::vector<std::string> undone, UndoneSteps(tx, run_id, entry.seq()));
        for (const std::string& step : undone) {
          auto below = completed.lower_bound(step + "/");
          const bool inherited =
              completed.count(step) > 0 || (below != completed.end() && step_path::IsAtOrBelow(*below, step));
          if (!inherited) continue;
          return Error(absl::StatusCode::kFailedPrecondition, "STEP_UNDONE",
                       absl::StrCat("what step ", step, " of run ", run_id, " had done was undone since; fork from ",
                                    step, ", which comes before ", from_step))
              .Metadata("step", step);
        }
        break;
      }
      if (entry.has_step_completed()) completed.insert(entry.step_completed().path());
      bool keep = entry.has_step_completed() || entry.has_step_failed() || entry.has_signal_received() ||
                  entry.has_loop_checkpoint() || entry.has_run_reopened();
      if (!keep) continue;
      renumbered[entry.seq()] = static_cast<int64_t>(out.size()) + 1;
      entry.set_seq(static_cast<int64_t>(out.size()) + 1);
      if (entry.has_step_completed()) {
        auto& completed = *entry.mutable_step_completed();
        completed.clear_usage();  // the original has paid for it
        completed.clear_child_usage();
        if (completed.signal_seq() > 0) completed.set_signal_seq(renumbered[completed.signal_seq()]);
      }
      if (entry.has_step_failed()) {
        entry.mutable_step_failed()->clear_usage();
        entry.mutable_step_failed()->clear_child_usage();
      }
      bytes += entry.ByteSizeLong();
      out.push_back(std::move(entry));
      if (out.size() > kMostForkedEntries || bytes > kMostForkedBytes) {
        return Error(absl::StatusCode::kResourceExhausted, "FORK_TOO_LARGE",
                     absl::StrCat("a fork copies at most ", kMostForkedEntries, " entries and ", kMostForkedBytes,
                                  " bytes; fork from an earlier step"));
      }
    }
    if (found) break;
  }
  if (!found) {
    return Error(absl::StatusCode::kNotFound, "STEP_NOT_FOUND",
                 absl::StrCat("run ", run_id, " has begun no step ", from_step, "; `tutti runs get ", run_id,
                              "` shows those it has"));
  }
  return out;
}

absl::Status RunControl::ForkRun(Transaction& tx, const v1::ForkRunRequest& request,
                                 const std::vector<v1::JournalEntry>& entries, v1::ForkRunResponse& response) const {
  v1::CreateRunRequest create;
  *create.mutable_run() = request.run();
  v1::CreateRunResponse created;
  TUTTI_RETURN_IF_ERROR(runs_.CreateRun(tx, create, created));
  response.set_created(created.created());
  *response.mutable_run() = std::move(*created.mutable_run());
  if (!created.created()) return absl::OkStatus();
  const std::string& run_id = response.run().run_id();
  TUTTI_ASSIGN_OR_RETURN(Row row, Lock(tx, run_id));
  if (row.last_seq > 0) return absl::OkStatus();  // the same fork, asked for again: its answer was lost
  BulkWriter insert(tx, kInsertEntry);
  for (const auto& entry : entries) TUTTI_RETURN_IF_ERROR(Add(tx, run_id, row, entry, insert));
  TUTTI_RETURN_IF_ERROR(insert.Flush());
  v1::JournalEntry forked;
  forked.mutable_run_forked()->set_run_id(request.run_id());
  forked.mutable_run_forked()->set_from_step(request.from_step());
  TUTTI_RETURN_IF_ERROR(Write(tx, run_id, row, std::move(forked)));
  return tx.Prepare("UPDATE runs SET last_seq = $2 WHERE run_id = $1").BindAll(run_id, row.last_seq).Run();
}

}  // namespace tutti::state_manager
