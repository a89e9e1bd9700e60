#include "tests/support/postgres_server.h"

#include <pwd.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "runtime/status/macros.h"
#include "tests/support/ports.h"

namespace tutti::testing {
namespace {

std::string Quote(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

absl::StatusOr<std::string> Shell(const std::string& command) {
  std::string out;
  std::array<char, 4096> buffer;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return absl::InternalError("popen failed");
  while (size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) out.append(buffer.data(), n);
  int code = pclose(pipe);
  absl::StripTrailingAsciiWhitespace(&out);
  if (code != 0) return absl::InternalError(absl::StrCat(command, ": ", out));
  return out;
}

}  // namespace

std::string PostgresBinDir() {
  for (int version : {15, 16, 17, 18, 14}) {
    std::string dir = absl::StrCat("/usr/lib/postgresql/", version, "/bin");
    if (std::filesystem::exists(dir + "/initdb")) return dir;
  }
  return "";
}

absl::StatusOr<std::string> PostgresServer::Run(const std::string& command) const {
  std::string full = absl::StrCat("cd ", dir_, " && ", PostgresBinDir(), "/", command);
  if (geteuid() == 0) full = absl::StrCat("runuser -u postgres -- sh -c ", Quote(full));
  return Shell(full);
}

absl::StatusOr<std::unique_ptr<PostgresServer>> PostgresServer::Start(const std::vector<std::string>& settings) {
  if (PostgresBinDir().empty()) return absl::NotFoundError("PostgreSQL is not installed (apt install postgresql)");
  std::unique_ptr<PostgresServer> out(new PostgresServer());
  std::string name = absl::StrCat(std::filesystem::temp_directory_path().string(), "/tutti_pg_XXXXXX");
  if (!mkdtemp(name.data())) return absl::InternalError("mkdtemp failed");
  out->dir_ = name;
  if (geteuid() == 0) {
    passwd* user = getpwnam("postgres");
    if (!user || chown(name.c_str(), user->pw_uid, user->pw_gid) != 0) return absl::InternalError("chown failed");
  }
  out->port_ = FreePort();
  TUTTI_RETURN_IF_ERROR(out->Run("initdb -D data -A trust -U postgres --locale=C.UTF-8 -E UTF8 -N").status());
  {
    std::ofstream conf(name + "/data/postgresql.conf", std::ios::app);
    conf << "listen_addresses = '127.0.0.1'\nport = " << out->port_ << "\nunix_socket_directories = '" << name
         << "'\nmax_connections = 200\nshared_buffers = 64MB\nmax_wal_senders = 4\nwal_level = replica\n";
    for (const auto& line : settings) conf << line << "\n";
  }
  TUTTI_RETURN_IF_ERROR(out->Launch());
  return out;
}

absl::StatusOr<std::unique_ptr<PostgresServer>> PostgresServer::StartStandby() {
  std::unique_ptr<PostgresServer> out(new PostgresServer());
  std::string name = absl::StrCat(std::filesystem::temp_directory_path().string(), "/tutti_pg_XXXXXX");
  if (!mkdtemp(name.data())) return absl::InternalError("mkdtemp failed");
  out->dir_ = name;
  if (geteuid() == 0) {
    passwd* user = getpwnam("postgres");
    if (!user || chown(name.c_str(), user->pw_uid, user->pw_gid) != 0) return absl::InternalError("chown failed");
  }
  out->port_ = FreePort();
  TUTTI_RETURN_IF_ERROR(
      out->Run(absl::StrCat("pg_basebackup -D data -R -c fast -X stream -h 127.0.0.1 -U postgres -p ", port_))
          .status());
  std::ofstream(name + "/data/postgresql.conf", std::ios::app)
      << "port = " << out->port_ << "\nunix_socket_directories = '" << name << "'\nhot_standby = on\n";
  TUTTI_RETURN_IF_ERROR(out->Launch());
  return out;
}

absl::Status PostgresServer::Launch() { return Run("pg_ctl -D data -l log -w -t 60 start >/dev/null").status(); }
absl::Status PostgresServer::StartAgain() { return Launch(); }
absl::Status PostgresServer::Stop(const std::string& mode) {
  return Run(absl::StrCat("pg_ctl -D data -m ", mode, " -w stop")).status();
}

PostgresServer::~PostgresServer() {
  if (dir_.empty()) return;
  Signal(SIGCONT);
  (void)Stop("immediate");
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
}

void PostgresServer::Signal(int signal) const {
  std::ifstream in(dir_ + "/data/postmaster.pid");
  int pid = 0;
  if (!(in >> pid)) return;
  auto children = Shell(absl::StrCat("pgrep -P ", pid));
  kill(pid, signal);
  if (!children.ok()) return;
  for (absl::string_view line : absl::StrSplit(*children, '\n')) {
    int child = 0;
    if (absl::SimpleAtoi(line, &child)) kill(child, signal);
  }
}

std::string PostgresServer::Dsn(const std::string& database) const {
  return absl::StrCat("host=127.0.0.1 port=", port_, " user=postgres dbname=", database);
}

absl::StatusOr<std::string> PostgresServer::Sql(const std::string& database, const std::string& sql) const {
  return Shell(
      absl::StrCat(PostgresBinDir(), "/psql -qAtX -v ON_ERROR_STOP=1 -d ", Quote(Dsn(database)), " -c ", Quote(sql)));
}

absl::StatusOr<std::string> PostgresServer::NewDatabase(const std::string& template_name) {
  std::string name = absl::StrCat("t", ++databases_);
  TUTTI_RETURN_IF_ERROR(Sql("postgres", absl::StrCat("CREATE DATABASE ", name, " TEMPLATE ", template_name)).status());
  return name;
}

PostgresServer* SharedPostgres() {
  // Stopped when the process ends.
  static std::unique_ptr<PostgresServer> server = [] {
    auto started = PostgresServer::Start();
    if (!started.ok()) std::cerr << "no PostgreSQL: " << started.status() << "\n";
    return started.ok() ? *std::move(started) : nullptr;
  }();
  return server.get();
}

}  // namespace tutti::testing
