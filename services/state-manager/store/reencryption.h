// Brings what older keys wrote (or nobody encrypted) under the active key, in slices between other work, so that an old
// key can be retired.
#pragma once

#include <string>
#include <vector>

#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/cell.h"

namespace tutti::state_manager {

class Reencryption {
 public:
  // A column with cells: rows are walked by their key.
  struct Column {
    const char* table;
    std::vector<std::pair<const char*, SqlArg::Kind>> key;
    const char* cell;
    const char* place;  // SQL: what the cell's encryption is bound to (store/cell.h); `hex(x)` is a blob in hexadecimal
    const char* also = "";  // SQL: set with the cell
  };
  static const std::vector<Column>& Columns();

  struct Value {
    SqlArg::Kind kind = SqlArg::Kind::kText;
    int64_t number = 0;
    std::string text;
  };
  // One row whose cell is to be replaced.
  struct Change {
    size_t column = 0;
    std::vector<Value> key;
    std::string old_cell, new_cell;
  };
  // Where a pass over all columns stands.
  struct Cursor {
    size_t column = 0;
    std::vector<Value> after;  // key of the last row seen; empty at the beginning of a column
    int64_t found = 0, unreadable = 0;
    std::string first_unreadable;  // its place
    bool done() const { return column == Columns().size(); }
  };

  Reencryption(const CellCodec& codec, const KeyRing& keys) : codec_(codec), keys_(keys) {}

  // A read: the changes among the next `limit` rows, or fewer when their cells are large; the cursor goes on. Cells
  // that do not open stay as they are, and are counted.
  absl::StatusOr<std::vector<Change>> Find(Transaction& tx, Cursor& cursor, int64_t limit) const;
  // A write. A cell that was changed meanwhile stays.
  absl::Status Replace(Transaction& tx, const std::vector<Change>& changes) const;
  // After a pass that found nothing: the keys but the active one that the database no longer asks for. All replicas
  // must write with the active key by then.
  absl::StatusOr<std::vector<std::string>> Retire(Transaction& tx) const;

 private:
  const CellCodec& codec_;
  const KeyRing& keys_;
};

}  // namespace tutti::state_manager
