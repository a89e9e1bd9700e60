#include "services/state-manager/store/reencryption.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

// Of old cells in one slice, which one transaction then replaces.
constexpr size_t kMostBytes = size_t{1} << 20;
constexpr auto kText = SqlArg::Kind::kText;
constexpr auto kInt = SqlArg::Kind::kInt;
constexpr auto kBytes = SqlArg::Kind::kBytes;

std::string KeyList(const Reencryption::Column& column) {
  std::string out;
  for (const auto& [name, kind] : column.key) absl::StrAppend(&out, out.empty() ? "" : ", ", name);
  return out;
}

void Bind(Statement& statement, const std::vector<Reencryption::Value>& key) {
  for (const auto& value : key) {
    if (value.kind == kInt) {
      statement.Bind(value.number);
    } else if (value.kind == kBytes) {
      statement.BindBytes(value.text);
    } else {
      statement.Bind(value.text);
    }
  }
}

}  // namespace

const std::vector<Reencryption::Column>& Reencryption::Columns() {
  static const auto* columns = new std::vector<Column>{
      {"workflows", {{"name", kText}, {"version", kInt}}, "spec", "'workflows/' || name || '/' || version || '/spec'"},
      {"runs", {{"run_id", kText}}, "spec", "'runs/' || run_id || '/spec'"},
      {"runs", {{"run_id", kText}}, "input", "'runs/' || run_id || '/input'"},
      {"runs", {{"run_id", kText}}, "output", "'runs/' || run_id || '/output'"},
      {"runs", {{"run_id", kText}}, "error", "'runs/' || run_id || '/error'"},
      {"journal", {{"run_id", kText}, {"seq", kInt}}, "entry", "'runs/' || run_id || '/journal/' || seq"},
      {"snapshots", {{"run_id", kText}}, "entries", "'snapshots/' || run_id"},
      {"step_cache", {{"tenant", kText}, {"key", kText}}, "value", "'step_cache/' || tenant || '/' || key || '/value'"},
      {"schedules", {{"name", kText}}, "definition", "'schedules/' || name || '/definition'"},
      {"payloads", {{"hash", kBytes}}, "data", "'payloads/' || hex(hash)"},
      {"context_versions",
       {{"context_id", kText}, {"version", kInt}},
       "document",
       "'contexts/' || context_id || '/versions/' || version"},
      {"memories", {{"number", kInt}}, "content", "'memories/' || memory_id || '/content'", ", search_text = ''"},
      {"memories", {{"number", kInt}}, "embedding", "'memories/' || memory_id || '/embedding'"},
      {"messages",
       {{"conversation_id", kText}, {"seq", kInt}},
       "content",
       "'conversations/' || conversation_id || '/messages/' || message_id"},
  };
  return *columns;
}

absl::StatusOr<std::vector<Reencryption::Change>> Reencryption::Find(Transaction& tx, Cursor& cursor,
                                                                     int64_t limit) const {
  const Column& column = Columns()[cursor.column];
  const std::string keys = KeyList(column);
  const std::string place =
      absl::StrReplaceAll(column.place, {{"hex(hash)", tx.sqlite() ? "lower(hex(hash))" : "encode(hash, 'hex')"}});
  std::string after, parameters;
  for (size_t i = 1; i <= cursor.after.size(); ++i) absl::StrAppend(&parameters, i > 1 ? ", $" : "$", i);
  if (!cursor.after.empty()) after = absl::StrCat(" WHERE (", keys, ") > (", parameters, ")");
  Statement rows = tx.Prepare(absl::StrCat("SELECT ", column.cell, ", ", place, ", ", keys, " FROM ", column.table,
                                           after, " ORDER BY ", keys, " LIMIT $", cursor.after.size() + 1));
  Bind(rows, cursor.after);
  if (std::string_view(column.table) == "payloads") limit = std::min<int64_t>(limit, 4);  // each up to some MiB
  rows.Bind(limit);
  const std::string active = keys_.Get()->active;
  std::vector<Change> out;
  int64_t seen = 0;
  size_t bytes = 0;
  while (rows.Step()) {
    ++seen;
    std::vector<Value> key;
    for (size_t i = 0; i < column.key.size(); ++i) {
      const int at = static_cast<int>(i) + 2;
      const auto kind = column.key[i].second;
      key.push_back({kind, kind == kInt ? rows.Int(at) : 0,
                     kind == kInt    ? ""
                     : kind == kText ? rows.Text(at)
                                     : rows.Bytes(at)});
    }
    cursor.after = key;
    if (rows.IsNull(0)) continue;
    std::string cell = rows.Bytes(0);
    if (cell.empty() || !CellCodec::HashOf(cell).empty() || CellCodec::KeyOf(cell) == active) continue;
    auto plain = codec_.Open(cell, rows.Text(1));
    if (!plain.ok()) {
      if (cursor.unreadable++ == 0) cursor.first_unreadable = rows.Text(1);
      continue;
    }
    bytes += cell.size();
    std::string sealed = codec_.Seal(*plain, rows.Text(1));
    out.push_back({cursor.column, std::move(key), std::move(cell), std::move(sealed)});
    if (bytes > kMostBytes) break;
  }
  TUTTI_RETURN_IF_ERROR(rows.status());
  cursor.found += static_cast<int64_t>(out.size());
  if (seen < limit && bytes <= kMostBytes) {
    ++cursor.column;
    cursor.after.clear();
  }
  return out;
}

absl::Status Reencryption::Replace(Transaction& tx, const std::vector<Change>& changes) const {
  for (const Change& change : changes) {
    const Column& column = Columns()[change.column];
    std::string where;
    for (size_t i = 0; i < column.key.size(); ++i) {
      absl::StrAppend(&where, i > 0 ? " AND " : "", column.key[i].first, " = $", i + 1);
    }
    const size_t next = column.key.size() + 1;
    Statement update = tx.Prepare(absl::StrCat("UPDATE ", column.table, " SET ", column.cell, " = $", next, column.also,
                                               " WHERE ", where, " AND ", column.cell, " = $", next + 1));
    Bind(update, change.key);
    TUTTI_RETURN_IF_ERROR(update.BindBytes(change.new_cell).BindBytes(change.old_cell).Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Reencryption::Retire(Transaction& tx) const {
  constexpr absl::string_view kPrefix = "key_check/";
  const std::string active = absl::StrCat(kPrefix, keys_.Get()->active);
  std::vector<std::string> out;
  {
    Statement rows = tx.Prepare("SELECT key FROM meta WHERE key >= 'key_check/' AND key < 'key_check0' AND key <> $1");
    rows.Bind(active);
    while (rows.Step()) out.push_back(rows.Text(0).substr(kPrefix.size()));
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  for (const auto& id : out) {
    TUTTI_RETURN_IF_ERROR(tx.Prepare("DELETE FROM meta WHERE key = $1").BindAll(absl::StrCat(kPrefix, id)).Run());
  }
  return out;
}

}  // namespace tutti::state_manager
