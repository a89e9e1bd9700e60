#include "runtime/json/json.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json_parser.h"
#include "runtime/json/number_text.h"
#include "runtime/json/proto_json.h"
#include "runtime/status/error.h"
#include "runtime/text/utf8.h"
#include "tutti/type/v1/payload.pb.h"

namespace tutti {
namespace {

absl::Status BadJson(absl::string_view what) { return Error(absl::StatusCode::kInvalidArgument, "INVALID_JSON", what); }

// Field of google.protobuf.Value that holds an exact number's text. Unknown to the message, and kept by all who copy
// it.
constexpr int kExactNumberField = 15001;

// Marks a payload whose numbers keep their text. The mark is white space, which no payload of version 0.1 begins with.
constexpr char kExactMark = ' ';

std::string LibraryDump(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// Writes JSON as the library's dump() does, with exact numbers by their text. Strings go in one piece
// where nothing in them is to be escaped: payloads are mostly text, and are written three times a step.
class Writer {
 public:
  Writer(int indent, std::string& out) : indent_(indent), out_(out) {}

  void Write(const Json& value, int depth) {
    switch (value.type()) {
      case Json::value_t::string:
        AppendJsonString(value.get_ref<const std::string&>(), &out_);
        return;
      case Json::value_t::object: {
        const auto& members = value.get_ref<const Json::object_t&>();
        out_.push_back('{');
        bool first = true;
        for (const auto& [key, item] : members) {
          if (!std::exchange(first, false)) out_.push_back(',');
          Line(depth + 1);
          AppendJsonString(key, &out_);
          out_.push_back(':');
          if (indent_ >= 0) out_.push_back(' ');
          Write(item, depth + 1);
        }
        if (!first) Line(depth);
        out_.push_back('}');
        return;
      }
      case Json::value_t::array: {
        out_.push_back('[');
        bool first = true;
        for (const auto& item : value.get_ref<const Json::array_t&>()) {
          if (!std::exchange(first, false)) out_.push_back(',');
          Line(depth + 1);
          Write(item, depth + 1);
        }
        if (!first) Line(depth);
        out_.push_back(']');
        return;
      }
      case Json::value_t::binary: {
        absl::string_view text = ExactNumberText(value);
        out_.append(text.data(), text.size());
        return;
      }
      default:
        out_ += LibraryDump(value, -1);
    }
  }

 private:
  void Line(int depth) {
    if (indent_ < 0) return;
    out_.push_back('\n');
    out_.append(static_cast<size_t>(indent_ * depth), ' ');
  }

  const int indent_;
  std::string& out_;
};

// Builds a Json from the parser's events.
class Builder {
 public:
  Builder(bool exact, bool unique) : exact_(exact), unique_(unique) {}
  bool Null() { return Add(nullptr); }
  bool Bool(bool value) { return Add(value); }
  bool Nan() { return false; }
  bool Number(absl::string_view text) {
    Json number = JsonNumber(text);
    return Add(exact_ ? std::move(number) : WithDoubles(std::move(number)));
  }
  bool String(std::string&& text) { return Add(std::move(text)); }
  bool BeginArray() { return Open(Json::array()); }
  bool BeginObject() { return Open(Json::object()); }
  bool Key(std::string&& name) {
    auto& members = open_.back()->get_ref<Json::object_t&>();
    const size_t before = members.size();
    auto [place, added] = members.try_emplace(std::move(name));
    place_ = &place->second;
    if (!unique_ || members.size() > before) return true;
    twice_ = place->first;
    return false;
  }
  void EndArray() { open_.pop_back(); }
  void EndObject() { open_.pop_back(); }
  Json root() { return std::move(root_); }
  // Names the member that was refused because its object has it already; null when none was.
  const std::optional<std::string>& twice() const { return twice_; }

 private:
  Json* Add(Json value) {
    Json* place = &root_;
    if (!open_.empty()) {
      place = open_.back()->is_array() ? &open_.back()->get_ref<Json::array_t&>().emplace_back() : place_;
    }
    *place = std::move(value);
    return place;
  }
  bool Open(Json container) {
    open_.push_back(Add(std::move(container)));
    return true;
  }

  const bool exact_, unique_;
  std::optional<std::string> twice_;
  Json root_;
  std::vector<Json*> open_;
  Json* place_ = nullptr;  // of the member whose name was read
};

absl::StatusOr<Json> Parse(absl::string_view text, bool exact, int max_depth, bool unique = false) {
  if (size_t at = FirstInvalidUtf8(text); at != absl::string_view::npos) {
    return BadJson(absl::StrCat("invalid UTF-8 at byte ", at));
  }
  if (absl::StartsWith(text, "\xEF\xBB\xBF")) text.remove_prefix(3);
  Builder builder(exact, unique);
  JsonBounds bounds;
  bounds.max_depth = max_depth;
  bounds.max_values = kMaxJsonValues;
  JsonParser<Builder> parser(text, bounds, builder);
  if (parser.Parse()) return builder.root();
  const JsonFault& fault = parser.fault();
  absl::string_view before = text.substr(0, fault.offset);
  size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  size_t begin = before.rfind('\n');
  size_t column = CountUtf8(begin == absl::string_view::npos ? before : before.substr(begin + 1)) + 1;
  return BadJson(absl::StrCat(
      "line ", line, ", column ", column, ": ",
      builder.twice() ? absl::StrCat("\"", Utf8Prefix(*builder.twice(), 100), "\" stands here twice") : fault.what));
}

}  // namespace

int JsonDepth(absl::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

absl::StatusOr<Json> ParseJson(absl::string_view text, int max_depth) { return Parse(text, true, max_depth); }
absl::StatusOr<Json> ParseUniqueJson(absl::string_view text, int max_depth) {
  return Parse(text, true, max_depth, /*unique=*/true);
}
absl::StatusOr<Json> ParseJsonWithDoubles(absl::string_view text) { return Parse(text, false, kMaxJsonDepth); }

std::string DumpJson(const Json& value, int indent) {
  std::string out;
  Writer(indent, out).Write(value, 0);
  return out;
}

void AppendJsonString(absl::string_view text, std::string* out) {
  // One look without a branch, which is what most strings need.
  bool special = false, ascii = true;
  for (char c : text) {
    special |= (static_cast<unsigned char>(c) < 0x20) | (c == '"') | (c == '\\');
    ascii &= static_cast<signed char>(c) >= 0;
  }
  if (!ascii && !IsValidUtf8(text)) {
    *out += LibraryDump(std::string(text), -1);
    return;
  }
  out->push_back('"');
  if (!special) {
    out->append(text.data(), text.size());
  } else {
    for (char c : text) {
      constexpr char kShort[] = "btn?fr";  // from U+0008 on
      if (c == '"' || c == '\\') {
        out->push_back('\\');
        out->push_back(c);
      } else if (c >= 8 && c <= 13 && c != 11) {
        out->push_back('\\');
        out->push_back(kShort[c - 8]);
      } else if (static_cast<unsigned char>(c) < 0x20) {
        absl::StrAppend(out, "\\u", absl::Hex(static_cast<int>(c), absl::kZeroPad4));
      } else {
        out->push_back(c);
      }
    }
  }
  out->push_back('"');
}

Json JsonNumber(absl::string_view text) {
  const bool whole = text.find_first_of(".eE") == absl::string_view::npos;
  if (whole && text.size() <= 20) {
    uint64_t magnitude = 0;
    const bool negative = text[0] == '-';
    absl::string_view digits = text.substr(negative ? 1 : 0);
    if (absl::SimpleAtoi(digits, &magnitude)) {
      if (!negative) return magnitude;
      if (magnitude <= uint64_t{1} << 63) return static_cast<int64_t>(0 - magnitude);
    }
  }
  if (!whole) {
    // The library's own way of writing the double: what comes out as it came in needs no text.
    double number = NumberTextToDouble(text);
    if (std::isfinite(number)) {
      char buffer[64];
      char* end = nlohmann::detail::to_chars(buffer, buffer + sizeof buffer, number);
      if (absl::string_view(buffer, static_cast<size_t>(end - buffer)) == text) return number;
    }
  }
  return Json::binary(std::vector<uint8_t>(text.begin(), text.end()));
}

absl::string_view ExactNumberText(const Json& value) {
  const auto& bytes = value.get_binary();
  return absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::optional<double> ToDouble(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (IsExactNumber(value)) return NumberTextToDouble(ExactNumberText(value));
  return std::nullopt;
}

bool HasExactNumber(const Json& value) {
  if (!value.is_structured()) return IsExactNumber(value);
  for (const auto& item : value) {
    if (HasExactNumber(item)) return true;
  }
  return false;
}

Json WithDoubles(Json value) {
  if (IsExactNumber(value)) {
    double number = *ToDouble(value);
    constexpr double kLargest = std::numeric_limits<double>::max();
    return std::isfinite(number) ? number : number > 0 ? kLargest : -kLargest;
  }
  if (value.is_structured()) {
    for (auto& item : value) item = WithDoubles(std::move(item));
  }
  return value;
}

bool SameJson(const Json& a, const Json& b) {
  if (IsNumber(a) && IsNumber(b)) {
    if (!IsExactNumber(a) && !IsExactNumber(b)) return a == b;
    return CompareNumberTexts(DumpJson(a), DumpJson(b)) == 0;
  }
  if (a.type() != b.type() || a.size() != b.size()) return false;
  if (a.is_array()) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (!SameJson(a[i], b[i])) return false;
    }
    return true;
  }
  if (a.is_object()) {
    for (auto x = a.begin(), y = b.begin(); x != a.end(); ++x, ++y) {
      if (x.key() != y.key() || !SameJson(*x, *y)) return false;
    }
    return true;
  }
  return a == b;
}

Json ToJson(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kBoolValue:
      return value.bool_value();
    case google::protobuf::Value::kStringValue:
      return value.string_value();
    case google::protobuf::Value::kNumberValue: {
      double number = value.number_value();
      const auto& unknown = value.GetReflection()->GetUnknownFields(value);
      for (int i = 0; i < unknown.field_count(); ++i) {
        const auto& field = unknown.field(i);
        if (field.number() != kExactNumberField ||
            field.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
          continue;
        }
        // The text comes from outside: it counts only if it is a number, and the number that the double says.
        const std::string& text = field.length_delimited();
        if (NumberTextLength(text) == text.size() && !text.empty() &&
            (NumberTextToDouble(text) == number || std::isinf(NumberTextToDouble(text)))) {
          return JsonNumber(text);
        }
      }
      if (number == std::floor(number) && std::fabs(number) < 9007199254740992.0) return static_cast<int64_t>(number);
      return number;
    }
    case google::protobuf::Value::kStructValue:
      return ToJson(value.struct_value());
    case google::protobuf::Value::kListValue: {
      Json out = Json::array();
      for (const auto& item : value.list_value().values()) out.push_back(ToJson(item));
      return out;
    }
    default:
      return nullptr;
  }
}

Json ToJson(const google::protobuf::Struct& value) {
  Json out = Json::object();
  for (const auto& [key, item] : value.fields()) out[key] = ToJson(item);
  return out;
}

void ToProto(const Json& json, google::protobuf::Value* out) {
  switch (json.type()) {
    case Json::value_t::boolean:
      out->set_bool_value(json.get<bool>());
      return;
    case Json::value_t::string:
      out->set_string_value(json.get_ref<const std::string&>());
      return;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
    case Json::value_t::number_float:
    case Json::value_t::binary: {
      double number = *ToDouble(WithDoubles(json));
      out->set_number_value(number);
      // The text goes along where the double alone would be read as another number, or as a whole one.
      const bool whole = number == std::floor(number) && std::fabs(number) < 9007199254740992.0;
      const bool exact = IsExactNumber(json) || json.is_number_float() == whole;
      if (exact) {
        out->GetReflection()->MutableUnknownFields(out)->AddLengthDelimited(kExactNumberField, DumpJson(json));
      }
      return;
    }
    case Json::value_t::array:
      out->mutable_list_value();
      for (const auto& item : json) ToProto(item, out->mutable_list_value()->add_values());
      return;
    case Json::value_t::object:
      ToProto(json, out->mutable_struct_value());
      return;
    default:
      out->set_null_value(google::protobuf::NULL_VALUE);
  }
}

void ToProto(const Json& json, google::protobuf::Struct* out) {
  for (const auto& [key, item] : json.items()) ToProto(item, &(*out->mutable_fields())[key]);
}

absl::StatusOr<Json> FromPayload(const tutti::type::v1::Payload& payload) {
  if (payload.data().empty()) return Json(nullptr);
  return payload.data()[0] == kExactMark ? ParseJson(payload.data()) : ParseJsonWithDoubles(payload.data());
}

void ToPayload(const Json& json, tutti::type::v1::Payload* out) {
  out->set_media_type("application/json");
  std::string& data = *out->mutable_data();
  data.clear();
  if (HasExactNumber(json)) data.push_back(kExactMark);
  Writer(-1, data).Write(json, 0);
}

Json MessageToJson(const google::protobuf::Message& message, bool with_defaults) {
  auto json = ParseJson(ProtoToJson(message, {.original_names = true, .defaults = with_defaults}), INT_MAX);
  return json.ok() ? *std::move(json) : Json::object();
}

}  // namespace tutti
