// The tables, as numbered files in migrations/. A file never changes once released; a database newer than the program
// is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/state-manager/adapters/sqlite_db.h"

namespace tutti::state_manager {

struct Migration {
  int64_t version;
  const char* name;
  const char* sql;  // of all dialects: `--@sqlite`, `--@postgres` and `--@both` begin sections
};

// In order, from 1, without gaps. Generated from migrations/*.sql at build time.
const std::vector<Migration>& Migrations();
// The part of a migration that `dialect` runs.
std::string SqlOf(const Migration& migration, Dialect dialect);

struct MigrationTarget {
  static constexpr int64_t kLatest = std::numeric_limits<int64_t>::max();
  int64_t version = kLatest;
  // Told before each migration; with `dry_run` nothing else happens.
  std::function<void(const Migration&)> report;
  bool dry_run = false;
};

// FAILED_PRECONDITION: the database is newer than this program, or than the target. INVALID_ARGUMENT: this program does
// not know the target.
absl::Status CheckVersion(int64_t version, const MigrationTarget& target);
// The migrations from `version` to the target.
std::vector<Migration> Pending(int64_t version, const MigrationTarget& target);

// Brings the database to the target, one transaction a migration.
absl::Status MigrateSqlite(SqliteDb& db, const MigrationTarget& target);

}  // namespace tutti::state_manager
