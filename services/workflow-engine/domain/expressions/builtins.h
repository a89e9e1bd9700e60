// The functions that the language knows, and how values become text.
#pragma once

#include <optional>
#include <string>

#include "services/workflow-engine/domain/expressions/program.h"
#include "services/workflow-engine/domain/expressions/syntax.h"

namespace tutti::engine::expressions {

// Null when there is none. `arity` is the number of arguments.
const Native* FindNative(const std::string& name, size_t arity);
// A function that is written in the language itself; null when there is none.
const Definition* FindDefinition(const std::string& name, size_t arity);
// The reason why a function of jq is not to be had here; null for others.
const char* RefusedWord(const std::string& name);

// The number of a format such as `base64`, as kFormat takes it.
std::optional<int> FindFormat(const std::string& name);
// `value` in that format. Absent: the machine has failed.
Value FormatValue(Machine& machine, const Value& value, int format);

// JSON without spaces, in the order of the members; nesting beyond 10,000 levels is written as "<skipped: too deep>".
// Absent: the machine has failed, since the text is too long.
Value ToJsonText(Machine& machine, const Value& value);
// A short form of a value for error messages.
std::string Excerpt(const Value& value);
// Reads JSON and nothing else; absent with `*error` otherwise.
Value ParseJsonText(Heap* heap, absl::string_view text, std::string* error);

// Operators. Absent: the machine has failed. `left` may be consumed when `owned`.
Value Add(Machine& machine, Value left, const Value& right);
Value Subtract(Machine& machine, Value left, const Value& right);
Value Multiply(Machine& machine, Value left, const Value& right);
Value Divide(Machine& machine, const Value& left, const Value& right);
Value Modulo(Machine& machine, const Value& left, const Value& right);
Value Negate(Machine& machine, const Value& value);
Value Index(Machine& machine, const Value& target, const Value& key);
Value Slice(Machine& machine, const Value& target, const Value& from, const Value& to);
Value GetPath(Machine& machine, const Value& target, const Value& path);
Value SetPath(Machine& machine, Value target, const Value& path, Value value);
Value DeletePaths(Machine& machine, Value target, const Value& paths);

// Tables of natives, by file.
struct NativeTable {
  const Native* natives;
  size_t count;
};
NativeTable NumberNatives();
NativeTable TextNatives();
NativeTable CollectionNatives();
NativeTable TimeNatives();
NativeTable RegexNatives();

}  // namespace tutti::engine::expressions
