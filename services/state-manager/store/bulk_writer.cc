#include "services/state-manager/store/bulk_writer.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {

std::string BulkWriter::SqlFor(size_t rows) const {
  std::string sql(shape_.prefix);
  int parameter = 0;
  for (size_t i = 0; i < rows; ++i) {
    if (i > 0) sql += ", ";
    for (char c : shape_.row) {
      if (c == '?') {
        absl::StrAppend(&sql, "$", ++parameter);
      } else {
        sql.push_back(c);
      }
    }
  }
  absl::StrAppend(&sql, shape_.suffix);
  return sql;
}

absl::Status BulkWriter::Flush() {
  if (rows_ == 0) return absl::OkStatus();
  const size_t columns = values_.size() / rows_;
  size_t next = 0;
  for (size_t left = rows_; left > 0;) {
    size_t take = left >= 64 ? 64 : left >= 16 ? 16 : left >= 4 ? 4 : 1;  // few shapes, each prepared once
    Statement statement = transaction_.Prepare(SqlFor(take));
    for (size_t i = 0; i < take * columns; ++i, ++next) {
      SqlArg arg = values_[next].arg;
      arg.text = values_[next].text;
      statement.Bind(arg);
    }
    TUTTI_RETURN_IF_ERROR(statement.Run());
    left -= take;
  }
  values_.clear();
  rows_ = 0;
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
