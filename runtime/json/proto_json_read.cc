#include "runtime/json/proto_json.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "runtime/json/number_text.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/nearest_name.h"
#include "runtime/text/utf8.h"

namespace tutti {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int64_t kLastSecond = 253402300799;   // of year 9999
constexpr int64_t kFirstSecond = -62135596800;  // of year 1
constexpr int64_t kLongestDuration = 315576000000;

bool IsWrapper(const Descriptor& type) { return type.file()->name() == "google/protobuf/wrappers.proto"; }

int DepthOf(const Json& json) {
  int deepest = 0;
  if (!json.is_structured()) return 0;
  for (const auto& item : json) deepest = std::max(deepest, DepthOf(item));
  return deepest + 1;
}

std::string Shown(const Json& json) {
  std::string text = DumpJson(json);
  return std::string(Utf8Prefix(text, 60)) + (text.size() > 60 ? " …" : "");
}

// A whole number from a JSON number or a string of digits.
template <class Int>
bool ToInteger(const Json& json, Int* out) {
  if (json.is_string()) return absl::SimpleAtoi(json.get_ref<const std::string&>(), out);
  if (json.is_number_unsigned()) {
    uint64_t value = json.get<uint64_t>();
    *out = static_cast<Int>(value);
    return value <= static_cast<uint64_t>(std::numeric_limits<Int>::max());
  }
  if (json.is_number_integer()) {
    int64_t value = json.get<int64_t>();
    *out = static_cast<Int>(value);
    return std::is_signed_v<Int> ? value >= static_cast<int64_t>(std::numeric_limits<Int>::min()) : value >= 0;
  }
  if (auto number = ToDouble(json)) {  // `1.0` and `1e3` are whole numbers too
    constexpr double kEnd = 18446744073709551616.0;
    if (*number != std::floor(*number) || std::fabs(*number) >= kEnd) return false;
    double least = static_cast<double>(std::numeric_limits<Int>::min());
    double beyond = std::ldexp(1, std::numeric_limits<Int>::digits);
    if (*number < least || *number >= beyond) return false;
    *out = static_cast<Int>(*number);
    return true;
  }
  return false;
}

class Reader {
 public:
  absl::Status ReadMessage(const Json& json, const std::string& place, Message* out) {
    const Descriptor& type = *out->GetDescriptor();
    const std::string& name = type.full_name();
    if (name == "google.protobuf.Value" || name == "google.protobuf.Struct" || name == "google.protobuf.ListValue") {
      return ReadValue(json, place, out);
    }
    if (name == "google.protobuf.Timestamp") return ReadTimestamp(json, place, out);
    if (name == "google.protobuf.Duration") return ReadDuration(json, place, out);
    if (name == "google.protobuf.FieldMask") return ReadFieldMask(json, place, out);
    if (name == "google.protobuf.Any") return Fail(place, "is of a type that JSON cannot set");
    if (IsWrapper(type)) return ReadScalar(json, place, type.field(0), out, false);
    if (!json.is_object()) return Fail(place, absl::StrCat("must be an object, not ", Shown(json)));
    for (const auto& [key, value] : json.items()) {
      const FieldDescriptor* field = type.FindFieldByCamelcaseName(key);
      if (!field) {
        field = type.FindFieldByName(key);
        if (!field) return UnknownField(type, place, key);
        if (json.contains(field->json_name())) {
          return Fail(absl::StrCat(place, place.empty() ? "" : ".", key),
                      absl::StrCat("stands here twice, also as ", field->json_name()));
        }
      }
      TUTTI_RETURN_IF_ERROR(ReadField(value, absl::StrCat(place, place.empty() ? "" : ".", key), field, out));
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status Fail(const std::string& place, absl::string_view what) {
    const std::string field = place.empty() ? "body" : place;
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_JSON",
                 absl::StrCat("the body is not what the method takes: (", field, ") ", what))
        .Violation(field, what);
  }

  static absl::Status UnknownField(const Descriptor& type, const std::string& place, const std::string& key) {
    std::vector<std::string> names;
    for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->json_name());
    const std::string what = absl::StrCat(Utf8Prefix(key, 100), ": Cannot find field",
                                          DidYouMeanOf(std::string(Utf8Prefix(key, 100)), names));
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_JSON",
                 absl::StrCat("the body is not what the method takes: ",
                              place.empty() ? "" : absl::StrCat("(", place, ") "), what))
        .Violation(place.empty() ? "body" : place, what);
  }

  absl::Status ReadField(const Json& json, const std::string& place, const FieldDescriptor* field, Message* out) {
    const Reflection& reflection = *out->GetReflection();
    const bool takes_null = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
                            field->message_type()->full_name() == "google.protobuf.Value";
    if (json.is_null() && !(takes_null && !field->is_repeated())) return absl::OkStatus();
    if (const auto* oneof = field->real_containing_oneof()) {
      if (const FieldDescriptor* other = reflection.GetOneofFieldDescriptor(*out, oneof); other && other != field) {
        return Fail(place, absl::StrCat("cannot stand beside ", other->json_name(), ": only one of them"));
      }
    }
    if (field->is_map()) return ReadMap(json, place, field, out);
    if (field->is_repeated()) {
      if (!json.is_array()) return Fail(place, absl::StrCat("must be a list, not ", Shown(json)));
      int index = 0;
      for (const auto& item : json) {
        std::string item_place = absl::StrCat(place, "[", index++, "]");
        if (item.is_null() && !takes_null) return Fail(item_place, "must not be null");
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          TUTTI_RETURN_IF_ERROR(ReadMessage(item, item_place, reflection.AddMessage(out, field)));
        } else {
          TUTTI_RETURN_IF_ERROR(ReadScalar(item, item_place, field, out, true));
        }
      }
      return absl::OkStatus();
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      return ReadMessage(json, place, reflection.MutableMessage(out, field));
    }
    return ReadScalar(json, place, field, out, false);
  }

  absl::Status ReadMap(const Json& json, const std::string& place, const FieldDescriptor* field, Message* out) {
    if (!json.is_object()) return Fail(place, absl::StrCat("must be an object, not ", Shown(json)));
    const FieldDescriptor* key_field = field->message_type()->map_key();
    const FieldDescriptor* value_field = field->message_type()->map_value();
    for (const auto& [key, value] : json.items()) {
      Message* entry = out->GetReflection()->AddMessage(out, field);
      std::string entry_place = absl::StrCat(place, ".", Utf8Prefix(key, 100));
      Json name = key;
      if (key_field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) name = key == "true";
      TUTTI_RETURN_IF_ERROR(ReadScalar(name, entry_place, key_field, entry, false));
      if (value.is_null() && !(value_field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
                               value_field->message_type()->full_name() == "google.protobuf.Value")) {
        return Fail(entry_place, "must not be null");
      }
      TUTTI_RETURN_IF_ERROR(ReadField(value, entry_place, value_field, entry));
    }
    return absl::OkStatus();
  }

  absl::Status ReadScalar(const Json& json, const std::string& place, const FieldDescriptor* field, Message* out,
                          bool add) {
    const Reflection& reflection = *out->GetReflection();
    auto wrong = [&](absl::string_view what) {
      return Fail(place, absl::StrCat("must be ", what, ", not ", Shown(json)));
    };
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING: {
        if (!json.is_string()) return wrong(field->type() == FieldDescriptor::TYPE_BYTES ? "base64" : "text");
        std::string text = json.get<std::string>();
        if (field->type() == FieldDescriptor::TYPE_BYTES) {
          std::string bytes;
          if (!absl::Base64Unescape(text, &bytes) && !absl::WebSafeBase64Unescape(text, &bytes)) return wrong("base64");
          text = std::move(bytes);
        }
        add ? reflection.AddString(out, field, std::move(text)) : reflection.SetString(out, field, std::move(text));
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        if (!json.is_boolean()) return wrong("true or false");
        add ? reflection.AddBool(out, field, json.get<bool>()) : reflection.SetBool(out, field, json.get<bool>());
        return absl::OkStatus();
      case FieldDescriptor::CPPTYPE_INT32: {
        int32_t value = 0;
        if (!ToInteger(json, &value)) return wrong("a whole number of 32 bits");
        add ? reflection.AddInt32(out, field, value) : reflection.SetInt32(out, field, value);
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        int64_t value = 0;
        if (!ToInteger(json, &value)) return wrong("a whole number of 64 bits");
        add ? reflection.AddInt64(out, field, value) : reflection.SetInt64(out, field, value);
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_UINT32: {
        uint32_t value = 0;
        if (!ToInteger(json, &value)) return wrong("a whole number of 32 bits, not negative");
        add ? reflection.AddUInt32(out, field, value) : reflection.SetUInt32(out, field, value);
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        uint64_t value = 0;
        if (!ToInteger(json, &value)) return wrong("a whole number of 64 bits, not negative");
        add ? reflection.AddUInt64(out, field, value) : reflection.SetUInt64(out, field, value);
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_FLOAT:
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        std::optional<double> number = ToDouble(json);
        if (json.is_string()) {
          const std::string& text = json.get_ref<const std::string&>();
          if (!text.empty() && NumberTextLength(text) == text.size()) number = NumberTextToDouble(text);
        }
        if (!number) return wrong("a number");  // no method takes `NaN` or `Infinity`
        if (!std::isfinite(*number)) return wrong("a number that a double can hold");
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
          add ? reflection.AddDouble(out, field, *number) : reflection.SetDouble(out, field, *number);
        } else {
          auto narrow = static_cast<float>(*number);
          add ? reflection.AddFloat(out, field, narrow) : reflection.SetFloat(out, field, narrow);
        }
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_ENUM: {
        const EnumDescriptor& type = *field->enum_type();
        const EnumValueDescriptor* value = nullptr;
        int32_t number = 0;
        if (json.is_string()) {
          value = type.FindValueByName(json.get_ref<const std::string&>());
        } else if (ToInteger(json, &number)) {
          value = type.FindValueByNumber(number);
        }
        if (!value) {
          std::vector<std::string> names;
          for (int i = 0; i < type.value_count(); ++i) {
            if (type.value(i)->number() != 0) names.push_back(type.value(i)->name());
          }
          return Fail(place, absl::StrCat("has no value ", Shown(json), "; known: ", absl::StrJoin(names, ", ")));
        }
        add ? reflection.AddEnum(out, field, value) : reflection.SetEnum(out, field, value);
        return absl::OkStatus();
      }
      default:
        return Fail(place, "is of a type that JSON cannot set");
    }
  }

  absl::Status ReadValue(const Json& json, const std::string& place, Message* out) {
    if (DepthOf(json) > kMaxJsonDepth)
      return Fail(place, absl::StrCat("is nested deeper than ", kMaxJsonDepth, " levels"));
    if (auto* value = dynamic_cast<google::protobuf::Value*>(out)) {
      ToProto(json, value);
      return absl::OkStatus();
    }
    if (auto* object = dynamic_cast<google::protobuf::Struct*>(out)) {
      if (!json.is_object()) return Fail(place, absl::StrCat("must be an object, not ", Shown(json)));
      ToProto(json, object);
      return absl::OkStatus();
    }
    if (auto* list = dynamic_cast<google::protobuf::ListValue*>(out)) {
      if (!json.is_array()) return Fail(place, absl::StrCat("must be a list, not ", Shown(json)));
      for (const auto& item : json) ToProto(item, list->add_values());
      return absl::OkStatus();
    }
    return Fail(place, "is of a type that JSON cannot set");
  }

  absl::Status ReadTimestamp(const Json& json, const std::string& place, Message* out) {
    absl::Time time;
    std::string error;
    bool fits =
        json.is_string() && absl::ParseTime(absl::RFC3339_full, json.get_ref<const std::string&>(), &time, &error);
    if (fits) {
      int64_t seconds = absl::ToUnixSeconds(time);
      fits = seconds >= kFirstSecond && seconds <= kLastSecond;
    }
    if (!fits) return Fail(place, absl::StrCat("must be a time such as 2026-01-31T12:00:00Z, not ", Shown(json)));
    auto& stamp = static_cast<google::protobuf::Timestamp&>(*out);
    stamp.set_seconds(absl::ToUnixSeconds(time));
    stamp.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(stamp.seconds()))));
    return absl::OkStatus();
  }

  absl::Status ReadDuration(const Json& json, const std::string& place, Message* out) {
    absl::Duration duration;
    bool fits = json.is_string() && absl::EndsWith(json.get_ref<const std::string&>(), "s") &&
                absl::ParseDuration(json.get_ref<const std::string&>(), &duration) &&
                absl::AbsDuration(duration) <= absl::Seconds(kLongestDuration);
    if (!fits) return Fail(place, absl::StrCat("must be a duration such as \"1.5s\", not ", Shown(json)));
    auto& span = static_cast<google::protobuf::Duration&>(*out);
    span.set_seconds(absl::ToInt64Seconds(duration));
    span.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration % absl::Seconds(1))));
    return absl::OkStatus();
  }

  absl::Status ReadFieldMask(const Json& json, const std::string& place, Message* out) {
    if (!json.is_string())
      return Fail(place, absl::StrCat("must be field names with commas between, not ", Shown(json)));
    const FieldDescriptor* paths = out->GetDescriptor()->FindFieldByName("paths");
    for (absl::string_view path : absl::StrSplit(json.get_ref<const std::string&>(), ',', absl::SkipEmpty())) {
      std::string name;
      for (char c : path) {
        if (absl::ascii_isupper(static_cast<unsigned char>(c))) name += '_';
        name += absl::ascii_tolower(static_cast<unsigned char>(c));
      }
      out->GetReflection()->AddString(out, paths, name);
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::Status JsonValueToProto(const Json& json, Message* out) { return Reader().ReadMessage(json, "", out); }

absl::Status JsonToProto(absl::string_view text, Message* out) {
  auto json = ParseUniqueJson(text, kMaxMessageJsonDepth);
  if (!json.ok()) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_JSON",
                 absl::StrCat("the body is not what the method takes: ", json.status().message()))
        .Violation("body", json.status().message());
  }
  return JsonValueToProto(*json, out);
}

}  // namespace tutti
