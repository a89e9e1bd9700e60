#include "runtime/json/json.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <simdjson.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/text/utf8.h"
#include "tutti/type/v1/payload.pb.h"

namespace tutti {
namespace {

absl::Status BadJson(absl::string_view what) { return Error(absl::StatusCode::kInvalidArgument, "INVALID_JSON", what); }

std::string LibraryDump(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

void AppendString(const std::string& text, std::string& out) {
  // One look without a branch, which is what most strings need.
  bool special = false, ascii = true;
  for (char c : text) {
    special |= (static_cast<unsigned char>(c) < 0x20) | (c == '"') | (c == '\\');
    ascii &= static_cast<signed char>(c) >= 0;
  }
  if (!ascii && !IsValidUtf8(text)) {
    out += LibraryDump(text, -1);
    return;
  }
  out.push_back('"');
  if (!special) {
    out += text;
  } else {
    for (char c : text) {
      constexpr char kShort[] = "btn?fr";  // from U+0008 on
      if (c == '"' || c == '\\') {
        out.push_back('\\');
        out.push_back(c);
      } else if (c >= 8 && c <= 13 && c != 11) {
        out.push_back('\\');
        out.push_back(kShort[c - 8]);
      } else if (static_cast<unsigned char>(c) < 0x20) {
        absl::StrAppend(&out, "\\u", absl::Hex(static_cast<int>(c), absl::kZeroPad4));
      } else {
        out.push_back(c);
      }
    }
  }
  out.push_back('"');
}

// As the library's dump() without indentation, character by character the same; strings in one piece where nothing in
// them is to be escaped. Payloads are mostly text, and are written three times a step.
void AppendJson(const Json& value, std::string& out) {
  switch (value.type()) {
    case Json::value_t::string:
      return AppendString(value.get_ref<const std::string&>(), out);
    case Json::value_t::object: {
      char before = '{';
      for (const auto& [key, item] : value.get_ref<const Json::object_t&>()) {
        out.push_back(std::exchange(before, ','));
        AppendString(key, out);
        out.push_back(':');
        AppendJson(item, out);
      }
      if (before == '{') out.push_back('{');
      out.push_back('}');
      return;
    }
    case Json::value_t::array: {
      char before = '[';
      for (const auto& item : value.get_ref<const Json::array_t&>()) {
        out.push_back(std::exchange(before, ','));
        AppendJson(item, out);
      }
      if (before == '[') out.push_back('[');
      out.push_back(']');
      return;
    }
    default:
      out += LibraryDump(value, -1);
  }
}

// Larger texts get a parser of their own, so that the one a thread keeps stays small.
constexpr size_t kKeptParser = size_t{64} << 10;

bool FromDocument(simdjson::dom::element element, int levels, Json& out) {
  switch (element.type()) {
    case simdjson::dom::element_type::OBJECT: {
      if (levels == 0) return false;
      out = Json::object();
      auto& members = out.get_ref<Json::object_t&>();
      for (auto [key, value] : simdjson::dom::object(element)) {
        if (!FromDocument(value, levels - 1, members[std::string(key)])) return false;
      }
      return true;
    }
    case simdjson::dom::element_type::ARRAY: {
      if (levels == 0) return false;
      out = Json::array();
      auto& items = out.get_ref<Json::array_t&>();
      for (simdjson::dom::element value : simdjson::dom::array(element)) {
        if (!FromDocument(value, levels - 1, items.emplace_back())) return false;
      }
      return true;
    }
    case simdjson::dom::element_type::STRING:
      out = std::string(std::string_view(element));
      return true;
    case simdjson::dom::element_type::INT64: {
      int64_t number = element;
      if (number >= 0) {  // as the library tells them apart
        out = static_cast<uint64_t>(number);
      } else {
        out = number;
      }
      return true;
    }
    case simdjson::dom::element_type::UINT64:
      out = uint64_t(element);
      return true;
    case simdjson::dom::element_type::DOUBLE:
      out = double(element);
      return true;
    case simdjson::dom::element_type::BOOL:
      out = bool(element);
      return true;
    default:
      out = nullptr;
      return true;
  }
}

// What is in order, by the faster parser. False: something is not, and it is for the slower one to say what.
bool ParseQuickly(absl::string_view text, Json& out) {
  thread_local simdjson::dom::parser kept;
  simdjson::dom::parser own;
  simdjson::dom::element root;
  auto& parser = text.size() <= kKeptParser ? kept : own;
  if (parser.parse(text.data(), text.size()).get(root) != simdjson::SUCCESS) return false;
  return FromDocument(root, kMaxJsonDepth, out);
}

}  // namespace

// Checked before the parser runs: it recurses.
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

absl::StatusOr<Json> ParseJson(absl::string_view text) {
  if (Json value; ParseQuickly(text, value)) return value;
  if (size_t at = FirstInvalidUtf8(text); at != absl::string_view::npos) {
    return BadJson(absl::StrCat("invalid UTF-8 at byte ", at));
  }
  if (JsonDepth(text) > kMaxJsonDepth) return BadJson(absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels"));
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& e) {
    std::string message = e.what();
    if (size_t at = message.find("] "); at != std::string::npos) message = message.substr(at + 2);
    return BadJson(message);
  }
}

std::string DumpJson(const Json& value, int indent) {
  if (indent >= 0) return LibraryDump(value, indent);
  std::string out;
  AppendJson(value, out);
  return out;
}

Json ToJson(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kBoolValue:
      return value.bool_value();
    case google::protobuf::Value::kStringValue:
      return value.string_value();
    case google::protobuf::Value::kNumberValue: {
      double number = value.number_value();
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
      out->set_number_value(json.get<double>());
      return;
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
  return ParseJson(payload.data());
}

void ToPayload(const Json& json, tutti::type::v1::Payload* out) {
  out->set_media_type("application/json");
  out->set_data(DumpJson(json));
}

Json MessageToJson(const google::protobuf::Message& message, bool with_defaults) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = with_defaults;
  std::string text;
  auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) return Json::object();
  return Json::parse(text, nullptr, false);
}

}  // namespace tutti
