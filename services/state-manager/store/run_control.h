// What callers do to runs from outside: stop, end, hold, signal, reopen, fork. Each is an entry of the run's journal
// that its owner has not written, and wakes whoever works on the run or could.
#pragma once

#include <string>
#include <vector>

#include "services/state-manager/store/bulk_writer.h"
#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/runs.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {

class RunControl {
 public:
  RunControl(const Payloads& payloads, const Runs& runs, const Journal& journal, const Outbox& outbox)
      : payloads_(payloads), runs_(runs), journal_(journal), outbox_(outbox) {}

  absl::Status RequestCancel(Transaction& tx, const v1::RequestCancelRequest& request,
                             v1::RequestCancelResponse& response) const;
  absl::Status TerminateRun(Transaction& tx, const v1::TerminateRunRequest& request,
                            v1::TerminateRunResponse& response) const;
  absl::Status SignalRun(Transaction& tx, const v1::SignalRunRequest& request, v1::SignalRunResponse& response) const;
  // Whether the run has had a signal of that request id.
  static absl::StatusOr<bool> HasSignal(Transaction& tx, const std::string& run_id, const std::string& request_id,
                                        int64_t* seq = nullptr);
  absl::Status SetRunPaused(Transaction& tx, const v1::SetRunPausedRequest& request,
                            v1::SetRunPausedResponse& response) const;
  absl::Status ReopenRun(Transaction& tx, const v1::ReopenRunRequest& request, v1::ReopenRunResponse& response) const;

  // What a fork from `from_step` begins with: the completed steps and caught failures before its first entry,
  // renumbered from 1, with their payloads. NOT_FOUND: no such run or step. FAILED_PRECONDITION: some of them were
  // undone since. RESOURCE_EXHAUSTED: more than a fork may copy.
  absl::StatusOr<std::vector<v1::JournalEntry>> EntriesBefore(Transaction& tx, const std::string& run_id,
                                                              const std::string& from_step) const;
  // Creates the run and its first entries.
  absl::Status ForkRun(Transaction& tx, const v1::ForkRunRequest& request, const std::vector<v1::JournalEntry>& entries,
                       v1::ForkRunResponse& response) const;

 private:
  struct Row {
    int64_t last_seq = 0, inbox = 0;
    std::string owner, status, parent_run_id;
    bool waiting = false, paused = false, cancel_requested = false;
    int progress_percent = 0;
    bool open() const { return status == "PENDING" || status == "RUNNING"; }
  };
  // Locks it. NOT_FOUND: no such run.
  static absl::StatusOr<Row> Lock(Transaction& tx, const std::string& run_id);
  // The steps that were undone after that entry, the one first done first.
  static absl::StatusOr<std::vector<std::string>> UndoneSteps(Transaction& tx, const std::string& run_id,
                                                              int64_t after);
  // As the journal's next entry.
  absl::Status Write(Transaction& tx, const std::string& run_id, Row& row, v1::JournalEntry entry) const;
  absl::Status Add(Transaction& tx, const std::string& run_id, Row& row, v1::JournalEntry entry,
                   BulkWriter& insert) const;
  // Whoever works on the run is told; one that waits outside memory may be claimed.
  static absl::Status Wake(Transaction& tx, const std::string& run_id, const Row& row);

  const Payloads& payloads_;
  const Runs& runs_;
  const Journal& journal_;
  const Outbox& outbox_;
};

}  // namespace tutti::state_manager
