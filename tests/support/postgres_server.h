// A PostgreSQL of the test's own: installed from apt, data in a temporary folder, on a free port, durable as in
// production (fsync and synchronous_commit on).
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tutti::testing {

// The folder of PostgreSQL's programs; empty when it is not installed.
std::string PostgresBinDir();

class PostgresServer {
 public:
  // Makes and starts a server. `settings` are lines of postgresql.conf.
  static absl::StatusOr<std::unique_ptr<PostgresServer>> Start(const std::vector<std::string>& settings = {});
  // A hot standby that streams from this server.
  absl::StatusOr<std::unique_ptr<PostgresServer>> StartStandby();
  ~PostgresServer();

  // Connection string of a database.
  std::string Dsn(const std::string& database) const;
  // A new, empty database; its name.
  absl::StatusOr<std::string> NewDatabase(const std::string& template_name = "template0");
  // psql's output, or its error.
  absl::StatusOr<std::string> Sql(const std::string& database, const std::string& sql) const;
  int port() const { return port_; }
  const std::string& dir() const { return dir_; }

  absl::Status Stop(const std::string& mode);  // `fast`, `immediate`
  absl::Status StartAgain();
  // To every process of the server.
  void Signal(int signal) const;

 private:
  PostgresServer() = default;
  // Runs one of PostgreSQL's programs as a user that is not root.
  absl::StatusOr<std::string> Run(const std::string& command) const;
  absl::Status Launch();

  std::string dir_;
  int port_ = 0;
  int databases_ = 0;
};

// One server for all tests of a process, started when it is first asked for. Null: PostgreSQL is not installed.
PostgresServer* SharedPostgres();

}  // namespace tutti::testing
