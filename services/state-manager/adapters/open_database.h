// The database that the configuration names.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/time/clock.h"
#include "services/state-manager/adapters/database_metrics.h"
#include "services/state-manager/adapters/migrator.h"
#include "services/state-manager/adapters/postgres_session.h"
#include "services/state-manager/ports/database.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti::state_manager {

struct OpenedDatabase {
  std::unique_ptr<Database> database;
  DatabaseMetrics* metrics = nullptr;  // the database's
  std::string description;             // without secrets
};

PostgresOptions ToPostgresOptions(const tutti::config::v1::StateManager& config);
// Opens and migrates. Errors name the flag to change.
absl::StatusOr<OpenedDatabase> OpenDatabase(const tutti::config::v1::StateManager& config, const Clock& clock,
                                            NewsListener& listener, DeferringWriter* deferrer = nullptr);
// The configuration of each database of the store, the home first; one when runs are not spread.
std::vector<tutti::config::v1::StateManager> ShardConfigs(const tutti::config::v1::StateManager& config);
// Brings the database to a version, or says what that would do, without serving. FAILED_PRECONDITION: it is in use
// (SQLite).
absl::Status MigrateDatabase(const tutti::config::v1::StateManager& config, const MigrationTarget& target);

}  // namespace tutti::state_manager
