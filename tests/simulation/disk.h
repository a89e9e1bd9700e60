// The database of a simulated suite: SQLite in memory, which any number of state-managers work on as they do on
// PostgreSQL. It takes its time, is away now and then, and loses the answer to a commit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/state-manager/adapters/open_database.h"
#include "services/state-manager/adapters/sqlite_db.h"
#include "services/state-manager/adapters/sqlite_writer.h"
#include "tests/simulation/world.h"

namespace tutti::simulation {

class Disk {
 public:
  explicit Disk(World& world);

  // A state-manager's database. `process` outlives it.
  absl::StatusOr<state_manager::OpenedDatabase> Open(Process& process, state_manager::NewsListener& listener);
  // The state-manager has started: from now on what it asks for takes time.
  void Settle() { starting_ = false; }
  void Starting() { starting_ = true; }
  // What the process had asked for and was not done never is.
  void Drop(Process& process);

  bool away = false;
  double unanswered = 0;  // of commits
  double news_lost = 0;
  state_manager::SqliteDb& db() { return *db_; }

 private:
  class Front;

  World& world_;
  std::unique_ptr<state_manager::SqliteDb> db_;
  state_manager::DatabaseMetrics metrics_;
  std::unique_ptr<state_manager::SqliteWriter> writer_;
  bool starting_ = false;
  std::vector<Front*> fronts_;
  std::vector<state_manager::News> committed_;  // by the batch that is being written
};

}  // namespace tutti::simulation
