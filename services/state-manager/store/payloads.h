// User data in rows: small contents in the row itself, larger ones once by content.
#pragma once

#include <string>
#include <vector>

#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/cell.h"

namespace tutti::state_manager {

class Payloads {
 public:
  // Contents above this many bytes are shared.
  static constexpr size_t kInline = 1024;

  explicit Payloads(const CellCodec& codec) : codec_(codec) {}

  // The cell for `plain`, field `field` of `owner` (`runs/<id>`). A large content is stored unless it is there, and the
  // owner refers to it from the same transaction on.
  absl::StatusOr<std::string> Put(Transaction& tx, absl::string_view owner, absl::string_view field,
                                  absl::string_view plain) const;
  // The content of the cell that is `field` of `owner`.
  absl::StatusOr<std::string> Get(Transaction& tx, absl::string_view owner, absl::string_view field,
                                  absl::string_view cell) const;
  // For large contents that do not stand in a cell of their own: the payload's hash, and back.
  absl::StatusOr<std::string> PutShared(Transaction& tx, absl::string_view owner, absl::string_view plain) const;
  absl::StatusOr<std::string> GetShared(Transaction& tx, absl::string_view hash) const;
  // All of one owner's references go.
  static absl::Status Forget(Transaction& tx, absl::string_view owner);
  // The same payloads for another owner: a fork copies references, not contents.
  static absl::Status Share(Transaction& tx, absl::string_view from, absl::string_view to);
  // Up to `limit` payloads that nobody refers to, by their hashes, from the one after `after`; found by a read, so that
  // writers do not wait for the search.
  static absl::StatusOr<std::vector<std::string>> FindUnused(Transaction& tx, const std::string& after, int64_t limit);
  // Removes those of them that are still unused; how many.
  static absl::StatusOr<int64_t> Remove(Transaction& tx, const std::vector<std::string>& unused);

  const CellCodec& codec() const { return codec_; }

 private:
  const CellCodec& codec_;
};

}  // namespace tutti::state_manager
