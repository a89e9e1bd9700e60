#include "services/state-manager/domain/json_merge.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace tutti::state_manager {
namespace {

std::string Child(const std::string& path, const std::string& key) {
  return absl::StrCat(path, "/", absl::StrReplaceAll(key, {{"~", "~0"}, {"/", "~1"}}));
}

Json Merge(Json target, const Json& patch, bool append) {
  if (append && target.is_array() && patch.is_array()) {
    for (const auto& element : patch) target.push_back(element);
    return target;
  }
  if (!patch.is_object()) return patch;
  if (!target.is_object()) target = Json::object();
  for (const auto& [key, value] : patch.items()) {
    if (value.is_null()) {
      target.erase(key);
    } else {
      Json old = target.contains(key) ? std::move(target[key]) : Json();
      target[key] = Merge(std::move(old), value, append);
    }
  }
  return target;
}

std::set<std::string> KeysOf(std::initializer_list<const Json*> objects) {
  std::set<std::string> keys;
  for (const Json* object : objects) {
    if (!object || !object->is_object()) continue;
    for (const auto& [key, value] : object->items()) keys.insert(key);
  }
  return keys;
}

const Json* Field(const Json* object, const std::string& key) {
  if (!object || !object->is_object()) return nullptr;
  auto it = object->find(key);
  return it == object->end() ? nullptr : &*it;
}

bool Same(const Json* a, const Json* b) { return a == nullptr || b == nullptr ? a == b : *a == *b; }
Json Copy(const Json* value) { return value ? *value : Json(); }

// Null pointers are absent values, and an absent result removes the field.
struct Merger {
  OnConflict policy;
  std::vector<Conflict> conflicts;

  // False: absent.
  bool Merge(const Json* base, const Json* ours, const Json* theirs, const std::string& path, Json& out) {
    auto take = [&out](const Json* value) {
      if (value) out = *value;
      return value != nullptr;
    };
    if (Same(ours, theirs) || Same(base, theirs)) return take(ours);
    if (Same(base, ours)) return take(theirs);
    bool objects = ours && theirs && ours->is_object() && theirs->is_object() && (!base || base->is_object());
    if (objects) {
      out = Json::object();
      for (const auto& key : KeysOf({base, ours, theirs})) {
        Json value;
        if (Merge(Field(base, key), Field(ours, key), Field(theirs, key), Child(path, key), value)) {
          out[key] = std::move(value);
        }
      }
      return true;
    }
    conflicts.push_back({path, Copy(base), Copy(ours), Copy(theirs)});
    switch (policy) {
      case OnConflict::kTheirs:
        return take(theirs);
      case OnConflict::kKeepBoth:
        out = Json{{"ours", Copy(ours)}, {"theirs", Copy(theirs)}};
        return true;
      default:
        return take(ours);
    }
  }
};

void Diff(const Json& from, const Json& to, const std::string& path, std::vector<JsonChange>& out) {
  if (from == to) return;
  if (from.is_object() && to.is_object()) {
    for (const auto& key : KeysOf({&from, &to})) {
      const Json *a = Field(&from, key), *b = Field(&to, key);
      if (a && b) {
        Diff(*a, *b, Child(path, key), out);
      } else if (a) {
        out.push_back({JsonChange::Op::kRemove, Child(path, key), *a, Json()});
      } else {
        out.push_back({JsonChange::Op::kAdd, Child(path, key), Json(), *b});
      }
    }
    return;
  }
  if (from.is_array() && to.is_array()) {
    size_t common = std::min(from.size(), to.size());
    if (std::equal(from.begin(), from.begin() + static_cast<int64_t>(common), to.begin())) {
      for (size_t i = common; i < to.size(); ++i) {
        out.push_back({JsonChange::Op::kAdd, absl::StrCat(path, "/", i), Json(), to[i]});
      }
      for (size_t i = from.size(); i > common; --i) {  // from the end: each path is right when its turn comes
        out.push_back({JsonChange::Op::kRemove, absl::StrCat(path, "/", i - 1), from[i - 1], Json()});
      }
      return;
    }
  }
  out.push_back({JsonChange::Op::kReplace, path, from, to});
}

// The parts of `document` below the path, with the objects around them.
void Select(const Json& document, const std::vector<std::string>& path, size_t at, Json& out) {
  if (at == path.size()) {
    out = document;
    return;
  }
  const Json* field = Field(&document, path[at]);
  if (!field) return;
  if (!out.is_object()) out = Json::object();
  Json child = out.contains(path[at]) ? out[path[at]] : Json();
  Select(*field, path, at + 1, child);
  if (!child.is_null() || at + 1 == path.size()) out[path[at]] = std::move(child);
}

}  // namespace

Json DeepMerge(Json target, const Json& patch) { return Merge(std::move(target), patch, /*append=*/false); }
Json AppendMerge(Json target, const Json& patch) { return Merge(std::move(target), patch, /*append=*/true); }

ThreeWayResult ThreeWayMerge(const Json& base, const Json& ours, const Json& theirs, OnConflict policy) {
  Merger merger{policy, {}};
  ThreeWayResult out;
  merger.Merge(&base, &ours, &theirs, "", out.merged);
  out.conflicts = std::move(merger.conflicts);
  return out;
}

std::vector<JsonChange> DiffJson(const Json& from, const Json& to) {
  std::vector<JsonChange> out;
  Diff(from, to, "", out);
  return out;
}

ViewResult ApplyView(const Json& document, const DocumentView& view,
                     const std::map<std::string, std::vector<std::string>>& field_tags) {
  ViewResult out;
  out.document = document;
  if (!view.fields.empty()) {
    out.document = document.is_object() ? Json::object() : Json();
    for (const auto& field : view.fields) {
      std::vector<std::string> path = absl::StrSplit(field, '.');
      Select(document, path, 0, out.document);
    }
  }
  if (!out.document.is_object()) {
    if (view.max_bytes > 0 && DumpJson(out.document).size() > static_cast<size_t>(view.max_bytes)) {
      out.document = Json();
      out.omitted = {"*"};
    }
    return out;
  }
  struct Candidate {
    std::string key;
    size_t shared, bytes;
  };
  std::vector<Candidate> candidates;
  for (const auto& [key, value] : out.document.items()) {
    size_t shared = 0;
    if (auto tags = field_tags.find(key); tags != field_tags.end() && !view.tags.empty()) {
      for (const auto& tag : tags->second) shared += std::count(view.tags.begin(), view.tags.end(), tag) > 0 ? 1 : 0;
      if (shared == 0) continue;
    }
    candidates.push_back({key, shared, DumpJson(key).size() + DumpJson(value).size() + 2});
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.shared != b.shared ? a.shared > b.shared : a.bytes < b.bytes;
  });
  Json shown = Json::object();
  size_t bytes = 2;
  for (const auto& candidate : candidates) {
    if (view.max_bytes > 0 && bytes + candidate.bytes > static_cast<size_t>(view.max_bytes)) {
      out.omitted.push_back(candidate.key);
      continue;
    }
    bytes += candidate.bytes;
    shown[candidate.key] = out.document[candidate.key];
  }
  out.document = std::move(shown);
  return out;
}

}  // namespace tutti::state_manager
