// The tables, as numbered migrations. A migration never changes once released; a database newer than the program is
// refused.
#pragma once

#include "absl/status/status.h"
#include "services/state-manager/adapters/sqlite_db.h"

namespace tutti::state_manager {

// Brings the database to this program's version, in one transaction a migration.
absl::Status MigrateSqlite(SqliteDb& db);

}  // namespace tutti::state_manager
