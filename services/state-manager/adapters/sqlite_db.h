// A thin, checked skin over one SQLite connection. Used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace tutti::state_manager {

// A prepared statement in use: bind in order, then Step or Run. Resets itself when it goes.
class Statement {
 public:
  Statement(sqlite3* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement();

  Statement& Bind(absl::string_view text);
  Statement& Bind(const char* text) { return Bind(absl::string_view(text)); }
  Statement& Bind(int64_t value);
  Statement& Bind(int value) { return Bind(static_cast<int64_t>(value)); }
  Statement& BindBlob(absl::string_view bytes);

  // True: a row is there. Errors are kept: see status().
  bool Step();
  // For statements without rows.
  absl::Status Run();
  const absl::Status& status() const { return status_; }

  int64_t Int(int column) const;
  std::string Text(int column) const;  // also blobs

 private:
  sqlite3* db_;
  sqlite3_stmt* statement_;
  int next_ = 1;
  absl::Status status_;
};

class SqliteDb {
 public:
  // DATA_LOSS: not a database, or damaged. FAILED_PRECONDITION, PERMISSION_DENIED: cannot be opened for writing.
  static absl::StatusOr<std::unique_ptr<SqliteDb>> Open(const std::string& file, bool read_only);
  ~SqliteDb();

  // Statements are prepared once per text; the text must be a literal or otherwise live as long as the connection.
  Statement Prepare(const char* sql);
  absl::Status Execute(const std::string& sql);
  int64_t changes() const;

 private:
  SqliteDb() = default;
  sqlite3* db_ = nullptr;
  std::unordered_map<const char*, sqlite3_stmt*> prepared_;
};

}  // namespace tutti::state_manager
