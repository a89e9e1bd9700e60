// Values of the expression language: JSON with shared, copy-on-write parts, each counted against an evaluation's
// memory.
//
// A value that comes from a run's variables is borrowed: it points into a Json that the evaluation keeps alive, and is
// copied one level at a time, when it is changed. Values are confined to one thread at a time, except constants of a
// program, which are never counted or changed.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/json/json.h"

namespace tutti::engine::expressions {

// Nesting that a value may have; building a deeper one fails the evaluation.
inline constexpr uint32_t kMaxValueDepth = 10'010;

// The memory of one evaluation. A charge over the limit is remembered, not refused: the machine looks after each
// instruction, and natives ask before a large allocation.
class Heap {
 public:
  explicit Heap(size_t limit) : limit_(limit) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  void Charge(size_t bytes) { used_ += bytes; }
  void Release(size_t bytes) { used_ -= bytes; }
  bool HasRoomFor(size_t bytes) const { return bytes <= limit_ && used_ <= limit_ - bytes; }
  // A value has been nested deeper than kMaxValueDepth.
  void MarkTooDeep() { too_deep_ = true; }
  bool exceeded() const { return used_ > limit_ || too_deep_; }
  size_t used() const { return used_; }
  size_t limit() const { return limit_; }

 private:
  const size_t limit_;
  size_t used_ = 0;
  bool too_deep_ = false;
};

// Lists the types in the order in which jq sorts them.
enum class Kind : uint8_t { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

class Value;
struct StringNode;
struct ArrayNode;
struct ObjectNode;
struct LiteralNode;

struct Node {
  Heap* heap = nullptr;  // null: a program's constant
  int32_t refs = 1;      // negative: never counted
  uint32_t depth = 0;    // at least the nesting of what is inside
};

class Value {
 public:
  Value() = default;  // absent: no value at all
  static Value Null() { return Value(Rep::kNull); }
  static Value Bool(bool value) { return Value(value ? Rep::kTrue : Rep::kFalse); }
  static Value Number(double number) {
    Value out(Rep::kDouble);
    out.bits_ = std::bit_cast<uint64_t>(number);
    return out;
  }
  // A number whose text a double does not carry, in JSON's grammar.
  static Value Literal(Heap* heap, std::string text);
  // A number in JSON's grammar: a literal when a double would be written otherwise, or is no exact integer.
  static Value NumberFromText(Heap* heap, absl::string_view text);
  static Value Text(Heap* heap, std::string text);
  static Value Array(Heap* heap, std::vector<Value> items = {});
  static Value Object(Heap* heap);
  // `json` must outlive the value.
  static Value Borrow(const Json* json, Heap* heap);

  Value(const Value& other) : rep_(other.rep_), bits_(other.bits_) {
    if (counted() && raw()->refs >= 0) ++raw()->refs;
  }
  Value(Value&& other) noexcept : rep_(other.rep_), bits_(other.bits_) { other.rep_ = Rep::kAbsent; }
  Value& operator=(const Value& other) {
    Value copy(other);
    swap(copy);
    return *this;
  }
  Value& operator=(Value&& other) noexcept {
    if (this != &other) {
      Drop();
      rep_ = std::exchange(other.rep_, Rep::kAbsent);
      bits_ = other.bits_;
    }
    return *this;
  }
  ~Value() { Drop(); }
  void swap(Value& other) noexcept {
    std::swap(rep_, other.rep_);
    std::swap(bits_, other.bits_);
  }

  bool absent() const { return rep_ == Rep::kAbsent; }
  Kind kind() const;
  bool is(Kind kind) const { return !absent() && this->kind() == kind; }
  bool is_null() const { return rep_ == Rep::kNull; }
  bool is_boolean() const { return rep_ == Rep::kTrue || rep_ == Rep::kFalse; }
  bool is_number() const { return rep_ == Rep::kDouble || rep_ == Rep::kLiteral; }
  bool is_string() const { return is(Kind::kString); }
  bool is_array() const { return is(Kind::kArray); }
  bool is_object() const { return is(Kind::kObject); }
  // Everything but false and null.
  bool truthy() const { return rep_ != Rep::kNull && rep_ != Rep::kFalse; }
  const char* type_name() const;

  double number() const;
  // The text of a literal; empty for other numbers.
  absl::string_view literal() const;
  // Returns a string's text, valid while this value or a copy of it lives unchanged.
  absl::string_view text() const;

  // This value, opened for iteration: a borrowed object is copied one level deep, uncounted; others are shared.
  Value Opened() const;

  // Returns the number of items of an array or object, and each item by its position. Members keep the order in which
  // they were added.
  size_t size() const;
  Value At(size_t index) const;
  absl::string_view KeyAt(size_t index) const;
  Value KeyValueAt(size_t index) const;
  // Returns an object's member; absent when there is none.
  Value Find(absl::string_view key) const;
  // Nesting at most; 0 for scalars and borrowed values.
  uint32_t depth() const { return counted() ? raw()->depth : 0; }

  // Changes in place when nobody else has this value, in a copy otherwise. Of arrays: `index` is below the size, or
  // the gap is filled with null.
  void SetAt(Heap* heap, size_t index, Value value);
  void Append(Heap* heap, Value value);
  void Truncate(Heap* heap, size_t size);
  // Returns an array's items for many changes at once. Call Recount after them.
  std::vector<Value>& MutableItems(Heap* heap);
  void Recount(Heap* heap);
  // Changes an object's member. `key` is a string.
  void SetMember(Heap* heap, Value key, Value value);
  void SetMember(Heap* heap, absl::string_view key, Value value);
  void RemoveMember(Heap* heap, absl::string_view key);
  // Appends to a string.
  void AppendText(Heap* heap, absl::string_view text);

  // Sets the mark of a program's constants: no thread counts references to it. Scalars and strings only.
  void MakeConstant();
  // Frees what MakeConstant marked.
  void FreeConstant();

  // The very same value: immediates by value, others by identity.
  bool SameAs(const Value& other) const;

 private:
  enum class Rep : uint8_t {
    kAbsent,
    kNull,
    kFalse,
    kTrue,
    kDouble,
    kBorrowed,
    kBorrowedArray,
    kBorrowedObject,
    kLiteral,
    kString,
    kArray,
    kObject
  };
  explicit Value(Rep rep) : rep_(rep) {}
  Value(Rep rep, Node* node) : rep_(rep), bits_(reinterpret_cast<uintptr_t>(node)) {}
  Value(Rep rep, const Json* json) : rep_(rep), bits_(reinterpret_cast<uintptr_t>(json)) {}
  Node* raw() const { return reinterpret_cast<Node*>(bits_); }
  const Json* json() const { return reinterpret_cast<const Json*>(bits_); }
  bool counted() const { return rep_ >= Rep::kLiteral; }
  void Drop() {
    if (counted() && raw()->refs >= 0 && --raw()->refs == 0) Free();
  }
  void Free();
  void Own(Heap* heap);  // makes an array, object or string that may be changed in place

  Rep rep_ = Rep::kAbsent;
  uint64_t bits_ = 0;  // a double, a node or a borrowed Json
  friend struct NodeAccess;
};

// Negative, 0 or positive, in jq's order; numbers that keep their text are compared exactly. `steps`, when given, grows
// by the values that were looked at, and the comparison ends early, with any result, once it is above `limit`.
struct CompareBudget {
  int64_t steps = 0;
  int64_t limit = INT64_MAX;
  bool over() const { return steps > limit; }
};
int Compare(const Value& a, const Value& b, CompareBudget* budget = nullptr);

// Positions of an object's members, in the order of their names.
std::vector<uint32_t> SortedMembers(const Value& object);

// A number as jq writes it: the shortest digits that read back the same, an exponent for small and for large numbers;
// NaN is null, infinities are the largest doubles.
std::string FormatNumber(double number);
std::string FormatNumber(const Value& number);

}  // namespace tutti::engine::expressions
