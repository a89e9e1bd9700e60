// What reading and writing journals share.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "tutti/state/v1/journal.pb.h"

namespace tutti::state_manager {

// The payload in an entry that may be large; null when it has none.
inline tutti::type::v1::Payload* PayloadOf(tutti::state::v1::JournalEntry& entry) {
  if (entry.has_step_completed()) return entry.mutable_step_completed()->mutable_result();
  if (entry.has_run_finished() && entry.run_finished().has_output())
    return entry.mutable_run_finished()->mutable_output();
  return nullptr;
}

// Where an entry's cell belongs.
inline std::string PlaceOf(const std::string& run_id, int64_t seq) {
  return absl::StrCat("runs/", run_id, "/journal/", seq);
}

}  // namespace tutti::state_manager
