// Functions upon strings that take regular expressions.
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"
#include "services/workflow-engine/domain/expressions/regex.h"

namespace tutti::engine::expressions {
namespace {

std::string Named(const Value& value) { return absl::StrCat(value.type_name(), " (", Excerpt(value), ")"); }

// Reads the pattern and the flags of the arguments, also as `["pattern", "flags"]`.
struct Search {
  Regex* regex = nullptr;
  RegexFlags flags;
  std::string pattern;  // kept: the arguments may be borrowed
};

bool Prepare(Machine& machine, const Value& input, const Value& re, const Value& flags, Search* out) {
  Value pattern = re, letters = flags;
  if (re.is_array()) {
    if (re.size() == 0) {
      machine.Fail("array not a string or array");
      return false;
    }
    if (re.size() > 1) letters = re.At(1);
    pattern = re.At(0);
  }
  if (!input.is_string()) {
    machine.Fail(absl::StrCat(Named(input), " cannot be matched, as it is not a string"));
    return false;
  }
  if (!pattern.is_string()) {
    machine.Fail(absl::StrCat(Named(pattern), " cannot be matched, as it is not a string"));
    return false;
  }
  if (!letters.is_null() && !letters.is_string()) {
    machine.Fail(absl::StrCat(Named(letters), " is not a string"));
    return false;
  }
  if (letters.is_string() && !ParseRegexFlags(letters.text(), &out->flags)) {
    machine.Fail(absl::StrCat(letters.text(), " is not a valid modifier string"));
    return false;
  }
  if (!machine.Tick(static_cast<int64_t>(input.text().size() / 16 + pattern.text().size()))) return false;
  out->pattern = std::string(pattern.text());
  std::string error;
  out->regex = machine.regexes().Get(out->pattern, out->flags, input.text(), &error);
  if (!out->regex) machine.Fail(absl::StrCat(out->pattern, " (at offset 0) is not a valid regex: ", error));
  return out->regex != nullptr;
}

// Calls `on_match` for the first match, or for all of them. False: the machine has failed, or its slice is over.
template <class OnMatch>
bool ForEachMatch(Machine& machine, absl::string_view text, Search& search, bool global, OnMatch on_match) {
  Regex::Groups groups;
  size_t start = 0;
  for (;;) {
    RegexResult result = search.regex->Find(text, start, machine.StepsLeft(), &groups);
    if (result == RegexResult::kTooManySteps) {
      machine.EndSlice();
      return false;
    }
    if (result == RegexResult::kFailed) {
      machine.Fail(absl::StrCat(search.pattern, " (at offset 0) could not be matched"));
      return false;
    }
    if (result == RegexResult::kNoMatch) return true;
    if (!machine.Tick(4 + static_cast<int64_t>(groups.size()))) return false;
    if (!on_match(groups)) return false;
    if (machine.heap().exceeded()) {
      machine.FailTooLarge();
      return false;
    }
    if (!global) return true;
    auto end = static_cast<size_t>(groups[0].second);
    start = groups[0].first == groups[0].second ? OffsetOfUtf8(text, 1, end) : end;
    if (groups[0].first == groups[0].second && end >= text.size()) return true;
  }
}

// Code points up to an offset; offsets are asked for in rising order, mostly.
class Offsets {
 public:
  explicit Offsets(absl::string_view text) : text_(text) {}
  double Of(int offset) {
    auto at = static_cast<size_t>(offset);
    if (at < bytes_) bytes_ = points_ = 0;
    points_ += CountUtf8(text_.substr(bytes_, at - bytes_));
    bytes_ = at;
    return static_cast<double>(points_);
  }

 private:
  absl::string_view text_;
  size_t bytes_ = 0, points_ = 0;
};

Value Piece(Machine& machine, absl::string_view text, std::pair<int, int> range) {
  if (range.first < 0) return Value::Null();
  return Value::Text(&machine.heap(), std::string(text.substr(static_cast<size_t>(range.first),
                                                              static_cast<size_t>(range.second - range.first))));
}

Value Described(Machine& machine, absl::string_view text, Offsets& offsets, std::pair<int, int> range) {
  Heap* heap = &machine.heap();
  Value out = Value::Object(heap);
  double begin = range.first < 0 ? -1 : offsets.Of(range.first);
  out.SetMember(heap, "offset", Value::Number(begin));
  out.SetMember(heap, "length", Value::Number(range.first < 0 ? 0 : offsets.Of(range.second) - begin));
  out.SetMember(heap, "string", Piece(machine, text, range));
  return out;
}

// _match(pattern; flags; only whether there is one): the matches as objects.
Value MatchAll(Machine& machine, Value& input, Value* args) {
  Search search;
  if (!Prepare(machine, input, args[0], args[1], &search)) return {};
  const bool test = args[2].truthy();
  absl::string_view text = input.text();
  Heap* heap = &machine.heap();
  Value out = Value::Array(heap);
  bool found = false;
  Offsets offsets(text);
  bool ok = ForEachMatch(machine, text, search, search.flags.global && !test, [&](const Regex::Groups& groups) {
    found = true;
    if (test) return true;
    Value match = Described(machine, text, offsets, groups[0]);
    Value captures = Value::Array(heap);
    Offsets inner = offsets;
    for (size_t i = 1; i < groups.size(); ++i) {
      auto range = groups[i];
      // A group that took part in an empty match only has not been anywhere.
      Value capture = Described(machine, text, inner, range);
      const std::string& name = search.regex->names()[i - 1];
      capture.SetMember(heap, "name", name.empty() ? Value::Null() : Value::Text(heap, name));
      captures.Append(heap, std::move(capture));
    }
    match.SetMember(heap, "captures", std::move(captures));
    out.Append(heap, std::move(match));
    return true;
  });
  if (!ok) return {};
  return test ? Value::Bool(found) : out;
}

// A match's named groups as an object.
Value Captures(Machine& machine, Value& input, Value*) {
  Value out = Value::Object(&machine.heap());
  Value captures = input.is_object() ? input.Find("captures") : Value();
  if (!captures.is_array()) return out;
  for (size_t i = 0; i < captures.size(); ++i) {
    Value capture = captures.At(i);
    Value name = capture.is_object() ? capture.Find("name") : Value();
    if (name.is_string()) out.SetMember(&machine.heap(), name, capture.Find("string"));
  }
  return out;
}

Value SplitAll(Machine& machine, Value& input, Value* args) {
  Search search;
  if (!Prepare(machine, input, args[0], args[1], &search)) return {};
  absl::string_view text = input.text();
  Value out = Value::Array(&machine.heap());
  int last = 0;
  bool ok = ForEachMatch(machine, text, search, true, [&](const Regex::Groups& groups) {
    out.Append(&machine.heap(), Piece(machine, text, {last, groups[0].first}));
    last = groups[0].second;
    return true;
  });
  if (!ok) return {};
  out.Append(&machine.heap(), Piece(machine, text, {last, static_cast<int>(text.size())}));
  return out;
}

// _replace([{offset, length, with: [texts]} …]): the texts with the n-th replacement of each edit, for each n.
Value Replace(Machine& machine, Value& input, Value* args) {
  const Value& edits = args[0];
  absl::string_view text = input.text();
  std::vector<Value> results;
  size_t bytes = 0, points = 0;
  Heap* heap = &machine.heap();
  for (size_t i = 0; i < edits.size(); ++i) {
    Value edit = edits.At(i);
    if (!machine.Tick(1 + static_cast<int64_t>(results.size()))) return {};
    Value with = edit.Find("with");
    auto from = static_cast<size_t>(edit.Find("offset").number());
    size_t begin = OffsetOfUtf8(text, from - points, bytes);
    Value gap = Value::Text(heap, std::string(text.substr(bytes, begin - bytes)));
    for (size_t n = 0; n < with.size(); ++n) {
      Value piece = Add(machine, gap, with.At(n));
      if (piece.absent()) return {};
      if (n >= results.size()) results.push_back(Value::Null());
      results[n] = Add(machine, std::move(results[n]), piece);
      if (results[n].absent()) return {};
      if (heap->exceeded()) return machine.FailTooLarge();
    }
    auto length = static_cast<size_t>(edit.Find("length").number());
    bytes = OffsetOfUtf8(text, length, begin);
    points = from + length;
  }
  if (results.empty()) return Value::Array(heap, {input});
  Value tail = Value::Text(heap, std::string(text.substr(bytes)));
  for (Value& result : results) {
    result = Add(machine, std::move(result), tail);
    if (result.absent()) return {};
  }
  return Value::Array(heap, std::move(results));
}

constexpr Native kNatives[] = {
    {"_match", 3, MatchAll},
    {"_captures", 0, Captures},
    {"_split", 2, SplitAll},
    {"_replace", 1, Replace},
};

}  // namespace

NativeTable RegexNatives() { return {kNatives, std::size(kNatives)}; }

}  // namespace tutti::engine::expressions
