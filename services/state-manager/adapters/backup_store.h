// Backup and restore of the store that the configuration names. Reads and writes the database itself, so that no
// service has to run; beside running ones a backup is a snapshot.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/state-manager/store/backup.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti::state_manager {

// Writes `file`, then reads it back into a scratch store and compares. NOT_FOUND: there is no store.
absl::StatusOr<RowCounts> BackUp(const tutti::config::v1::StateManager& config, const std::string& file);
// One transaction: all or nothing. FAILED_PRECONDITION: the store is not empty (and `replace` not said), or in use
// (SQLite).
absl::StatusOr<RowCounts> Restore(const tutti::config::v1::StateManager& config, const std::string& file, bool replace);

}  // namespace tutti::state_manager
