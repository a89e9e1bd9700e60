// What reading and writing journals share: an entry's payload, its place, and what stands in the columns beside it.
#pragma once

#include <string>

#include "services/state-manager/store/bulk_writer.h"
#include "tutti/state/v1/journal_service.pb.h"

namespace tutti::state_manager {

// The payload in an entry that may be large; null when it has none.
tutti::type::v1::Payload* PayloadOf(tutti::state::v1::JournalEntry& entry);

// Where an entry's cell belongs.
std::string PlaceOf(const std::string& run_id, int64_t seq);

// What the journal's columns say of an entry. Texts are the entry's.
struct EntryKey {
  const char* kind;
  absl::string_view path, step_kind, target;
  int attempt = 0;
  int error_code = 0;
  // What the entry's step consumed; never null.
  const google::protobuf::RepeatedPtrField<tutti::type::v1::ModelUsage>* usage =
      &tutti::state::v1::StepCompleted::default_instance().usage();
};
EntryKey KeyOf(const tutti::state::v1::JournalEntry& entry);

// What no database takes, or no journal means.
absl::Status CheckForm(const tutti::state::v1::AppendRequest& request);

inline constexpr BulkWriter::Shape kInsertEntry = {
    "INSERT INTO journal (run_id, seq, time, kind, path, step_kind, attempt, target, error_code, entry) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ""};

}  // namespace tutti::state_manager
