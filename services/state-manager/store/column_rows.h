// Many rows for one statement of an engine that takes arrays (PostgreSQL): a parameter for each column.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

// Rows on their way into a statement, column by column. `kinds`: a letter for each column, (i)nts, (t)exts or (b)ytes.
// Texts and bytes live until the statement has run.
class ColumnRows {
 public:
  explicit ColumnRows(absl::string_view kinds) {
    for (char kind : kinds) {
      columns_.emplace_back(kind == 'i'   ? SqlColumn::Kind::kInts
                            : kind == 't' ? SqlColumn::Kind::kTexts
                                          : SqlColumn::Kind::kBytes);
    }
  }
  template <class... Values>
  void Add(const Values&... values) {
    size_t column = 0;
    (columns_[column++].Add(values), ...);
  }
  void BindTo(Statement& statement) const {
    for (const auto& column : columns_) statement.BindColumn(column);
  }

 private:
  std::vector<SqlColumn> columns_;
};

}  // namespace tutti::state_manager
