#include "services/state-manager/store/backup.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

// In the order of import. Not here: instances (leases), memory_changes (news for replicas' indexes).
constexpr const char* kTables[] = {"meta",      "workflows",      "runs",          "journal",      "snapshots",
                                   "usage",     "payloads",       "payload_refs",  "contexts",     "context_versions",
                                   "memories",  "memory_tenants", "conversations", "messages",     "sessions",
                                   "audit_log", "audit_head",     "budgets",       "reservations", "outbox",
                                   "inbox",     "run_requests",   "step_cache",    "schedules"};
constexpr int kFetch = 500;
constexpr size_t kChunkBytes = size_t{1} << 20;

struct Column {
  std::string name;
  SqlArg::Kind kind;
};

SqlArg::Kind KindOf(const std::string& type) {
  auto has = [&](absl::string_view part) { return type.find(part.data()) != std::string::npos; };
  if (has("INT") || has("int")) return SqlArg::Kind::kInt;
  if (has("BLOB") || has("bytea")) return SqlArg::Kind::kBytes;
  if (has("REAL") || has("double")) return SqlArg::Kind::kDouble;
  return SqlArg::Kind::kText;
}

absl::StatusOr<std::vector<Column>> ColumnsOf(Transaction& tx, absl::string_view table) {
  std::vector<Column> out;
  Statement rows = tx.Prepare(
      tx.sqlite() ? "SELECT name, type FROM pragma_table_info($1) ORDER BY cid"
                  : "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = "
                    "$1 AND table_schema = current_schema() AND is_generated = 'NEVER' ORDER BY ordinal_position");
  rows.Bind(table);
  while (rows.Step()) out.push_back({rows.Text(0), KindOf(rows.Text(1))});
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

void ReadRow(const Statement& rows, const std::vector<Column>& columns, v1::BackupRow* out) {
  for (int i = 0; i < static_cast<int>(columns.size()); ++i) {
    auto* value = out->add_values();
    if (rows.IsNull(i)) continue;
    switch (columns[static_cast<size_t>(i)].kind) {
      case SqlArg::Kind::kInt:
        value->set_integer(rows.Int(i));
        break;
      case SqlArg::Kind::kDouble:
        value->set_real(rows.Double(i));
        break;
      case SqlArg::Kind::kBytes:
        value->set_blob(rows.Bytes(i));
        break;
      default:
        value->set_text(rows.Text(i));
    }
  }
}

std::string NamesOf(const std::vector<Column>& columns) {
  return absl::StrJoin(columns, ", ", [](std::string* out, const Column& column) { *out += column.name; });
}

class TableExport {
 public:
  TableExport(absl::string_view table, const std::vector<Column>& columns, const ChunkSink& sink)
      : columns_(columns), sink_(sink) {
    chunk_.set_table(std::string(table));
    for (const auto& column : columns) chunk_.add_columns(column.name);
  }
  absl::Status Take(const Statement& rows) {
    auto* row = chunk_.add_rows();
    ReadRow(rows, columns_, row);
    bytes_ += row->ByteSizeLong();
    ++count_;
    return bytes_ >= kChunkBytes || chunk_.rows_size() >= kFetch ? Flush() : absl::OkStatus();
  }
  absl::Status Flush() {
    if (chunk_.rows().empty()) return absl::OkStatus();
    absl::Status status = sink_(chunk_);
    chunk_.clear_rows();
    bytes_ = 0;
    return status;
  }
  int64_t count() const { return count_; }

 private:
  const std::vector<Column>& columns_;
  const ChunkSink& sink_;
  v1::BackupChunk chunk_;
  size_t bytes_ = 0;
  int64_t count_ = 0;
};

}  // namespace

absl::StatusOr<RowCounts> ExportAll(Transaction& tx, const ChunkSink& sink) {
  RowCounts counts;
  for (const char* table : kTables) {
    TUTTI_ASSIGN_OR_RETURN(std::vector<Column> columns, ColumnsOf(tx, table));
    TableExport out(table, columns, sink);
    std::string select = absl::StrCat("SELECT ", NamesOf(columns), " FROM ", table);
    if (tx.sqlite()) {  // rows come as they are stepped over
      Statement rows = tx.Prepare(select);
      while (rows.Step()) TUTTI_RETURN_IF_ERROR(out.Take(rows));
      TUTTI_RETURN_IF_ERROR(rows.status());
    } else {
      TUTTI_RETURN_IF_ERROR(tx.Execute(absl::StrCat("DECLARE backup_rows NO SCROLL CURSOR FOR ", select)));
      for (int fetched = kFetch; fetched == kFetch;) {
        fetched = 0;
        // A text of its own for each table: a prepared FETCH keeps the columns of its first use.
        Statement rows = tx.Prepare(absl::StrCat("FETCH ", kFetch, " FROM backup_rows /* ", table, " */"));
        for (; rows.Step(); ++fetched) TUTTI_RETURN_IF_ERROR(out.Take(rows));
        TUTTI_RETURN_IF_ERROR(rows.status());
      }
      TUTTI_RETURN_IF_ERROR(tx.Execute("CLOSE backup_rows"));
    }
    TUTTI_RETURN_IF_ERROR(out.Flush());
    counts[table] = out.count();
  }
  return counts;
}

absl::StatusOr<RowCounts> CountRows(Transaction& tx) {
  RowCounts counts;
  for (const char* table : kTables) {
    Statement row = tx.Prepare(absl::StrCat("SELECT count(*) FROM ", table));
    if (row.Step()) counts[table] = row.Int(0);
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  return counts;
}

absl::Status PrepareImport(Transaction& tx, bool replace) {
  if (!tx.sqlite()) {  // SQLite's folder is locked by who works on it
    Statement live = tx.Prepare("SELECT name FROM instances WHERE expire_time > $1 LIMIT 1");
    live.Bind(tx.NowMicros());
    if (live.Step()) {
      return Error(absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
                   absl::StrCat("engine ", live.Text(0), " works on this database; stop the suite first"));
    }
    TUTTI_RETURN_IF_ERROR(live.status());
  }
  TUTTI_ASSIGN_OR_RETURN(RowCounts counts, CountRows(tx));
  int64_t stored = 0;
  for (const auto& [table, rows] : counts) {
    if (table != "meta" && table != "audit_head") stored += rows;
  }
  if (stored > 0 && !replace) {
    return Error(absl::StatusCode::kFailedPrecondition, "STORE_NOT_EMPTY",
                 absl::StrCat("the store holds ", stored, " rows (", counts["runs"],
                              " runs); restore into an empty one, or say --force to replace what it holds"));
  }
  for (const char* table : kTables) TUTTI_RETURN_IF_ERROR(tx.Prepare(absl::StrCat("DELETE FROM ", table)).Run());
  TUTTI_RETURN_IF_ERROR(tx.Prepare("DELETE FROM memory_changes").Run());
  return tx.Prepare("DELETE FROM instances").Run();
}

absl::Status ImportChunk(Transaction& tx, const v1::BackupChunk& chunk) {
  bool known = false;
  for (const char* table : kTables) known |= chunk.table() == table;
  if (!known) return absl::DataLossError(absl::StrCat("the backup has an unknown table, ", chunk.table()));
  TUTTI_ASSIGN_OR_RETURN(std::vector<Column> columns, ColumnsOf(tx, chunk.table()));
  std::string parameters;
  for (int i = 0; i < chunk.columns_size(); ++i) {
    bool there = false;
    for (const auto& column : columns) there |= column.name == chunk.columns(i);
    if (!there) {
      return absl::DataLossError(
          absl::StrCat("the backup's table ", chunk.table(), " has an unknown column, ", chunk.columns(i)));
    }
    absl::StrAppend(&parameters, i ? ", " : "", "$", i + 1);
  }
  std::string sql = absl::StrCat("INSERT INTO ", chunk.table(), " (", absl::StrJoin(chunk.columns(), ", "),
                                 ") VALUES (", parameters, ")");
  for (const auto& row : chunk.rows()) {
    if (row.values_size() != chunk.columns_size()) return absl::DataLossError("a row of the backup is cut off");
    Statement insert = tx.Prepare(sql);
    for (const auto& value : row.values()) {
      switch (value.value_case()) {
        case v1::BackupValue::kInteger:
          insert.Bind(value.integer());
          break;
        case v1::BackupValue::kReal:
          insert.Bind(value.real());
          break;
        case v1::BackupValue::kText:
          insert.Bind(value.text());
          break;
        case v1::BackupValue::kBlob:
          insert.BindBytes(value.blob());
          break;
        default:
          insert.Bind(SqlArg::Null());
      }
    }
    TUTTI_RETURN_IF_ERROR(insert.Run());
  }
  return absl::OkStatus();
}

absl::Status FinishImport(Transaction& tx) {
  TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE runs SET owner = '', owner_incarnation = '', lease_epoch = lease_epoch + 1, "
                                   "last_writer_seq = 0 WHERE status IN ('PENDING', 'RUNNING')")
                            .Run());
  TUTTI_RETURN_IF_ERROR(tx.Prepare("UPDATE schedules SET claim_time = 0, claimer = '' WHERE claimer <> ''").Run());
  if (tx.sqlite()) return absl::OkStatus();  // SQLite's numbers go on after the largest by themselves
  return tx
      .Prepare(
          "SELECT setval(pg_get_serial_sequence('memories', 'number'), (SELECT coalesce(max(number), 0) + 1 FROM "
          "memories), false)")
      .Run();
}

}  // namespace tutti::state_manager
