// Arithmetic, indexing, and changes by path.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

constexpr double kMaxIndex = 536870911;
constexpr size_t kMaxPath = 10'000;

std::string Named(const Value& value) { return absl::StrCat(value.type_name(), " (", Excerpt(value), ")"); }

Value Refuse(Machine& machine, const Value& left, const Value& right, absl::string_view what) {
  return machine.Fail(absl::StrCat(Named(left), " and ", Named(right), " cannot be ", what));
}

// A copy of the values from `from` to `to` of an array.
Value Part(Machine& machine, const Value& array, size_t from, size_t to) {
  if (!machine.Reserve((to - from) * sizeof(Value)) || !machine.Tick(static_cast<int64_t>((to - from) / 4))) return {};
  std::vector<Value> items;
  items.reserve(to - from);
  for (size_t i = from; i < to; ++i) items.push_back(array.At(i));
  return Value::Array(&machine.heap(), std::move(items));
}

// A slice's bounds among `size` items: from rounded down, to rounded up, negative ones from the end, all kept inside.
bool SliceBounds(Machine& machine, const Value& from, const Value& to, size_t size, size_t* begin, size_t* end) {
  auto bad = [](const Value& bound) { return !bound.is_null() && !bound.is_number(); };
  if (bad(from) || bad(to)) {
    machine.Fail("Start and end indices of an array slice must be numbers");
    return false;
  }
  const auto length = static_cast<double>(size);
  double first = from.is_null() || std::isnan(from.number()) ? 0 : from.number();
  double last = to.is_null() || std::isnan(to.number()) ? length : to.number();
  if (first < 0) first += length;
  if (last < 0) last += length;
  first = std::clamp(std::floor(first), 0.0, length);
  last = std::clamp(std::ceil(last), first, length);
  *begin = static_cast<size_t>(first);
  *end = static_cast<size_t>(last);
  return true;
}

bool IsSliceKey(const Value& key) { return key.is_object(); }

Value BoundOf(const Value& key, absl::string_view name) {
  Value bound = key.Find(name);
  return bound.absent() ? Value::Null() : bound;
}

Value MergeDeep(Machine& machine, Value left, const Value& right, size_t depth) {
  if (depth > kMaxPath) return machine.Fail("Object merge too deep");
  Value members = right.Opened();
  for (size_t i = 0; i < members.size(); ++i) {
    if (!machine.Tick(1)) return {};
    Value value = members.At(i);
    Value old = left.Find(members.KeyAt(i));
    if (value.is_object() && old.is_object()) {
      value = MergeDeep(machine, std::move(old), value, depth + 1);
      if (value.absent()) return {};
    }
    left.SetMember(&machine.heap(), members.KeyValueAt(i), std::move(value));
  }
  return left;
}

Value RepeatText(Machine& machine, const Value& text, double times) {
  if (std::isnan(times) || times < 0) return Value::Null();
  absl::string_view piece = text.text();
  const double size = static_cast<double>(piece.size()) * std::floor(times);
  if (piece.empty()) return Value::Text(&machine.heap(), "");
  if (size > std::numeric_limits<int32_t>::max()) return machine.Fail("Repeat string result too long");
  const auto bytes = static_cast<size_t>(size);
  if (!machine.Reserve(bytes) || !machine.Tick(static_cast<int64_t>(bytes / 64))) return {};
  std::string out;
  out.reserve(bytes);
  while (out.size() < bytes) absl::StrAppend(&out, piece);
  return Value::Text(&machine.heap(), std::move(out));
}

int64_t ToInteger(double number) {
  if (number < -9.2233720368547758e18) return std::numeric_limits<int64_t>::min();
  if (number >= 9.2233720368547758e18) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(number);
}

Value CannotIndex(Machine& machine, const Value& target, const Value& key) {
  return machine.Fail(absl::StrCat("Cannot index ", target.type_name(), " with ", Named(key)));
}

Value SplitText(Machine& machine, absl::string_view text, absl::string_view separator) {
  Value out = Value::Array(&machine.heap());
  if (text.empty()) return out;
  if (!machine.Tick(static_cast<int64_t>(text.size() / 16))) return {};
  auto add = [&](absl::string_view piece) {
    out.Append(&machine.heap(), Value::Text(&machine.heap(), std::string(piece)));
    return !machine.heap().exceeded();
  };
  if (separator.empty()) {
    for (size_t at = 0; at < text.size();) {
      size_t next = OffsetOfUtf8(text, 1, at);
      if (!add(text.substr(at, next - at))) return machine.FailTooLarge();
      at = next;
    }
    return out;
  }
  for (size_t at = 0;;) {
    size_t end = text.find(separator, at);
    if (!add(text.substr(at, end == absl::string_view::npos ? end : end - at))) return machine.FailTooLarge();
    if (end == absl::string_view::npos) return out;
    at = end + separator.size();
  }
}

// Puts `value`, an array, in place of what the slice `key` of the array `target` names.
Value ReplaceSlice(Machine& machine, Value target, const Value& key, const Value& value) {
  if (target.is_null()) target = Value::Array(&machine.heap());
  if (target.is_string()) return machine.Fail("Cannot update string slices");
  if (!target.is_array()) return CannotIndex(machine, target, key);
  if (!value.is_array()) return machine.Fail("A slice of an array can only be assigned another array");
  size_t begin = 0, end = 0;
  if (!SliceBounds(machine, BoundOf(key, "start"), BoundOf(key, "end"), target.size(), &begin, &end)) return {};
  if (!machine.Reserve((target.size() + value.size()) * sizeof(Value)) ||
      !machine.Tick(static_cast<int64_t>((target.size() + value.size()) / 4))) {
    return {};
  }
  std::vector<Value> items;
  items.reserve(target.size() + value.size());
  for (size_t i = 0; i < begin; ++i) items.push_back(target.At(i));
  for (size_t i = 0; i < value.size(); ++i) items.push_back(value.At(i));
  for (size_t i = end; i < target.size(); ++i) items.push_back(target.At(i));
  return Value::Array(&machine.heap(), std::move(items));
}

// `target` with `value` at `key`, which Index would find.
Value SetKey(Machine& machine, Value target, const Value& key, Value value) {
  if (key.is_string() && (target.is_object() || target.is_null())) {
    if (target.is_null()) target = Value::Object(&machine.heap());
    target.SetMember(&machine.heap(), key, std::move(value));
    return target;
  }
  if (key.is_number() && (target.is_array() || target.is_null())) {
    if (std::isnan(key.number())) return machine.Fail("Cannot set array element at NaN index");
    if (target.is_null()) target = Value::Array(&machine.heap());
    double at = std::trunc(key.number());
    if (at < 0) at += static_cast<double>(target.size());
    if (at < 0) return machine.Fail("Out of bounds negative array index");
    if (at > kMaxIndex) return machine.Fail("Array index too large");
    const auto index = static_cast<size_t>(at);
    if (index >= target.size() && !machine.Reserve((index + 1 - target.size()) * sizeof(Value))) return {};
    target.SetAt(&machine.heap(), index, std::move(value));
    return target;
  }
  if (IsSliceKey(key) && (target.is_array() || target.is_null() || target.is_string())) {
    return ReplaceSlice(machine, std::move(target), key, value);
  }
  if (key.is_array() && target.is_array()) return machine.Fail("Cannot update field at array index of array");
  return CannotIndex(machine, target, key);
}

// `target` without what `keys` name, all at once: each means what it did before the others were gone.
Value DeleteKeys(Machine& machine, Value target, const std::vector<Value>& keys) {
  if (keys.empty() || target.is_null()) return target;
  if (target.is_object()) {
    for (const Value& key : keys) {
      if (!key.is_string())
        return machine.Fail(absl::StrCat("Cannot delete field at object index of ", key.type_name()));
      if (!machine.Tick(1 + static_cast<int64_t>(target.size() / 8))) return {};
      target.RemoveMember(&machine.heap(), key.text());
    }
    return target;
  }
  if (!target.is_array()) return machine.Fail(absl::StrCat("Cannot delete fields from ", target.type_name()));
  const size_t size = target.size();
  if (!machine.Tick(static_cast<int64_t>(size / 8 + keys.size()))) return {};
  std::vector<bool> gone(size);
  for (const Value& key : keys) {
    size_t begin = 0, end = 0;
    if (key.is_number()) {
      double at = std::trunc(key.number());
      if (at < 0) at += static_cast<double>(size);
      if (!(at >= 0 && at < static_cast<double>(size))) continue;
      begin = static_cast<size_t>(at);
      end = begin + 1;
    } else if (IsSliceKey(key)) {
      if (!SliceBounds(machine, BoundOf(key, "start"), BoundOf(key, "end"), size, &begin, &end)) return {};
      if (!machine.Tick(static_cast<int64_t>((end - begin) / 8))) return {};
    } else {
      return machine.Fail(absl::StrCat("Cannot delete field at array index of ", key.type_name()));
    }
    for (size_t i = begin; i < end; ++i) gone[i] = true;
  }
  auto& items = target.MutableItems(&machine.heap());
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    if (gone[i]) continue;
    if (kept != i) items[kept] = std::move(items[i]);
    ++kept;
  }
  items.resize(kept);
  return target;
}

// `paths` from `begin` to `end` are sorted, and share their first `depth` keys, which lead to `target`.
Value DeleteSorted(Machine& machine, Value target, const std::vector<Value>& paths, size_t begin, size_t end,
                   size_t depth) {
  if (target.is_null()) return target;
  std::vector<Value> keys;
  for (size_t last = end; last > begin;) {
    if (!machine.Tick(1)) return {};
    Value key = paths[last - 1].At(depth);
    size_t first = last;
    bool here = false;  // the key itself is to go, with what is inside
    do {
      --first;
      here |= paths[first].size() == depth + 1;
      if (first == begin) break;
      const std::optional<int> order = machine.CompareValues(paths[first - 1].At(depth), key);
      if (!order) return {};
      if (*order != 0) break;
    } while (true);
    if (here) {
      keys.push_back(std::move(key));
    } else {
      Value inner = Index(machine, target, key);
      if (inner.absent()) return {};
      if (!inner.is_null()) {
        inner = DeleteSorted(machine, std::move(inner), paths, first, last, depth + 1);
        if (inner.absent()) return {};
        target = SetKey(machine, std::move(target), key, std::move(inner));
        if (target.absent()) return {};
      }
    }
    last = first;
  }
  return DeleteKeys(machine, std::move(target), keys);
}

}  // namespace

Value Add(Machine& machine, Value left, const Value& right) {
  if (left.is_null()) return right;
  if (right.is_null()) return left;
  if (left.is_number() && right.is_number()) return Value::Number(left.number() + right.number());
  if (left.is_string() && right.is_string()) {
    if (!machine.Reserve(right.text().size())) return {};
    if (left.text().empty()) return right;
    std::string piece;
    absl::string_view text = right.text();
    if (left.SameAs(right)) text = piece = std::string(text);
    left.AppendText(&machine.heap(), text);
    return left;
  }
  if (left.is_array() && right.is_array()) {
    if (!machine.Reserve(right.size() * sizeof(Value))) return {};
    const Value other = right;
    const size_t count = other.size();
    for (size_t i = 0; i < count; ++i) left.Append(&machine.heap(), other.At(i));
    return left;
  }
  if (left.is_object() && right.is_object()) {
    Value other = right.Opened();
    for (size_t i = 0; i < other.size(); ++i) {
      left.SetMember(&machine.heap(), other.KeyValueAt(i), other.At(i));
      if (machine.heap().exceeded()) return machine.FailTooLarge();
    }
    return left;
  }
  return Refuse(machine, left, right, "added");
}

Value Subtract(Machine& machine, Value left, const Value& right) {
  if (left.is_number() && right.is_number()) return Value::Number(left.number() - right.number());
  if (!left.is_array() || !right.is_array()) return Refuse(machine, left, right, "subtracted");
  // The right's values in order, to be searched.
  std::vector<Value> gone;
  gone.reserve(right.size());
  for (size_t i = 0; i < right.size(); ++i) gone.push_back(right.At(i));
  bool over = false;
  auto below = [&](const Value& a, const Value& b) {
    if (over) return false;
    const std::optional<int> order = machine.CompareValues(a, b);
    over = !order;
    return order.value_or(0) < 0;
  };
  std::stable_sort(gone.begin(), gone.end(), below);
  Value out = Value::Array(&machine.heap());
  for (size_t i = 0; i < left.size() && !over; ++i) {
    Value item = left.At(i);
    auto at = std::lower_bound(gone.begin(), gone.end(), item, below);
    bool nan = item.is_number() && std::isnan(item.number());
    if (at == gone.end() || nan || below(item, *at)) out.Append(&machine.heap(), std::move(item));
  }
  return over ? Value() : out;
}

Value Multiply(Machine& machine, Value left, const Value& right) {
  if (left.is_number() && right.is_number()) return Value::Number(left.number() * right.number());
  if (left.is_string() && right.is_number()) return RepeatText(machine, left, right.number());
  if (left.is_number() && right.is_string()) return RepeatText(machine, right, left.number());
  if (left.is_object() && right.is_object()) return MergeDeep(machine, std::move(left), right, 0);
  return Refuse(machine, left, right, "multiplied");
}

Value Divide(Machine& machine, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (right.number() == 0) return Refuse(machine, left, right, "divided because the divisor is zero");
    return Value::Number(left.number() / right.number());
  }
  if (left.is_string() && right.is_string()) return SplitText(machine, left.text(), right.text());
  return Refuse(machine, left, right, "divided");
}

Value Modulo(Machine& machine, const Value& left, const Value& right) {
  if (!left.is_number() || !right.is_number()) return Refuse(machine, left, right, "divided");
  if (std::isnan(left.number()) || std::isnan(right.number())) return Value::Number(NAN);
  int64_t divisor = ToInteger(right.number());
  if (divisor == 0) return Refuse(machine, left, right, "divided (remainder) because the divisor is zero");
  if (divisor == -1) return Value::Number(0);  // the smallest integer has no counterpart
  return Value::Number(static_cast<double>(ToInteger(left.number()) % divisor));
}

Value Negate(Machine& machine, const Value& value) {
  if (!value.is_number()) return machine.Fail(absl::StrCat(Named(value), " cannot be negated"));
  absl::string_view text = value.literal();
  if (text.empty()) return Value::Number(-value.number());
  return Value::Literal(&machine.heap(), text[0] == '-' ? std::string(text.substr(1)) : absl::StrCat("-", text));
}

Value Index(Machine& machine, const Value& target, const Value& key) {
  if (key.is_string()) {
    if (target.is_object()) {
      Value found = target.Find(key.text());
      return found.absent() ? Value::Null() : found;
    }
    if (target.is_null()) return Value::Null();
  } else if (key.is_number()) {
    if (target.is_array()) {
      double at = std::floor(key.number());
      if (at < 0) at += static_cast<double>(target.size());
      if (!(at >= 0 && at < static_cast<double>(target.size()))) return Value::Null();
      return target.At(static_cast<size_t>(at));
    }
    if (target.is_null()) return Value::Null();
  } else if (key.is_object()) {
    if (target.is_array() || target.is_string() || target.is_null()) {
      return Slice(machine, target, BoundOf(key, "start"), BoundOf(key, "end"));
    }
  } else if (key.is_array() && target.is_array()) {
    // Returns the places where the array `key` begins in the other.
    Value out = Value::Array(&machine.heap());
    if (key.size() == 0) return Value::Null();
    for (size_t i = 0; i + key.size() <= target.size(); ++i) {
      bool same = true;
      for (size_t k = 0; k < key.size() && same; ++k) {
        const std::optional<int> order = machine.CompareValues(target.At(i + k), key.At(k));
        if (!order) return {};
        same = *order == 0;
      }
      if (same) out.Append(&machine.heap(), Value::Number(static_cast<double>(i)));
    }
    return out;
  } else if (key.is_null() && target.is_null()) {
    return Value::Null();
  }
  return CannotIndex(machine, target, key);
}

Value Slice(Machine& machine, const Value& target, const Value& from, const Value& to) {
  if (target.is_null()) return Value::Null();
  size_t begin = 0, end = 0;
  if (target.is_array()) {
    if (!SliceBounds(machine, from, to, target.size(), &begin, &end)) return {};
    if (begin == 0 && end == target.size()) return target;
    return Part(machine, target, begin, end);
  }
  if (target.is_string()) {
    absl::string_view text = target.text();
    if (!machine.Tick(static_cast<int64_t>(text.size() / 64))) return {};
    if (!SliceBounds(machine, from, to, CountUtf8(text), &begin, &end)) return {};
    size_t first = OffsetOfUtf8(text, begin);
    size_t last = OffsetOfUtf8(text, end - begin, first);
    if (!machine.Reserve(last - first)) return {};
    return Value::Text(&machine.heap(), std::string(text.substr(first, last - first)));
  }
  return machine.Fail(absl::StrCat("Cannot index ", target.type_name(), " with object"));
}

Value GetPath(Machine& machine, const Value& target, const Value& path) {
  if (!path.is_array()) return machine.Fail("Path must be specified as an array");
  if (path.size() > kMaxPath) return machine.Fail("Path too deep");
  Value value = target;
  for (size_t i = 0; i < path.size(); ++i) {
    if (value.is_null()) return value;
    value = Index(machine, value, path.At(i));
    if (value.absent()) return {};
  }
  return value;
}

Value SetPath(Machine& machine, Value target, const Value& path, Value value) {
  if (!path.is_array()) return machine.Fail("Path must be specified as an array");
  if (path.size() > kMaxPath) return machine.Fail("Path too deep");
  if (path.size() == 0) return value;
  // Down: each container leaves its place while its inside changes, so that it can be changed where it is.
  std::vector<Value> outer;
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    Value key = path.At(i);
    if (target.is_array() && key.is_number() && std::isnan(key.number())) {
      return machine.Fail("Cannot set array element at NaN index");
    }
    Value inner = Index(machine, target, key);
    if (inner.absent()) return {};
    bool moved = (target.is_object() && key.is_string()) ||
                 (target.is_array() && key.is_number() && std::floor(key.number()) >= 0 &&
                  std::floor(key.number()) < static_cast<double>(target.size()));
    if (moved && (inner.is_array() || inner.is_object())) {
      target = SetKey(machine, std::move(target), key, Value::Null());
      if (target.absent()) return {};
    }
    outer.push_back(std::move(target));
    target = std::move(inner);
  }
  Value out = SetKey(machine, std::move(target), path.At(path.size() - 1), std::move(value));
  for (size_t i = outer.size(); i-- > 0 && !out.absent();) {
    out = SetKey(machine, std::move(outer[i]), path.At(i), std::move(out));
  }
  return out;
}

Value DeletePaths(Machine& machine, Value target, const Value& paths) {
  if (!paths.is_array()) return machine.Fail("Paths must be specified as an array");
  std::vector<Value> sorted;
  for (size_t i = 0; i < paths.size(); ++i) {
    Value path = paths.At(i);
    if (!path.is_array()) return machine.Fail("Path must be specified as an array");
    if (path.size() > kMaxPath) return machine.Fail("Path too deep");
    sorted.push_back(std::move(path));
  }
  bool over = false;
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Value& a, const Value& b) {
    if (over) return false;
    const std::optional<int> order = machine.CompareValues(a, b);
    over = !order;
    return order.value_or(0) < 0;
  });
  if (over) return {};
  if (sorted.empty()) return target;
  if (sorted[0].size() == 0) return Value::Null();
  return DeleteSorted(machine, std::move(target), sorted, 0, sorted.size(), 0);
}

}  // namespace tutti::engine::expressions
