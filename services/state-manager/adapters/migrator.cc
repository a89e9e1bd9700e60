#include "services/state-manager/adapters/migrator.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {

std::string SqlOf(const Migration& migration, Dialect dialect) {
  std::string out;
  bool wanted = true;
  for (absl::string_view line : absl::StrSplit(migration.sql, '\n')) {
    if (absl::StartsWith(line, "--@")) {
      absl::string_view section = line.substr(3);
      wanted = section == "both" || section == (dialect == Dialect::kSqlite ? "sqlite" : "postgres");
    } else if (wanted) {
      absl::StrAppend(&out, line, "\n");
    }
  }
  if (dialect == Dialect::kSqlite) return ToSqlite(out);
  // Ids and scopes sort by bytes, on every server and in every locale: pages and ranges depend on it.
  return absl::StrReplaceAll(out, {{" TEXT", " TEXT COLLATE \"C\""}});
}

absl::Status CheckVersion(int64_t version, const MigrationTarget& target) {
  const auto known = static_cast<int64_t>(Migrations().size());
  if (target.version != MigrationTarget::kLatest && target.version > known) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no schema version ", target.version, "; this program knows up to ", known));
  }
  if (version > known) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATABASE_TOO_NEW",
                 absl::StrCat("the database is of schema version ", version, ", this program knows up to ", known,
                              "; use the newer program"));
  }
  if (version > target.version) {
    return Error(absl::StatusCode::kFailedPrecondition, "DATABASE_TOO_NEW",
                 absl::StrCat("the database is of schema version ", version, ", past ", target.version,
                              "; there is no way back but a backup made before, restored by the older program"));
  }
  return absl::OkStatus();
}

std::vector<Migration> Pending(int64_t version, const MigrationTarget& target) {
  std::vector<Migration> out;
  for (const Migration& migration : Migrations()) {
    if (migration.version > version && migration.version <= target.version) out.push_back(migration);
  }
  return out;
}

absl::Status MigrateSqlite(SqliteDb& db, const MigrationTarget& target) {
  int64_t version = 0;
  {
    Statement current = db.Prepare("PRAGMA user_version");
    if (current.Step()) version = current.Int(0);
    TUTTI_RETURN_IF_ERROR(current.status());
  }
  TUTTI_RETURN_IF_ERROR(CheckVersion(version, target));
  if (version > 0) {
    Statement check = db.Prepare("PRAGMA quick_check(1)");
    if (!check.Step()) return check.status();
    if (check.Text(0) != "ok") {
      return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
                   absl::StrCat("the database is damaged (", check.Text(0),
                                "). It is left as it is. Restore it from a backup, or choose another folder with "
                                "--state-manager.data-dir"));
    }
  }
  for (const Migration& migration : Pending(version, target)) {
    if (target.report) target.report(migration);
    if (target.dry_run) continue;
    absl::Status status = db.Begin();
    if (status.ok()) status = db.Execute(SqlOf(migration, Dialect::kSqlite));
    if (status.ok()) status = db.Execute(absl::StrCat("PRAGMA user_version = ", migration.version));
    if (status.ok()) status = db.Commit();
    if (!status.ok()) {
      db.Rollback();
      return Prefix(status, absl::StrCat("migration ", migration.version, " (", migration.name, "): "));
    }
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
