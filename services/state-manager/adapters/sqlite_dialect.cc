// PostgreSQL's words that SQLite knows by others, or needs not: it has one writer, hence no row locks; its types are
// those of the values, hence no casts.
#include <array>
#include <cctype>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "services/state-manager/adapters/sqlite_db.h"

namespace tutti::state_manager {
namespace {

// `::type` and `::type[]` outside of quotes.
std::string WithoutCasts(absl::string_view sql) {
  std::string out;
  out.reserve(sql.size());
  bool quoted = false;
  for (size_t i = 0; i < sql.size(); ++i) {
    if (sql[i] == '\'') quoted = !quoted;
    if (!quoted && absl::StartsWith(sql.substr(i), "::")) {
      i += 2;
      while (i < sql.size() && (std::isalnum(static_cast<unsigned char>(sql[i])) || sql[i] == '_')) ++i;
      while (i < sql.size() && (sql[i] == '[' || sql[i] == ']')) ++i;
      --i;
      continue;
    }
    out.push_back(sql[i]);
  }
  return out;
}

// `= ANY($n)` becomes `IN (SELECT value FROM json_each($n))`.
void ReplaceLists(std::string& sql) {
  constexpr absl::string_view kAny = "= ANY(";
  for (size_t at = sql.find(kAny.data()); at != std::string::npos; at = sql.find(kAny.data(), at)) {
    size_t end = sql.find(')', at);
    std::string parameter = sql.substr(at + kAny.size(), end - at - kAny.size());
    std::string list = "IN (SELECT value FROM json_each(" + parameter + "))";
    sql.replace(at, end + 1 - at, list);
    at += list.size();
  }
}

// `as_time(x)`, a function that migration 0002 makes in PostgreSQL.
void ReplaceTimes(std::string& sql) {
  constexpr absl::string_view kAsTime = "as_time(";
  for (size_t at = sql.find(kAsTime.data()); at != std::string::npos; at = sql.find(kAsTime.data(), at)) {
    size_t begin = at + kAsTime.size(), end = begin;
    for (int depth = 1; end < sql.size(); ++end) {
      if (sql[end] == '(') ++depth;
      if (sql[end] == ')' && --depth == 0) break;
    }
    std::string time =
        "strftime('%Y-%m-%dT%H:%M:%fZ', (" + sql.substr(begin, end - begin) + ") / 1000000.0, 'unixepoch')";
    sql.replace(at, end + 1 - at, time);
    at += time.size();
  }
}

}  // namespace

std::string ToSqlite(absl::string_view sql) {
  std::string out = absl::StrReplaceAll(WithoutCasts(sql), {{" FOR UPDATE SKIP LOCKED", ""},
                                                            {" FOR UPDATE", ""},
                                                            {" FOR SHARE", ""},
                                                            {"greatest(", "max("},
                                                            {"least(", "min("},
                                                            {"DOUBLE PRECISION", "REAL"},
                                                            {"BYTEA", "BLOB"},
                                                            {"JSONB", "TEXT"},
                                                            {"'\\x'", "x''"}});
  ReplaceLists(out);
  ReplaceTimes(out);
  return out;
}

}  // namespace tutti::state_manager
