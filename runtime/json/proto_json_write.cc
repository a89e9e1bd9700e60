#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <cmath>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "runtime/json/proto_json.h"

namespace tutti {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

class Writer {
 public:
  explicit Writer(const ProtoJsonOptions& options) : options_(options) {}

  void WriteMessage(const Message& message, int depth) {
    const Descriptor& type = *message.GetDescriptor();
    const std::string& name = type.full_name();
    if (name == "google.protobuf.Value" || name == "google.protobuf.Struct" || name == "google.protobuf.ListValue") {
      return WriteValue(message);
    }
    if (name == "google.protobuf.Timestamp") {
      const auto& stamp = static_cast<const google::protobuf::Timestamp&>(message);
      const absl::Time time = absl::FromUnixSeconds(stamp.seconds());
      out_ += '"';
      out_ += absl::FormatTime("%E4Y-%m-%dT%H:%M:%S", time, absl::UTCTimeZone());
      Fraction(stamp.nanos());
      out_ += "Z\"";
      return;
    }
    if (name == "google.protobuf.Duration") {
      const auto& span = static_cast<const google::protobuf::Duration&>(message);
      out_ += '"';
      if (span.seconds() < 0 || span.nanos() < 0) out_ += '-';
      absl::StrAppend(&out_, std::abs(span.seconds()));
      Fraction(std::abs(span.nanos()));
      out_ += "s\"";
      return;
    }
    if (name == "google.protobuf.FieldMask") return WriteFieldMask(message);
    if (name == "google.protobuf.Any") return WriteAny(static_cast<const google::protobuf::Any&>(message), depth);
    if (type.file()->name() == "google/protobuf/wrappers.proto") return WriteScalar(message, type.field(0), -1);
    out_ += '{';
    bool first = true;
    WriteFields(message, depth, &first);
    out_ += '}';
  }
  std::string& out() { return out_; }

 private:
  // Nanoseconds as three, six or nine digits.
  void Fraction(int nanos) {
    if (nanos == 0) return;
    if (nanos % 1000000 == 0) {
      absl::StrAppendFormat(&out_, ".%03d", nanos / 1000000);
    } else if (nanos % 1000 == 0) {
      absl::StrAppendFormat(&out_, ".%06d", nanos / 1000);
    } else {
      absl::StrAppendFormat(&out_, ".%09d", nanos);
    }
  }

  void WriteFields(const Message& message, int depth, bool* first) {
    const Reflection& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> fields;
    if (options_.defaults || (options_.empty_lists && depth == 0)) {
      for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
        const FieldDescriptor* field = message.GetDescriptor()->field(i);
        bool set =
            field->is_repeated() ? reflection.FieldSize(message, field) > 0 : reflection.HasField(message, field);
        bool list = field->is_repeated() && (options_.defaults || !field->is_map());
        bool scalar = options_.defaults && !field->has_presence();
        if (set || list || scalar) fields.push_back(field);
      }
    } else {
      reflection.ListFields(message, &fields);
    }
    for (const FieldDescriptor* field : fields) {
      if (!std::exchange(*first, false)) out_ += ',';
      AppendJsonString(options_.original_names ? field->name() : field->json_name(), &out_);
      out_ += ':';
      WriteField(message, field, depth);
    }
  }

  void WriteField(const Message& message, const FieldDescriptor* field, int depth) {
    const Reflection& reflection = *message.GetReflection();
    if (!field->is_repeated()) {
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        return WriteMessage(reflection.GetMessage(message, field), depth + 1);
      }
      return WriteScalar(message, field, -1);
    }
    const int size = reflection.FieldSize(message, field);
    if (field->is_map()) {
      // Sorts the keys, since a message's map has no stable order.
      std::map<std::string, const Message*> entries;
      const FieldDescriptor* key = field->message_type()->map_key();
      for (int i = 0; i < size; ++i) {
        const Message& entry = reflection.GetRepeatedMessage(message, field, i);
        Writer name(options_);
        name.WriteScalar(entry, key, -1);
        entries[std::move(name.out_)] = &entry;
      }
      out_ += '{';
      bool first = true;
      for (const auto& [name, entry] : entries) {
        if (!std::exchange(first, false)) out_ += ',';
        absl::StrAppend(&out_, name[0] == '"' ? name : absl::StrCat("\"", name, "\""), ":");
        WriteField(*entry, field->message_type()->map_value(), depth);
      }
      out_ += '}';
      return;
    }
    out_ += '[';
    for (int i = 0; i < size; ++i) {
      if (i > 0) out_ += ',';
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        WriteMessage(reflection.GetRepeatedMessage(message, field, i), depth + 1);
      } else {
        WriteScalar(message, field, i);
      }
    }
    out_ += ']';
  }

  void WriteDouble(double number) {
    if (std::isnan(number)) {
      out_ += "\"NaN\"";
    } else if (std::isinf(number)) {
      out_ += number < 0 ? "\"-Infinity\"" : "\"Infinity\"";
    } else if (number == std::floor(number) && std::fabs(number) < 9007199254740992.0) {
      absl::StrAppend(&out_, static_cast<int64_t>(number));
    } else {
      out_ += DumpJson(Json(number));
    }
  }

  // `index` below 0: of a field that is not repeated.
  void WriteScalar(const Message& message, const FieldDescriptor* field, int index) {
    const Reflection& r = *message.GetReflection();
    const bool one = index < 0;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string text = one ? r.GetString(message, field) : r.GetRepeatedString(message, field, index);
        if (field->type() == FieldDescriptor::TYPE_BYTES) text = absl::Base64Escape(text);
        return AppendJsonString(text, &out_);
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        out_ += (one ? r.GetBool(message, field) : r.GetRepeatedBool(message, field, index)) ? "true" : "false";
        return;
      case FieldDescriptor::CPPTYPE_INT32:
        absl::StrAppend(&out_, one ? r.GetInt32(message, field) : r.GetRepeatedInt32(message, field, index));
        return;
      case FieldDescriptor::CPPTYPE_UINT32:
        absl::StrAppend(&out_, one ? r.GetUInt32(message, field) : r.GetRepeatedUInt32(message, field, index));
        return;
      case FieldDescriptor::CPPTYPE_INT64:
        absl::StrAppend(&out_, "\"", one ? r.GetInt64(message, field) : r.GetRepeatedInt64(message, field, index),
                        "\"");
        return;
      case FieldDescriptor::CPPTYPE_UINT64:
        absl::StrAppend(&out_, "\"", one ? r.GetUInt64(message, field) : r.GetRepeatedUInt64(message, field, index),
                        "\"");
        return;
      case FieldDescriptor::CPPTYPE_FLOAT: {
        float number = one ? r.GetFloat(message, field) : r.GetRepeatedFloat(message, field, index);
        if (!std::isfinite(number)) return WriteDouble(number);
        absl::StrAppend(&out_, number);
        return;
      }
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return WriteDouble(one ? r.GetDouble(message, field) : r.GetRepeatedDouble(message, field, index));
      case FieldDescriptor::CPPTYPE_ENUM: {
        int number = one ? r.GetEnumValue(message, field) : r.GetRepeatedEnumValue(message, field, index);
        if (field->enum_type()->full_name() == "google.protobuf.NullValue") {
          out_ += "null";
        } else if (const auto* value = field->enum_type()->FindValueByNumber(number)) {
          AppendJsonString(value->name(), &out_);
        } else {
          absl::StrAppend(&out_, number);
        }
        return;
      }
      default:
        out_ += "null";
    }
  }

  void WriteValue(const Message& message) {
    if (const auto* value = dynamic_cast<const google::protobuf::Value*>(&message)) {
      out_ += DumpJson(ToJson(*value));
    } else if (const auto* object = dynamic_cast<const google::protobuf::Struct*>(&message)) {
      out_ += DumpJson(ToJson(*object));
    } else {
      google::protobuf::Value list;
      *list.mutable_list_value() = static_cast<const google::protobuf::ListValue&>(message);
      out_ += DumpJson(ToJson(list));
    }
  }

  void WriteFieldMask(const Message& message) {
    const FieldDescriptor* paths = message.GetDescriptor()->FindFieldByName("paths");
    std::string text;
    for (int i = 0; i < message.GetReflection()->FieldSize(message, paths); ++i) {
      if (i > 0) text += ',';
      bool raise = false;
      for (char c : message.GetReflection()->GetRepeatedString(message, paths, i)) {
        if (c == '_') {
          raise = true;
          continue;
        }
        text += raise ? absl::ascii_toupper(static_cast<unsigned char>(c)) : c;
        raise = false;
      }
    }
    AppendJsonString(text, &out_);
  }

  void WriteAny(const google::protobuf::Any& any, int depth) {
    const std::string& url = any.type_url();
    const auto* type =
        google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(url.substr(url.rfind('/') + 1));
    out_ += "{\"@type\":";
    AppendJsonString(url, &out_);
    if (type) {
      std::unique_ptr<Message> inner(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
      if (inner->ParseFromString(any.value())) {
        if (type->file()->package() == "google.protobuf" && type->full_name() != "google.protobuf.Empty") {
          out_ += ",\"value\":";
          WriteMessage(*inner, depth + 1);
        } else {
          bool first = false;
          WriteFields(*inner, depth + 1, &first);
        }
      }
    }
    out_ += '}';
  }

  const ProtoJsonOptions options_;
  std::string out_;
};

}  // namespace

std::string ProtoToJson(const Message& message, const ProtoJsonOptions& options) {
  Writer writer(options);
  writer.WriteMessage(message, 0);
  return std::move(writer.out());
}

std::string IndentJson(absl::string_view json) {
  std::string out;
  size_t depth = 0;
  bool in_string = false;
  auto line = [&] {
    out += '\n';
    out.append(2 * depth, ' ');
  };
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      out += c;
      if (c == '\\' && i + 1 < json.size()) out += json[++i];
      in_string = c != '"';
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        out += c;
        break;
      case '{':
      case '[':
        out += c;
        if (i + 1 < json.size() && (json[i + 1] == '}' || json[i + 1] == ']')) {
          out += json[++i];
        } else {
          ++depth;
          line();
        }
        break;
      case '}':
      case ']':
        if (depth > 0) --depth;
        line();
        out += c;
        break;
      case ',':
        out += c;
        line();
        break;
      case ':':
        out += ": ";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace tutti
