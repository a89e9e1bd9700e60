// What the journal's parts share: the writes that wait, and what one transaction of them has to write.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"

#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/journal_entry.h"

namespace tutti::state_manager {

struct Journal::Creation {
  v1::CreateRunRequest request;  // moved away when it is deferred
  v1::CreateRunResponse response;
  absl::Status refusal;
  absl::AnyInvocable<void(absl::StatusOr<v1::CreateRunResponse>)> done;
};

// A write that waits: an append or, when it has one, a creation.
struct Journal::Item {
  v1::AppendRequest request;
  v1::AppendResponse response;
  bool ledger_elsewhere = false;
  absl::AnyInvocable<void(v1::AppendResponse)> done;
  std::unique_ptr<Creation> creation;
  std::string run_id;
  Remembered after;          // the run's head, if it was written
  int64_t seen_changes = 0;  // changes_by_others_ when it was
};

// A run's row, as far as an append needs it.
struct Journal::Head : Remembered {
  bool exists = false;
  int64_t seen_seq = 0, seen_writer_seq = 0;  // in the row, before this batch
  // What this batch adds.
  bool written = false;
  bool used = false;    // something was consumed
  bool turned = false;  // the status or the start time changed
  int64_t calls = 0, input_tokens = 0, output_tokens = 0, cost_nano_units = 0;
  bool parked = false;
  int64_t inbox_seen = 0, wake_after = 0, parked_time = 0;
  bool ended = false;
  std::string output, error;  // cells; empty: none
  int64_t error_code = 0, end_time = 0;
};

struct Journal::Batch {
  // A row of the journal. Texts are the request's.
  struct Row {
    absl::string_view run_id;
    int64_t seq, time;
    EntryKey key;
    std::string cell;
  };
  std::vector<Row> rows;
};

// Writes that are durable in a log and not in the tables yet.
struct Journal::Tail {
  struct Created {
    v1::CreateRunRequest request;
    int64_t time;
  };
  std::vector<Created> created;
  std::vector<v1::AppendRequest> appended;
  // The rows of the runs in `appended` as they are in the tables, or will be when `created` is.
  absl::flat_hash_map<std::string, Remembered> heads;
  absl::flat_hash_set<std::string> request_keys;  // of `created`
  size_t rows = 0;
  // Of the next one only: whose requests it takes when they are durable.
  std::vector<Item*> items;
};

}  // namespace tutti::state_manager
