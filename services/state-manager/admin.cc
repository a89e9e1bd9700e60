#include "services/state-manager/admin.h"

#include <cstdlib>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/config/load_config.h"
#include "runtime/process/service_main.h"
#include "runtime/status/error.h"
#include "services/state-manager/adapters/backup_store.h"
#include "services/state-manager/adapters/open_database.h"

namespace tutti::state_manager {
namespace {

int Fail(const absl::Status& status, int code) {
  std::cerr << "error: " << status.message() << "\n";
  return code;
}

void Print(const char* what, const RowCounts& counts) {
  int64_t rows = 0;
  for (const auto& [table, count] : counts) rows += count;
  std::cout << what << rows << " rows: " << counts.at("runs") << " runs, " << counts.at("journal")
            << " journal entries, " << counts.at("memories") << " memories, " << counts.at("messages") << " messages, "
            << counts.at("audit_log") << " audit records\n";
}

int Migrate(const tutti::config::v1::Config& config, const MigrationTarget& given) {
  MigrationTarget target = given;
  int64_t count = 0;
  target.report = [&](const Migration& migration) {
    ++count;
    std::cout << (target.dry_run ? "would apply " : "applying ") << migration.version << " " << migration.name << "\n";
  };
  for (const auto& database : ShardConfigs(config.state_manager())) {
    absl::Status status = MigrateDatabase(database, target);
    if (!status.ok()) return Fail(status, 1);
  }
  if (count == 0) std::cout << "nothing to apply\n";
  return 0;
}

}  // namespace

bool IsAdminCommand(const std::string& command) {
  return command == "backup" || command == "restore" || command == "migrate";
}

std::string AdminHelp() {
  return "  backup FILE             a consistent copy of the store, while it is in use or not; checked by restoring "
         "it;\n"
         "                          of a store spread over databases FILE, FILE.1 …, each consistent in itself\n"
         "  restore FILE [--force]  into an empty store, or with --force in place of what it holds\n"
         "  migrate [--dry-run] [--to N]  bring the database to this program's version, or to version N\n"
         "The store is named as for the service: --state-manager.data-dir, --state-manager.postgres.dsn, --config, "
         "TUTTI_*.\n";
}

int AdminMain(const std::string& command, const std::vector<std::string>& args) {
  std::vector<std::string> flags, names;
  bool force = false;
  MigrationTarget target;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--help" || arg == "-h") {
      std::cout << AdminHelp();
      return 0;
    }
    if (arg == "--force" && command == "restore") {
      force = true;
    } else if (arg == "--dry-run" && command == "migrate") {
      target.dry_run = true;
    } else if (command == "migrate" && (arg == "--to" || absl::StartsWith(arg, "--to="))) {
      std::string value = arg == "--to" ? (++i < args.size() ? args[i] : "") : arg.substr(5);
      if (!absl::SimpleAtoi(value, &target.version) || target.version < 1) {
        return Fail(absl::InvalidArgumentError("--to needs a version, from 1"), 2);
      }
    } else if (absl::StartsWith(arg, "--")) {
      flags.push_back(arg);
      if (!absl::StrContains(arg, "=") && i + 1 < args.size() && !absl::StartsWith(args[i + 1], "--")) {
        flags.push_back(args[++i]);
      }
    } else {
      names.push_back(arg);
    }
  }
  if (names.size() != (command == "migrate" ? 0U : 1U)) {
    std::cerr << "error: " << command << (command == "migrate" ? " takes no file\n" : " needs one file\n")
              << AdminHelp();
    return 2;
  }
  auto loaded = LoadConfig(flags, getenv, EnvironmentNames());
  if (!loaded.ok()) return Fail(loaded.status(), 2);
  const auto& config = loaded->config;
  if (command == "migrate") return Migrate(config, target);
  // Of a store that is spread over databases each has a file of its own: FILE, FILE.1, FILE.2 …
  auto databases = ShardConfigs(config.state_manager());
  // The home is saved last: what the others have sent to it is then in its copy, or still in theirs.
  for (size_t n = 0; n < databases.size(); ++n) {
    const size_t i = databases.size() - 1 - n;
    const std::string file = i == 0 ? names[0] : absl::StrCat(names[0], ".", i);
    auto counts = command == "backup" ? BackUp(databases[i], file) : Restore(databases[i], file, force);
    if (!counts.ok()) return Fail(Prefix(counts.status(), databases.size() > 1 ? absl::StrCat(file, ": ") : ""), 1);
    if (databases.size() > 1) std::cout << file << ": ";
    Print(command == "backup" ? "saved and checked " : "restored ", *counts);
  }
  return 0;
}

}  // namespace tutti::state_manager
