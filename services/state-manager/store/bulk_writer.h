// Many rows of one shape, in as few statements as the engine likes: PostgreSQL gets up to 64 rows in one statement (a
// round trip each), SQLite one by one (they cost nothing to send, and keep one prepared statement hot).
#pragma once

#include <string>
#include <vector>

#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

class BulkWriter {
 public:
  // The statement is `prefix row, row, … suffix`; in `row` each `?` stands for a parameter. An UPDATE reads
  // `FROM (VALUES row, row) AS v`, with columns v.column1, v.column2 …
  struct Shape {
    absl::string_view prefix, row, suffix;
    // For engines that take row by row, when it is not simply the above with one row: parameters are $1, $2 …
    absl::string_view single = "";
  };
  BulkWriter(Transaction& transaction, Shape shape) : transaction_(transaction), shape_(shape) {}
  ~BulkWriter() = default;

  template <class... Args>
  absl::Status Add(const Args&... args) {
    if (transaction_.sqlite()) {
      if (single_.empty()) single_ = shape_.single.empty() ? SqlFor(1) : std::string(shape_.single);
      return transaction_.Prepare(single_).RunWith(args...);
    }
    (values_.push_back(Own(SqlArg(args))), ...);
    ++rows_;
    return absl::OkStatus();
  }
  // Writes what was added.
  absl::Status Flush();

 private:
  struct Value {
    SqlArg arg;
    std::string text;
  };
  static Value Own(const SqlArg& arg) { return {arg, std::string(arg.text)}; }
  std::string SqlFor(size_t rows) const;

  Transaction& transaction_;
  const Shape shape_;
  std::string single_;
  std::vector<Value> values_;
  size_t rows_ = 0;
};

}  // namespace tutti::state_manager
