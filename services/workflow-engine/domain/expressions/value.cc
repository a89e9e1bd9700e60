#include "services/workflow-engine/domain/expressions/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/json/number_text.h"

namespace tutti::engine::expressions {

struct LiteralNode : Node {
  double number = 0;
  std::string text;
};

struct StringNode : Node {
  std::string text;
  size_t charged = 0;
};

struct ArrayNode : Node {
  std::vector<Value> items;
  size_t charged = 0;
};

struct ObjectNode : Node {
  struct Member {
    Value key, value;
  };
  std::vector<Member> members;
  // Positions by name; built for more than kSmallObject members.
  std::unique_ptr<absl::flat_hash_map<absl::string_view, uint32_t>> index;
  size_t charged = 0;
};

struct NodeAccess {
  static StringNode* String(const Value& value) { return static_cast<StringNode*>(value.raw()); }
  static ArrayNode* Array(const Value& value) { return static_cast<ArrayNode*>(value.raw()); }
  static ObjectNode* Object(const Value& value) { return static_cast<ObjectNode*>(value.raw()); }
};

namespace {

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53: doubles from here on skip some
constexpr size_t kSmallObject = 8;
constexpr size_t kIndexBytes = 32;  // of one position

// Brings what a node has been charged in line with what it holds.
template <class N>
void Recharge(N* node, size_t bytes) {
  if (node->heap) {
    if (bytes >= node->charged) {
      node->heap->Charge(bytes - node->charged);
    } else {
      node->heap->Release(node->charged - bytes);
    }
  }
  node->charged = bytes;
}

void Recharge(StringNode* node) { Recharge(node, sizeof(StringNode) + node->text.capacity()); }
void Recharge(ArrayNode* node) { Recharge(node, sizeof(ArrayNode) + node->items.capacity() * sizeof(Value)); }
void Recharge(ObjectNode* node) {
  Recharge(node, sizeof(ObjectNode) + node->members.capacity() * sizeof(ObjectNode::Member) +
                     (node->index ? node->members.size() * kIndexBytes : 0));
}

void Deepen(Node* node, const Value& inner) {
  node->depth = std::max(node->depth, inner.depth() + 1);
  if (node->depth > kMaxValueDepth && node->heap) node->heap->MarkTooDeep();
}

int64_t PositionOf(const ObjectNode& object, absl::string_view key) {
  if (object.index) {
    auto it = object.index->find(key);
    return it == object.index->end() ? -1 : static_cast<int64_t>(it->second);
  }
  for (size_t i = 0; i < object.members.size(); ++i) {
    if (object.members[i].key.text() == key) return static_cast<int64_t>(i);
  }
  return -1;
}

void BuildIndex(ObjectNode* object) {
  object->index = nullptr;
  if (object->members.size() <= kSmallObject) return;
  object->index = std::make_unique<absl::flat_hash_map<absl::string_view, uint32_t>>();
  for (size_t i = 0; i < object->members.size(); ++i) {
    object->index->emplace(object->members[i].key.text(), static_cast<uint32_t>(i));
  }
}

}  // namespace

Value Value::Literal(Heap* heap, std::string text) {
  double number = NumberTextToDouble(text);
  auto* node = new LiteralNode;
  node->heap = heap;
  node->number = number;
  node->text = std::move(text);
  if (heap) heap->Charge(sizeof(LiteralNode) + node->text.capacity());
  return Value(Rep::kLiteral, node);
}

Value Value::NumberFromText(Heap* heap, absl::string_view text) {
  double number = NumberTextToDouble(text);
  if (std::fabs(number) < kExactIntegers && FormatNumber(number) == text) return Number(number);
  return Literal(heap, std::string(text));
}

Value Value::Text(Heap* heap, std::string text) {
  auto* node = new StringNode;
  node->heap = heap;
  node->text = std::move(text);
  Recharge(node);
  return Value(Rep::kString, node);
}

Value Value::Array(Heap* heap, std::vector<Value> items) {
  auto* node = new ArrayNode;
  node->heap = heap;
  node->items = std::move(items);
  for (const Value& item : node->items) Deepen(node, item);
  Recharge(node);
  return Value(Rep::kArray, node);
}

Value Value::Object(Heap* heap) {
  auto* node = new ObjectNode;
  node->heap = heap;
  Recharge(node);
  return Value(Rep::kObject, node);
}

Value Value::Borrow(const Json* json, Heap* heap) {
  switch (json->type()) {
    case Json::value_t::boolean:
      return Bool(json->get<bool>());
    case Json::value_t::number_float:
      return Number(json->get<double>());
    case Json::value_t::number_integer: {
      int64_t number = json->get<int64_t>();
      if (std::abs(number) < (int64_t{1} << 53)) return Number(static_cast<double>(number));
      return Literal(heap, std::to_string(number));
    }
    case Json::value_t::number_unsigned: {
      uint64_t number = json->get<uint64_t>();
      if (number < (uint64_t{1} << 53)) return Number(static_cast<double>(number));
      return Literal(heap, std::to_string(number));
    }
    case Json::value_t::binary:
      return Literal(heap, std::string(ExactNumberText(*json)));
    case Json::value_t::string:
    case Json::value_t::array:
    case Json::value_t::object: {
      return Value(json->is_string()  ? Rep::kBorrowed
                   : json->is_array() ? Rep::kBorrowedArray
                                      : Rep::kBorrowedObject,
                   json);
    }
    default:
      return Null();
  }
}

void Value::Free() {
  Heap* heap = raw()->heap;
  switch (rep_) {
    case Rep::kLiteral: {
      auto* node = static_cast<LiteralNode*>(raw());
      if (heap) heap->Release(sizeof(LiteralNode) + node->text.capacity());
      delete node;
      return;
    }
    case Rep::kString: {
      auto* node = static_cast<StringNode*>(raw());
      if (heap) heap->Release(node->charged);
      delete node;
      return;
    }
    case Rep::kArray: {
      auto* node = static_cast<ArrayNode*>(raw());
      if (heap) heap->Release(node->charged);
      delete node;
      return;
    }
    default: {
      auto* node = static_cast<ObjectNode*>(raw());
      if (heap) heap->Release(node->charged);
      delete node;
    }
  }
}

Kind Value::kind() const {
  switch (rep_) {
    case Rep::kFalse:
      return Kind::kFalse;
    case Rep::kTrue:
      return Kind::kTrue;
    case Rep::kDouble:
    case Rep::kLiteral:
      return Kind::kNumber;
    case Rep::kBorrowed:
    case Rep::kString:
      return Kind::kString;
    case Rep::kBorrowedArray:
    case Rep::kArray:
      return Kind::kArray;
    case Rep::kBorrowedObject:
    case Rep::kObject:
      return Kind::kObject;
    default:
      return Kind::kNull;
  }
}

const char* Value::type_name() const {
  switch (kind()) {
    case Kind::kNull:
      return "null";
    case Kind::kFalse:
    case Kind::kTrue:
      return "boolean";
    case Kind::kNumber:
      return "number";
    case Kind::kString:
      return "string";
    case Kind::kArray:
      return "array";
    default:
      return "object";
  }
}

double Value::number() const {
  return rep_ == Rep::kLiteral  ? static_cast<const LiteralNode*>(raw())->number
         : rep_ == Rep::kDouble ? std::bit_cast<double>(bits_)
                                : 0;
}

absl::string_view Value::literal() const {
  return rep_ == Rep::kLiteral ? absl::string_view(static_cast<const LiteralNode*>(raw())->text) : absl::string_view();
}

absl::string_view Value::text() const {
  if (rep_ == Rep::kString) return static_cast<const StringNode*>(raw())->text;
  if (rep_ == Rep::kBorrowed) return json()->get_ref<const std::string&>();
  return {};
}

size_t Value::size() const {
  switch (rep_) {
    case Rep::kArray:
      return static_cast<const ArrayNode*>(raw())->items.size();
    case Rep::kObject:
      return static_cast<const ObjectNode*>(raw())->members.size();
    case Rep::kBorrowedArray:
    case Rep::kBorrowedObject:
      return json()->size();
    default:
      return 0;
  }
}

Value Value::At(size_t index) const {
  switch (rep_) {
    case Rep::kArray:
      return static_cast<const ArrayNode*>(raw())->items[index];
    case Rep::kObject:
      return static_cast<const ObjectNode*>(raw())->members[index].value;
    case Rep::kBorrowedArray:
      return Borrow(&(*json())[index], nullptr);
    case Rep::kBorrowedObject:
      return Borrow(&std::next(json()->get_ref<const Json::object_t&>().begin(), static_cast<int64_t>(index))->second,
                    nullptr);
    default:
      return {};
  }
}

absl::string_view Value::KeyAt(size_t index) const {
  if (rep_ == Rep::kObject) return static_cast<const ObjectNode*>(raw())->members[index].key.text();
  if (rep_ == Rep::kBorrowedObject) {
    return std::next(json()->get_ref<const Json::object_t&>().begin(), static_cast<int64_t>(index))->first;
  }
  return {};
}

Value Value::KeyValueAt(size_t index) const {
  if (rep_ == Rep::kObject) return static_cast<const ObjectNode*>(raw())->members[index].key;
  return Text(nullptr, std::string(KeyAt(index)));
}

Value Value::Find(absl::string_view key) const {
  if (rep_ == Rep::kObject) {
    const auto& object = *static_cast<const ObjectNode*>(raw());
    int64_t at = PositionOf(object, key);
    return at < 0 ? Value() : object.members[static_cast<size_t>(at)].value;
  }
  if (rep_ == Rep::kBorrowedObject) {
    auto it = json()->find(key);
    return it == json()->end() ? Value() : Borrow(&*it, nullptr);
  }
  return {};
}

Value Value::Opened() const {
  Value out = *this;
  if (rep_ == Rep::kBorrowedObject) out.Own(nullptr);
  return out;
}

void Value::Own(Heap* heap) {
  switch (rep_) {
    case Rep::kBorrowed:
      *this = Text(heap, json()->get_ref<const std::string&>());
      return;
    case Rep::kBorrowedArray: {
      std::vector<Value> items;
      items.reserve(json()->size());
      for (const auto& item : *json()) items.push_back(Borrow(&item, heap));
      *this = Array(heap, std::move(items));
      return;
    }
    case Rep::kBorrowedObject: {
      Value out = Object(heap);
      auto* node = NodeAccess::Object(out);
      node->members.reserve(json()->size());
      for (const auto& [key, item] : json()->get_ref<const Json::object_t&>()) {
        node->members.push_back({Text(heap, key), Borrow(&item, heap)});
      }
      node->depth = 1;
      BuildIndex(node);
      Recharge(node);
      *this = std::move(out);
      return;
    }
    case Rep::kString:
      if (raw()->refs != 1) *this = Text(heap, static_cast<StringNode*>(raw())->text);
      return;
    case Rep::kArray:
      if (raw()->refs != 1) *this = Array(heap, static_cast<ArrayNode*>(raw())->items);
      return;
    case Rep::kObject:
      if (raw()->refs != 1) {
        Value out = Object(heap);
        auto* node = NodeAccess::Object(out);
        node->members = static_cast<ObjectNode*>(raw())->members;
        node->depth = raw()->depth;
        BuildIndex(node);
        Recharge(node);
        *this = std::move(out);
      }
      return;
    default:
      return;
  }
}

void Value::SetAt(Heap* heap, size_t index, Value value) {
  Own(heap);
  auto* node = static_cast<ArrayNode*>(raw());
  Deepen(node, value);
  if (index >= node->items.size()) {
    node->items.resize(index + 1, Null());
    Recharge(node);
  }
  node->items[index] = std::move(value);
}

void Value::Append(Heap* heap, Value value) {
  Own(heap);
  auto* node = static_cast<ArrayNode*>(raw());
  Deepen(node, value);
  size_t before = node->items.capacity();
  node->items.push_back(std::move(value));
  if (node->items.capacity() != before) Recharge(node);
}

void Value::Truncate(Heap* heap, size_t size) {
  Own(heap);
  auto* node = static_cast<ArrayNode*>(raw());
  if (size < node->items.size()) node->items.resize(size);
}

std::vector<Value>& Value::MutableItems(Heap* heap) {
  Own(heap);
  return static_cast<ArrayNode*>(raw())->items;
}

void Value::Recount(Heap*) {
  auto* node = static_cast<ArrayNode*>(raw());
  for (const Value& item : node->items) Deepen(node, item);
  Recharge(node);
}

void Value::SetMember(Heap* heap, Value key, Value value) {
  Own(heap);
  auto* node = static_cast<ObjectNode*>(raw());
  Deepen(node, value);
  int64_t at = PositionOf(*node, key.text());
  if (at >= 0) {
    node->members[static_cast<size_t>(at)].value = std::move(value);
    return;
  }
  node->members.push_back({std::move(key), std::move(value)});
  if (node->index) {
    node->index->emplace(node->members.back().key.text(), static_cast<uint32_t>(node->members.size() - 1));
  } else if (node->members.size() > kSmallObject) {
    BuildIndex(node);
  }
  Recharge(node);
}

void Value::SetMember(Heap* heap, absl::string_view key, Value value) {
  SetMember(heap, Text(heap, std::string(key)), std::move(value));
}

void Value::RemoveMember(Heap* heap, absl::string_view key) {
  if (Find(key).absent()) return;
  Own(heap);
  auto* node = static_cast<ObjectNode*>(raw());
  auto at = PositionOf(*node, key);
  node->members.erase(node->members.begin() + at);
  BuildIndex(node);
  Recharge(node);
}

void Value::AppendText(Heap* heap, absl::string_view text) {
  Own(heap);
  auto* node = static_cast<StringNode*>(raw());
  size_t before = node->text.capacity();
  node->text.append(text.data(), text.size());
  if (node->text.capacity() != before) Recharge(node);
}

void Value::MakeConstant() {
  if (counted()) raw()->refs = -1;
}

void Value::FreeConstant() {
  if (!counted()) return;
  raw()->refs = 1;
  *this = Value();
}

bool Value::SameAs(const Value& other) const {
  if (rep_ != other.rep_) return false;
  switch (rep_) {
    case Rep::kNull:
    case Rep::kFalse:
    case Rep::kTrue:
      return true;
    case Rep::kDouble:
      return number() == other.number();
    case Rep::kAbsent:
      return false;
    case Rep::kBorrowed:
    case Rep::kBorrowedArray:
    case Rep::kBorrowedObject:
      return bits_ == other.bits_;
    default:
      return bits_ == other.bits_;
  }
}

std::vector<uint32_t> SortedMembers(const Value& object) {
  std::vector<uint32_t> order(object.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<absl::string_view> names(order.size());
  for (size_t i = 0; i < names.size(); ++i) names[i] = object.KeyAt(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return names[a] < names[b]; });
  return order;
}

namespace {

int CompareNumbers(const Value& a, const Value& b) {
  double x = a.number(), y = b.number();
  if (!a.literal().empty() && !b.literal().empty()) return CompareNumberTexts(a.literal(), b.literal());
  // NaN is below every number, itself included.
  if (std::isnan(x)) return -1;
  if (std::isnan(y)) return 1;
  return x < y ? -1 : x == y ? 0 : 1;
}

template <class T>
int Sign(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

}  // namespace

int Compare(const Value& a, const Value& b, CompareBudget* budget) {
  if (budget) {
    ++budget->steps;
    if (budget->over()) return 0;
  }
  Kind kind = a.kind();
  if (kind != b.kind()) return Sign(kind, b.kind());
  switch (kind) {
    case Kind::kNumber:
      return CompareNumbers(a, b);
    case Kind::kString: {
      if (budget) budget->steps += static_cast<int64_t>(std::min(a.text().size(), b.text().size()) / 64);
      int order = a.text().compare(b.text());
      return order < 0 ? -1 : order > 0 ? 1 : 0;
    }
    case Kind::kArray: {
      if (a.SameAs(b) && !budget) return 0;
      size_t common = std::min(a.size(), b.size());
      for (size_t i = 0; i < common; ++i) {
        if (int order = Compare(a.At(i), b.At(i), budget)) return order;
        if (budget && budget->over()) return 0;
      }
      return Sign(a.size(), b.size());
    }
    case Kind::kObject: {
      const Value x = a.Opened(), y = b.Opened();
      std::vector<uint32_t> left = SortedMembers(x), right = SortedMembers(y);
      if (budget) budget->steps += static_cast<int64_t>(left.size() + right.size());
      // First the sets of names, as sorted arrays; then the values by name.
      size_t common = std::min(left.size(), right.size());
      for (size_t i = 0; i < common; ++i) {
        if (int order = x.KeyAt(left[i]).compare(y.KeyAt(right[i]))) return order < 0 ? -1 : 1;
      }
      if (left.size() != right.size()) return Sign(left.size(), right.size());
      for (size_t i = 0; i < common; ++i) {
        if (int order = Compare(x.At(left[i]), y.At(right[i]), budget)) return order;
        if (budget && budget->over()) return 0;
      }
      return 0;
    }
    default:
      return 0;
  }
}

std::string FormatNumber(double number) {
  if (std::isnan(number)) return "null";
  if (number > std::numeric_limits<double>::max()) number = std::numeric_limits<double>::max();
  if (number < std::numeric_limits<double>::lowest()) number = std::numeric_limits<double>::lowest();
  if (number == 0) return std::signbit(number) ? "-0" : "0";
  if (number == std::floor(number) && std::fabs(number) < 1e15) {
    char buffer[32];
    auto end = std::to_chars(buffer, buffer + sizeof buffer, static_cast<int64_t>(number)).ptr;
    return std::string(buffer, end);
  }
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(number), std::chars_format::scientific).ptr;
  absl::string_view text(buffer, static_cast<size_t>(end - buffer));
  size_t e = text.find('e');
  std::string digits(1, text[0]);
  if (e > 2) absl::StrAppend(&digits, text.substr(2, e - 2));
  int exponent = std::stoi(std::string(text.substr(e + 1)));
  int point = exponent + 1;  // digits before the decimal point
  std::string out = number < 0 ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (point <= -4 || point > count + 15) {
    out += digits[0];
    if (count > 1) {
      out += '.';
      out += digits.substr(1);
    }
    out += 'e';
    out += exponent < 0 ? '-' : '+';
    exponent = std::abs(exponent);
    if (exponent < 10) out += '0';
    out += std::to_string(exponent);
  } else if (point <= 0) {
    out += "0.";
    out.append(static_cast<size_t>(-point), '0');
    out += digits;
  } else if (point >= count) {
    out += digits;
    out.append(static_cast<size_t>(point - count), '0');
  } else {
    out += digits.substr(0, static_cast<size_t>(point));
    out += '.';
    out += digits.substr(static_cast<size_t>(point));
  }
  return out;
}

std::string FormatNumber(const Value& number) {
  if (!number.literal().empty()) return std::string(number.literal());
  return FormatNumber(number.number());
}

}  // namespace tutti::engine::expressions
