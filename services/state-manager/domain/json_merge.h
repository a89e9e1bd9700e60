// Merging, comparing and viewing JSON documents.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/json/json.h"

namespace tutti::state_manager {

// RFC 7396 (JSON Merge Patch): objects field by field, null removes, all else replaces.
Json DeepMerge(Json target, const Json& patch);
// As DeepMerge, but an array met by an array grows at its end.
Json AppendMerge(Json target, const Json& patch);

enum class OnConflict { kFail, kOurs, kTheirs, kKeepBoth };

struct Conflict {
  std::string path;         // RFC 6901
  Json base, ours, theirs;  // null: absent
};

struct ThreeWayResult {
  Json merged;
  std::vector<Conflict> conflicts;
};
// What changed from base to ours and from base to theirs, together. Objects are merged field by field; anything else
// that both sides changed in different ways is a conflict. With kFail `merged` is `ours`' side of each conflict.
ThreeWayResult ThreeWayMerge(const Json& base, const Json& ours, const Json& theirs, OnConflict policy);

struct JsonChange {
  enum class Op { kAdd, kRemove, kReplace };
  Op op;
  std::string path;  // RFC 6901
  Json old_value, new_value;
};
// By path. Arrays are compared as wholes, unless only elements at the end were added or removed.
std::vector<JsonChange> DiffJson(const Json& from, const Json& to);

struct DocumentView {
  std::vector<std::string> fields;  // paths with dots; empty: every field
  std::vector<std::string> tags;    // empty: whatever the tags
  int64_t max_bytes = 0;            // 0: no limit
};
struct ViewResult {
  Json document;
  std::vector<std::string> omitted;  // top-level fields for which there was no room
};
// `field_tags`: tags by top-level field. Fields that share more tags with the view come first when room is short, then
// smaller ones.
ViewResult ApplyView(const Json& document, const DocumentView& view,
                     const std::map<std::string, std::vector<std::string>>& field_tags);

}  // namespace tutti::state_manager
