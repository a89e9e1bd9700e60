// What one transaction of appends has to write; inside the journal only.
#pragma once

#include <string>
#include <vector>

#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/journal_entry.h"

namespace tutti::state_manager {

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

}  // namespace tutti::state_manager
