// Functions upon arrays and objects, and those upon every value.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

constexpr size_t kMaxNesting = 10'000;

std::string Named(const Value& value) { return absl::StrCat(value.type_name(), " (", Excerpt(value), ")"); }

Value Not(Machine&, Value& input, Value*) { return Value::Bool(!input.truthy()); }
Value Type(Machine& machine, Value& input, Value*) { return Value::Text(&machine.heap(), input.type_name()); }

Value Length(Machine& machine, Value& input, Value*) {
  switch (input.kind()) {
    case Kind::kNull:
      return Value::Number(0);
    case Kind::kNumber:
      if (!input.literal().empty()) return input.literal()[0] == '-' ? Negate(machine, input) : input;
      return Value::Number(std::fabs(input.number()));
    case Kind::kString:
      return Value::Number(static_cast<double>(CountUtf8(input.text())));
    case Kind::kArray:
    case Kind::kObject:
      return Value::Number(static_cast<double>(input.size()));
    default:
      return machine.Fail(absl::StrCat(Named(input), " has no length"));
  }
}

Value Keys(Machine& machine, const Value& input, bool sorted) {
  Value out = Value::Array(&machine.heap());
  if (input.is_array()) {
    if (!machine.Reserve(input.size() * sizeof(Value)) || !machine.Tick(static_cast<int64_t>(input.size()))) return {};
    for (size_t i = 0; i < input.size(); ++i) out.Append(&machine.heap(), Value::Number(static_cast<double>(i)));
    return out;
  }
  if (!input.is_object()) return machine.Fail(absl::StrCat(Named(input), " has no keys"));
  if (!machine.Tick(static_cast<int64_t>(input.size()))) return {};
  Value object = input.Opened();
  if (sorted) {
    for (uint32_t i : SortedMembers(object)) out.Append(&machine.heap(), object.KeyValueAt(i));
  } else {
    for (size_t i = 0; i < object.size(); ++i) out.Append(&machine.heap(), object.KeyValueAt(i));
  }
  return out;
}
Value SortedKeys(Machine& machine, Value& input, Value*) { return Keys(machine, input, true); }
Value UnsortedKeys(Machine& machine, Value& input, Value*) { return Keys(machine, input, false); }

Value Has(Machine& machine, Value& input, Value* args) {
  const Value& key = args[0];
  if (input.is_object() && key.is_string()) return Value::Bool(!input.Find(key.text()).absent());
  if (input.is_array() && key.is_number()) {
    double at = std::trunc(key.number());
    return Value::Bool(at >= 0 && at < static_cast<double>(input.size()));
  }
  return machine.Fail(absl::StrCat("Cannot check whether ", input.type_name(), " has a ",
                                   key.is_string() ? "string" : key.type_name(), " key"));
}

bool ContainsValue(Machine& machine, const Value& a, const Value& b, size_t depth, bool* failed) {
  *failed = !machine.Tick(1);
  if (*failed) return false;
  if (depth > kMaxNesting) {
    machine.Fail("Containment check too deep");
    *failed = true;
    return false;
  }
  if (a.is_object() && b.is_object()) {
    Value inner = b.Opened();
    for (size_t i = 0; i < inner.size(); ++i) {
      Value found = a.Find(inner.KeyAt(i));
      if (found.absent() || !ContainsValue(machine, found, inner.At(i), depth + 1, failed)) return false;
    }
    return true;
  }
  if (a.is_array() && b.is_array()) {
    for (size_t i = 0; i < b.size(); ++i) {
      bool any = false;
      Value wanted = b.At(i);
      for (size_t k = 0; k < a.size() && !any; ++k) {
        any = ContainsValue(machine, a.At(k), wanted, depth + 1, failed);
        if (*failed) return false;
      }
      if (!any) return false;
    }
    return true;
  }
  if (a.is_string() && b.is_string()) {
    *failed = !machine.Tick(static_cast<int64_t>(a.text().size() / 16));
    return a.text().find(b.text()) != absl::string_view::npos;
  }
  CompareBudget budget;
  return Compare(a, b, &budget) == 0;
}

Value Contains(Machine& machine, Value& input, Value* args) {
  bool same_type = input.kind() == args[0].kind() || (input.is_boolean() && args[0].is_boolean());
  if (!same_type) {
    return machine.Fail(absl::StrCat(Named(input), " and ", Named(args[0]), " cannot have their containment checked"));
  }
  bool failed = false;
  bool contains = ContainsValue(machine, input, args[0], 0, &failed);
  return failed ? Value() : Value::Bool(contains);
}

Value AddAll(Machine& machine, Value& input, Value*) {
  if (!input.is_array() && !input.is_object()) {
    return machine.Fail(absl::StrCat("Cannot iterate over ", input.type_name(),
                                     input.is_null() ? "" : absl::StrCat(" (", Excerpt(input), ")")));
  }
  Value items = input.Opened();
  Value sum = Value::Null();
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items.At(i);
    int64_t weight =
        item.is_string() ? static_cast<int64_t>(item.text().size() / 64) : static_cast<int64_t>(item.size());
    if (!machine.Tick(1 + weight)) return {};
    sum = Add(machine, std::move(sum), item);
    if (sum.absent()) return {};
  }
  return sum;
}

bool FlattenInto(Machine& machine, const Value& array, double depth, Value* out) {
  for (size_t i = 0; i < array.size(); ++i) {
    if (!machine.Tick(1)) return false;
    Value item = array.At(i);
    if (item.is_array() && depth != 0) {
      if (!FlattenInto(machine, item, depth - 1, out)) return false;
    } else {
      out->Append(&machine.heap(), std::move(item));
      if (machine.heap().exceeded()) {
        machine.FailTooLarge();
        return false;
      }
    }
  }
  return true;
}

Value FlattenTo(Machine& machine, const Value& input, double depth) {
  if (!input.is_array() && !input.is_object()) {
    return machine.Fail(absl::StrCat("Cannot iterate over ", Named(input)));
  }
  Value items = input.Opened();
  Value out = Value::Array(&machine.heap());
  return FlattenInto(machine, items, depth, &out) ? out : Value();
}
Value FlattenAll(Machine& machine, Value& input, Value*) { return FlattenTo(machine, input, -1); }
Value Flatten(Machine& machine, Value& input, Value* args) {
  if (!args[0].is_number()) return machine.Fail("flatten depth must be a number");
  if (args[0].number() < 0) return machine.Fail("flatten depth must not be negative");
  return FlattenTo(machine, input, std::floor(args[0].number()));
}

// -- In an order ------------------------------------------------------------------------------------------------------

// Positions of an array's items, in the order of `keys`; empty with `*ok` false when the slice is over.
std::vector<uint32_t> OrderOf(Machine& machine, const std::vector<Value>& keys, bool* ok) {
  std::vector<uint32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  bool over = !machine.Tick(static_cast<int64_t>(keys.size()));
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    if (over) return false;
    const std::optional<int> result = machine.CompareValues(keys[a], keys[b]);
    over = !result;
    return result.value_or(0) < 0;
  });
  *ok = !over;
  return order;
}

bool ItemsOf(Machine& machine, const Value& input, const char* what, std::vector<Value>* out) {
  if (!input.is_array()) {
    machine.Fail(absl::StrCat(Named(input), " cannot be ", what, ", as it is not an array"));
    return false;
  }
  if (!machine.Reserve(input.size() * (sizeof(Value) + 8)) || !machine.Tick(static_cast<int64_t>(input.size()))) {
    return false;
  }
  out->reserve(input.size());
  for (size_t i = 0; i < input.size(); ++i) out->push_back(input.At(i));
  return true;
}

// Holds what the functions by key share: the items, their keys and their order.
struct Ordered {
  std::vector<Value> items, keys;
  std::vector<uint32_t> order;
};

bool OrderBy(Machine& machine, const Value& input, const Value* keys, const char* what, Ordered* out) {
  if (!ItemsOf(machine, input, what, &out->items)) return false;
  if (keys && !ItemsOf(machine, *keys, what, &out->keys)) return false;
  bool ok = false;
  out->order = OrderOf(machine, keys ? out->keys : out->items, &ok);
  return ok;
}

Value SortWith(Machine& machine, const Value& input, const Value* keys) {
  Ordered ordered;
  if (!OrderBy(machine, input, keys, "sorted", &ordered)) return {};
  std::vector<Value> sorted;
  sorted.reserve(ordered.order.size());
  for (uint32_t i : ordered.order) sorted.push_back(std::move(ordered.items[i]));
  return Value::Array(&machine.heap(), std::move(sorted));
}
Value Sort(Machine& machine, Value& input, Value*) { return SortWith(machine, input, nullptr); }
Value SortBy(Machine& machine, Value& input, Value* args) { return SortWith(machine, input, &args[0]); }

Value GroupBy(Machine& machine, Value& input, Value* args) {
  Ordered ordered;
  if (!OrderBy(machine, input, &args[0], "grouped", &ordered)) return {};
  Value out = Value::Array(&machine.heap());
  Value group;
  for (size_t i = 0; i < ordered.order.size(); ++i) {
    uint32_t at = ordered.order[i];
    const auto same =
        i == 0 ? std::optional<int>(1) : machine.CompareValues(ordered.keys[ordered.order[i - 1]], ordered.keys[at]);
    if (!same) return {};
    if (*same != 0) {
      if (!group.absent()) out.Append(&machine.heap(), std::move(group));
      group = Value::Array(&machine.heap());
    }
    group.Append(&machine.heap(), ordered.items[at]);
    if (machine.heap().exceeded()) return machine.FailTooLarge();
  }
  if (!group.absent()) out.Append(&machine.heap(), std::move(group));
  return out;
}

Value UniqueWith(Machine& machine, const Value& input, const Value* keys) {
  Ordered ordered;
  if (!OrderBy(machine, input, keys, keys ? "grouped" : "sorted", &ordered)) return {};
  const std::vector<Value>& by = keys ? ordered.keys : ordered.items;
  Value out = Value::Array(&machine.heap());
  for (size_t i = 0; i < ordered.order.size(); ++i) {
    uint32_t at = ordered.order[i];
    const auto same = i == 0 ? std::optional<int>(1) : machine.CompareValues(by[ordered.order[i - 1]], by[at]);
    if (!same) return {};
    if (*same == 0) continue;
    out.Append(&machine.heap(), ordered.items[at]);
  }
  return out;
}
Value Unique(Machine& machine, Value& input, Value*) { return UniqueWith(machine, input, nullptr); }
Value UniqueBy(Machine& machine, Value& input, Value* args) { return UniqueWith(machine, input, &args[0]); }

Value Extreme(Machine& machine, const Value& input, const Value& keys, bool largest) {
  if (!input.is_array() || !keys.is_array()) {
    return machine.Fail(absl::StrCat(Named(input), " and ", Named(keys), " cannot be iterated over"));
  }
  size_t best = 0;
  for (size_t i = 1; i < keys.size(); ++i) {
    const std::optional<int> order = machine.CompareValues(keys.At(i), keys.At(best));
    if (!order) return {};
    if (largest ? *order >= 0 : *order < 0) best = i;
  }
  return input.size() == 0 ? Value::Null() : input.At(best);
}
Value Min(Machine& machine, Value& input, Value*) { return Extreme(machine, input, input, false); }
Value Max(Machine& machine, Value& input, Value*) { return Extreme(machine, input, input, true); }
Value MinBy(Machine& machine, Value& input, Value* args) { return Extreme(machine, input, args[0], false); }
Value MaxBy(Machine& machine, Value& input, Value* args) { return Extreme(machine, input, args[0], true); }

Value Reverse(Machine& machine, Value& input, Value*) {
  if (input.is_null()) return Value::Array(&machine.heap());
  if (input.is_string()) {
    if (!machine.Reserve(input.text().size())) return {};
    std::string out(input.text().size(), '\0');
    size_t end = out.size();
    for (size_t at = 0; at < input.text().size();) {
      size_t next = OffsetOfUtf8(input.text(), 1, at);
      end -= next - at;
      input.text().copy(out.data() + end, next - at, at);
      at = next;
    }
    return Value::Text(&machine.heap(), std::move(out));
  }
  if (!input.is_array()) return machine.Fail(absl::StrCat("Cannot reverse ", Named(input)));
  std::vector<Value> items;
  if (!ItemsOf(machine, input, "reversed", &items)) return {};
  std::reverse(items.begin(), items.end());
  return Value::Array(&machine.heap(), std::move(items));
}

Value BinarySearch(Machine& machine, Value& input, Value* args) {
  if (!input.is_array()) return machine.Fail(absl::StrCat(Named(input), " cannot be searched from"));
  size_t low = 0, high = input.size();
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const std::optional<int> order = machine.CompareValues(input.At(middle), args[0]);
    if (!order) return {};
    if (*order == 0) return Value::Number(static_cast<double>(middle));
    if (*order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return Value::Number(-1 - static_cast<double>(low));
}

Value Transpose(Machine& machine, Value& input, Value*) {
  if (!input.is_array()) return machine.Fail(absl::StrCat("Cannot iterate over ", Named(input)));
  size_t width = 0;
  for (size_t i = 0; i < input.size(); ++i) {
    Value row = input.At(i);
    if (!row.is_array() && !row.is_null())
      return machine.Fail(absl::StrCat("Cannot index ", row.type_name(), " with number (0)"));
    width = std::max(width, row.size());
  }
  if (!machine.Reserve(width * input.size() * sizeof(Value)) ||
      !machine.Tick(static_cast<int64_t>(width * input.size()))) {
    return {};
  }
  std::vector<Value> rows;
  for (size_t i = 0; i < width; ++i) {
    std::vector<Value> row;
    for (size_t k = 0; k < input.size(); ++k) {
      Value from = input.At(k);
      row.push_back(i < from.size() ? from.At(i) : Value::Null());
    }
    rows.push_back(Value::Array(&machine.heap(), std::move(row)));
  }
  return Value::Array(&machine.heap(), std::move(rows));
}

// -- Members ----------------------------------------------------------------------------------------------------------

Value ToEntries(Machine& machine, Value& input, Value*) {
  if (!input.is_object()) return machine.Fail(absl::StrCat(Named(input), " has no keys"));
  if (!machine.Tick(static_cast<int64_t>(input.size()))) return {};
  Value object = input.Opened();
  Value out = Value::Array(&machine.heap());
  for (size_t i = 0; i < object.size(); ++i) {
    Value entry = Value::Object(&machine.heap());
    entry.SetMember(&machine.heap(), "key", object.KeyValueAt(i));
    entry.SetMember(&machine.heap(), "value", object.At(i));
    out.Append(&machine.heap(), std::move(entry));
    if (machine.heap().exceeded()) return machine.FailTooLarge();
  }
  return out;
}

Value FromEntries(Machine& machine, Value& input, Value*) {
  if (!input.is_array()) return machine.Fail(absl::StrCat("Cannot iterate over ", Named(input)));
  Value out = Value::Object(&machine.heap());
  for (size_t i = 0; i < input.size(); ++i) {
    if (!machine.Tick(1)) return {};
    Value entry = input.At(i);
    if (!entry.is_object() && !entry.is_null()) {
      return machine.Fail(absl::StrCat("Cannot index ", entry.type_name(), " with string (\"key\")"));
    }
    // The first of these that is neither null nor false; a false key stands when there is nothing else.
    Value key;
    for (const char* name : {"key", "Key", "name", "Name", "k", "K"}) {
      Value found = entry.Find(name);
      if (!found.absent() && (found.truthy() || (key.absent() && !found.is_null()))) {
        bool done = found.truthy();
        key = std::move(found);
        if (done) break;
      }
    }
    if (key.absent()) key = Value::Null();
    if (key.is_null() || key.is_boolean() || key.is_number()) {
      key = FormatValue(machine, key, *FindFormat("text"));
    }
    if (!key.is_string()) {
      return machine.Fail(absl::StrCat("Cannot use ", Named(key), " as object key"));
    }
    Value value = Value::Null();
    for (const char* name : {"value", "Value", "v", "V"}) {
      Value found = entry.Find(name);
      if (!found.absent()) {
        value = std::move(found);
        break;
      }
    }
    out.SetMember(&machine.heap(), std::move(key), std::move(value));
  }
  return out;
}

Value SetPathNative(Machine& machine, Value& input, Value* args) {
  if (!machine.Tick(static_cast<int64_t>(args[0].size()))) return {};
  return SetPath(machine, std::move(input), args[0], args[1]);
}
Value DeletePathsNative(Machine& machine, Value& input, Value* args) {
  Value target = input;
  return DeletePaths(machine, std::move(target), args[0]);
}

Value ToArray(Machine& machine, Value& input, Value*) {
  if (input.is_array()) return input;
  return Value::Array(&machine.heap(), {input});
}

// Events [path, leaf], and [path] at the end of each container.
bool StreamInto(Machine& machine, const Value& value, const Value& path, Value* out) {
  if (!machine.Tick(1 + static_cast<int64_t>(path.size()))) return false;
  if (machine.heap().exceeded()) {
    machine.FailTooLarge();
    return false;
  }
  if ((!value.is_array() && !value.is_object()) || value.size() == 0) {
    out->Append(&machine.heap(), Value::Array(&machine.heap(), {path, value}));
    return true;
  }
  Value items = value.Opened();
  Value last;
  for (size_t i = 0; i < items.size(); ++i) {
    Value inner = path;
    inner.Append(&machine.heap(), items.is_array() ? Value::Number(static_cast<double>(i)) : items.KeyValueAt(i));
    if (!StreamInto(machine, items.At(i), inner, out)) return false;
    last = std::move(inner);
  }
  out->Append(&machine.heap(), Value::Array(&machine.heap(), {last}));
  return true;
}

Value Stream(Machine& machine, Value& input, Value*) {
  Value out = Value::Array(&machine.heap());
  return StreamInto(machine, input, Value::Array(&machine.heap()), &out) ? out : Value();
}

constexpr Native kNatives[] = {
    {"not", 0, Not},
    {"type", 0, Type},
    {"length", 0, Length},
    {"keys", 0, SortedKeys},
    {"keys_unsorted", 0, UnsortedKeys},
    {"has", 1, Has},
    {"contains", 1, Contains},
    {"add", 0, AddAll},
    {"flatten", 0, FlattenAll},
    {"flatten", 1, Flatten},
    {"sort", 0, Sort},
    {"_sort_by", 1, SortBy},
    {"_group_by", 1, GroupBy},
    {"unique", 0, Unique},
    {"_unique_by", 1, UniqueBy},
    {"min", 0, Min},
    {"max", 0, Max},
    {"_min_by", 1, MinBy},
    {"_max_by", 1, MaxBy},
    {"reverse", 0, Reverse},
    {"bsearch", 1, BinarySearch},
    {"transpose", 0, Transpose},
    {"to_entries", 0, ToEntries},
    {"from_entries", 0, FromEntries},
    {"setpath", 2, SetPathNative},
    {"delpaths", 1, DeletePathsNative},
    {"toarray", 0, ToArray},
    {"_stream", 0, Stream},
};

}  // namespace

NativeTable CollectionNatives() { return {kNatives, std::size(kNatives)}; }

}  // namespace tutti::engine::expressions
