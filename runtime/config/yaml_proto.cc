#include "runtime/config/yaml_proto.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <set>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "runtime/json/json.h"
#include "runtime/json/number_text.h"
#include "runtime/status/error.h"
#include "runtime/text/nearest_name.h"
#include "runtime/text/utf8.h"
#include "runtime/time/duration_text.h"
#include "tutti/options/v1/options.pb.h"

namespace tutti {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Aliases make a small file large: what is expanded is counted, not what is written.
constexpr int kMaxNodes = 200000;
constexpr int kMaxDepth = 64;
constexpr size_t kMaxViolations = 20;

std::string KindName(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Null:
      return "nothing";
    case YAML::NodeType::Scalar:
      return absl::StrCat("\"", Utf8Prefix(node.Scalar(), 40), "\"");
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Map:
      return "a mapping";
    default:
      return "nothing";
  }
}

// A plain scalar by YAML 1.2's core schema; quoted ones are text.
Json ScalarToJson(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return text;
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  bool numeric = text.find_first_not_of("0123456789+-.eE") == std::string::npos &&
                 text.find_first_of("0123456789") != std::string::npos;
  // Keeps the text where it says more than a double does, if it is a number of JSON.
  if (numeric && NumberTextLength(text) == text.size()) return JsonNumber(text);
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'o')) {
    uint64_t whole = 0;
    auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), whole, text[1] == 'x' ? 16 : 8);
    if (error == std::errc() && end == text.data() + text.size()) return whole;
  }
  double number;
  if (numeric && absl::SimpleAtod(text, &number) && std::isfinite(number)) {
    constexpr double kExact = 9007199254740992.0;
    if (number == std::floor(number) && std::fabs(number) < kExact) return static_cast<int64_t>(number);
    return number;
  }
  return text;
}

class Decoder {
 public:
  Decoder(absl::string_view file, SourceMap* lines) : file_(file), lines_(lines) {}

  void DecodeMessage(const YAML::Node& node, const std::string& path, int depth, Message* out) {
    if (!Enter(node, path, depth)) return;
    const std::string& type = out->GetDescriptor()->full_name();
    if (type == "google.protobuf.Value") {
      return ToProto(DecodeJson(node, path, depth), static_cast<google::protobuf::Value*>(out));
    }
    if (type == "google.protobuf.Struct") {
      if (!node.IsMap()) return Fail(node, path, absl::StrCat("must be a mapping, not ", KindName(node)));
      return ToProto(DecodeJson(node, path, depth), static_cast<google::protobuf::Struct*>(out));
    }
    if (type == "google.protobuf.Duration")
      return DecodeDuration(node, path, static_cast<google::protobuf::Duration*>(out));
    if (type == "google.protobuf.Timestamp")
      return DecodeTime(node, path, static_cast<google::protobuf::Timestamp*>(out));
    if (node.IsNull()) return;
    if (!node.IsMap()) return Fail(node, path, absl::StrCat("must be a mapping, not ", KindName(node)));
    std::set<std::string> seen;
    for (const auto& entry : node) {
      std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      std::string field_path = path.empty() ? key : absl::StrCat(path, ".", key);
      if (!seen.insert(key).second) {
        Fail(entry.first, field_path, "stands here twice");
        continue;
      }
      const FieldDescriptor* field = out->GetDescriptor()->FindFieldByName(key);
      if (!field) field = out->GetDescriptor()->FindFieldByCamelcaseName(key);
      if (!field) {
        // The suggestion costs more than all else: not beyond what is told.
        if (violations_.size() >= kMaxViolations) continue;
        Fail(entry.first, field_path,
             absl::StrCat("unknown field", DidYouMeanOf(key, FieldNames(*out->GetDescriptor()))));
        continue;
      }
      if (lines_) lines_->Add(field_path, entry.first.Mark().line + 1);
      if (field->real_containing_oneof() && !entry.second.IsNull()) {
        if (const auto* other = out->GetReflection()->GetOneofFieldDescriptor(*out, field->real_containing_oneof())) {
          Fail(entry.first, field_path, absl::StrCat("cannot stand beside \"", other->name(), "\": only one of them"));
          continue;
        }
      }
      DecodeField(entry.second, field_path, depth, field, out);
    }
  }

  void DecodeField(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                   Message* out) {
    if (field->is_map()) return DecodeMap(node, path, depth, field, out);
    if (!field->is_repeated()) return DecodeSingle(node, path, depth, field, out);
    if (node.IsNull()) return;
    if (!node.IsSequence()) return Fail(node, path, absl::StrCat("must be a list, not ", KindName(node)));
    int index = 0;
    for (const auto& item : node) {
      std::string item_path = absl::StrCat(path, "[", index++, "]");
      if (lines_) lines_->Add(item_path, item.Mark().line + 1);
      DecodeSingle(item, item_path, depth, field, out);
    }
  }

  static std::vector<std::string> FieldNames(const Descriptor& descriptor) {
    std::vector<std::string> names;
    for (int i = 0; i < descriptor.field_count(); ++i) names.push_back(descriptor.field(i)->name());
    return names;
  }

  absl::Status Result() const {
    if (violations_.empty()) return absl::OkStatus();
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILE", absl::StrJoin(messages_, "\n"))
        .Violations(violations_)
        .Metadata("file", file_);
  }

  void Fail(const YAML::Node& node, const std::string& path, absl::string_view what) {
    if (violations_.size() >= kMaxViolations) return;
    YAML::Mark mark = node.Mark();
    violations_.push_back({path, std::string(what)});
    messages_.push_back(absl::StrCat(file_, ":", mark.line + 1, ":", mark.column + 1, ": ",
                                     path.empty() ? "the file" : path, ": ", what));
  }

 private:
  bool Enter(const YAML::Node& node, const std::string& path, int depth) {
    if (depth > kMaxDepth) {
      Fail(node, path, absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
      return false;
    }
    if (++nodes_ > kMaxNodes) {
      if (nodes_ == kMaxNodes + 1) Fail(node, path, absl::StrCat("more than ", kMaxNodes, " values"));
      return false;
    }
    return true;
  }

  Json DecodeJson(const YAML::Node& node, const std::string& path, int depth) {
    if (!Enter(node, path, depth)) return nullptr;
    if (node.IsScalar()) return ScalarToJson(node);
    if (node.IsSequence()) {
      Json out = Json::array();
      for (const auto& item : node)
        out.push_back(DecodeJson(item, absl::StrCat(path, "[", out.size(), "]"), depth + 1));
      return out;
    }
    if (node.IsMap()) {
      Json out = Json::object();
      for (const auto& entry : node) {
        std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
        if (!entry.first.IsScalar()) Fail(entry.first, path, "a key must be text");
        if (key == "<<" && entry.first.Tag() != "!") {
          Fail(entry.first, path, "merge keys (<<) are not known in values; write the members out");
        }
        if (out.contains(key)) Fail(entry.first, absl::StrCat(path, ".", key), "stands here twice");
        out[key] = DecodeJson(entry.second, absl::StrCat(path, ".", key), depth + 1);
      }
      return out;
    }
    return nullptr;
  }

  void DecodeMap(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                 Message* out) {
    if (node.IsNull()) return;
    if (!node.IsMap()) return Fail(node, path, absl::StrCat("must be a mapping, not ", KindName(node)));
    const FieldDescriptor* key_field = field->message_type()->map_key();
    const FieldDescriptor* value_field = field->message_type()->map_value();
    std::set<std::string> seen;
    for (const auto& entry : node) {
      std::string entry_path = absl::StrCat(path, ".", entry.first.IsScalar() ? entry.first.Scalar() : "");
      if (!seen.insert(entry.first.IsScalar() ? entry.first.Scalar() : "").second) {
        Fail(entry.first, entry_path, "stands here twice");
        continue;
      }
      Message* pair = out->GetReflection()->AddMessage(out, field);
      DecodeSingle(entry.first, entry_path, depth, key_field, pair);
      DecodeSingle(entry.second, entry_path, depth, value_field, pair);
    }
  }

  void DecodeDuration(const YAML::Node& node, const std::string& path, google::protobuf::Duration* out) {
    out->Clear();
    absl::Duration duration;
    // A unit must be there; protobuf's own form (`1.5s`) is one of these.
    if (!node.IsScalar() || !ParseDurationText(node.Scalar(), &duration) || duration > absl::Hours(24 * 366 * 100)) {
      return Fail(node, path,
                  absl::StrCat("must be a duration such as 1.5s, 200ms, 5m, 24h or 30d, not ", KindName(node)));
    }
    out->set_seconds(absl::ToInt64Seconds(duration));
    out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration % absl::Seconds(1))));
  }

  void DecodeTime(const YAML::Node& node, const std::string& path, google::protobuf::Timestamp* out) {
    absl::Time time;
    std::string error;
    if (!node.IsScalar() || !absl::ParseTime(absl::RFC3339_full, node.Scalar(), &time, &error)) {
      return Fail(node, path, absl::StrCat("must be a time such as 2026-01-31T12:00:00Z, not ", KindName(node)));
    }
    out->set_seconds(absl::ToUnixSeconds(time));
    out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(out->seconds()))));
  }

  void DecodeSingle(const YAML::Node& node, const std::string& path, int depth, const FieldDescriptor* field,
                    Message* out) {
    const Reflection* reflection = out->GetReflection();
    bool repeated = field->is_repeated();
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message* child = repeated ? reflection->AddMessage(out, field) : reflection->MutableMessage(out, field);
      return DecodeMessage(node, path, depth + 1, child);
    }
    if (!Enter(node, path, depth)) return;
    if (node.IsNull() && !repeated) return;  // `key:` with nothing is the default
    if (!node.IsScalar()) return Fail(node, path, absl::StrCat("must be ", TypeName(field), ", not ", KindName(node)));
    const std::string& text = node.Scalar();
    auto wrong = [&] { Fail(node, path, absl::StrCat("must be ", TypeName(field), ", not ", KindName(node))); };
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return repeated ? reflection->AddString(out, field, text) : reflection->SetString(out, field, text);
      case FieldDescriptor::CPPTYPE_BOOL: {
        Json value = node.Tag() == "!" ? Json(text) : ScalarToJson(node);
        if (!value.is_boolean()) return wrong();
        return repeated ? reflection->AddBool(out, field, value) : reflection->SetBool(out, field, value);
      }
      case FieldDescriptor::CPPTYPE_INT32: {
        int32_t value;
        if (!absl::SimpleAtoi(text, &value)) return wrong();
        return repeated ? reflection->AddInt32(out, field, value) : reflection->SetInt32(out, field, value);
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        int64_t value;
        if (!absl::SimpleAtoi(text, &value)) return wrong();
        return repeated ? reflection->AddInt64(out, field, value) : reflection->SetInt64(out, field, value);
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        double value;
        if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return wrong();
        return repeated ? reflection->AddDouble(out, field, value) : reflection->SetDouble(out, field, value);
      }
      case FieldDescriptor::CPPTYPE_ENUM:
        return DecodeEnum(node, path, field, out);
      default:
        return Fail(node, path, "is of a type that files cannot set");
    }
  }

  void DecodeEnum(const YAML::Node& node, const std::string& path, const FieldDescriptor* field, Message* out) {
    const auto* type = field->enum_type();
    std::string name = absl::AsciiStrToUpper(node.Scalar());
    const EnumValueDescriptor* found = nullptr;
    std::vector<std::string> names;
    // `LOCAL_TASK_RESEARCH` may be written `research`: the zero value's name less `UNSPECIFIED` is the prefix.
    std::string prefix = type->value(0)->name();
    prefix = prefix.substr(0, prefix.rfind("UNSPECIFIED"));
    for (int i = 0; i < type->value_count(); ++i) {
      const auto* value = type->value(i);
      if (value->name() == name || value->name() == prefix + name) found = value;
      if (i > 0) names.push_back(absl::AsciiStrToLower(value->name().substr(prefix.size())));
    }
    if (!found)
      return Fail(node, path, absl::StrCat("must be one of ", absl::StrJoin(names, ", "), ", not ", KindName(node)));
    if (field->is_repeated()) {
      out->GetReflection()->AddEnum(out, field, found);
    } else {
      out->GetReflection()->SetEnum(out, field, found);
    }
  }

  static std::string TypeName(const FieldDescriptor* field) {
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return "text";
      case FieldDescriptor::CPPTYPE_BOOL:
        return "true or false";
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return "a number";
      case FieldDescriptor::CPPTYPE_ENUM:
        return "a name";
      default:
        return "a whole number";
    }
  }

  const std::string file_;
  SourceMap* const lines_;
  int nodes_ = 0;
  std::vector<FieldViolation> violations_;
  std::vector<std::string> messages_;
};

void MaskSecrets(Message* message) {
  const Reflection* reflection = message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(*message, &fields);
  for (const auto* field : fields) {
    if (field->options().GetExtension(tutti::options::v1::secret)) {
      if (!field->is_repeated()) reflection->SetString(message, field, "***");
      for (int i = 0; field->is_repeated() && i < reflection->FieldSize(*message, field); ++i) {
        reflection->SetRepeatedString(message, field, i, "***");
      }
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!field->is_repeated()) MaskSecrets(reflection->MutableMessage(message, field));
      for (int i = 0; field->is_repeated() && i < reflection->FieldSize(*message, field); ++i) {
        MaskSecrets(reflection->MutableRepeatedMessage(message, field, i));
      }
    }
  }
}

void EmitYaml(const nlohmann::ordered_json& json, YAML::Emitter& out) {
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::object:
      out << YAML::BeginMap;
      for (const auto& [key, value] : json.items()) {
        out << YAML::Key << key << YAML::Value;
        EmitYaml(value, out);
      }
      out << YAML::EndMap;
      return;
    case nlohmann::ordered_json::value_t::array:
      out << YAML::BeginSeq;
      for (const auto& item : json) EmitYaml(item, out);
      out << YAML::EndSeq;
      return;
    case nlohmann::ordered_json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      // What comes out must come in again as the same text.
      bool block = text.size() > 1 && text.back() == '\n' && text[text.size() - 2] != '\n' && text[0] != ' ' &&
                   text[0] != '\n' && text.find('\t') == std::string::npos;
      YAML::Node plain(text);
      if (block) {
        out << YAML::Literal;
      } else if (text.find('\n') != std::string::npos || !ScalarToJson(plain).is_string()) {
        out << YAML::DoubleQuoted;
      }
      out << text;
      return;
    }
    case nlohmann::ordered_json::value_t::null:
      out << YAML::Null;
      return;
    case nlohmann::ordered_json::value_t::boolean:
      out << json.get<bool>();
      return;
    default:
      out << json.dump();
  }
}

}  // namespace

int SourceMap::LineOf(std::string path) const {
  while (!path.empty()) {
    if (auto it = lines_.find(path); it != lines_.end()) return it->second;
    size_t cut = path.find_last_of(".[");
    path = cut == std::string::npos ? "" : path.substr(0, cut);
  }
  return 0;
}

namespace {

// Looked at before the library builds a tree by recursion: its nesting is bounded by brackets in one line and by
// indentation over lines.
absl::Status CheckBounds(absl::string_view text, absl::string_view file) {
  constexpr size_t kMaxBytes = size_t{8} << 20;
  constexpr int kMaxBrackets = 200;
  constexpr int kMaxMarks = 200;  // `- - - x` and `? ? x` nest without brackets
  auto fail = [&](size_t line, absl::string_view what) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILE", absl::StrCat(file, ":", line, ": ", what));
  };
  if (text.size() > kMaxBytes) return fail(1, absl::StrCat("larger than ", kMaxBytes, " bytes"));
  int brackets = 0, marks = 0;
  size_t line = 1;
  bool blank = true;  // only marks and spaces in this line so far
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      marks = 0;
      blank = true;
    } else if (c == '[' || c == '{') {
      if (++brackets > kMaxBrackets) return fail(line, absl::StrCat("nested deeper than ", kMaxBrackets, " levels"));
    } else if ((c == ']' || c == '}') && brackets > 0) {
      --brackets;
    }
    if (blank && (c == '-' || c == '?') && i + 1 < text.size() && (text[i + 1] == ' ' || text[i + 1] == '\t')) {
      if (++marks > kMaxMarks) return fail(line, absl::StrCat("nested deeper than ", kMaxMarks, " levels"));
    } else if (c != ' ' && c != '\t' && c != '\n') {
      blank = false;
    }
  }
  return absl::OkStatus();
}

// Notes where documents begin.
class DocumentStarts final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { starts_.push_back(mark); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
  const std::vector<YAML::Mark>& starts() const { return starts_; }

 private:
  std::vector<YAML::Mark> starts_;
};

// Refuses a second document. The library's LoadAll would not end where a document begins with a comma: it finds an
// empty document there again and again.
absl::Status CheckSingleDocument(absl::string_view text, absl::string_view file) {
  std::istringstream in{std::string(text)};
  YAML::Parser parser(in);
  DocumentStarts documents;
  for (int i = 0; i < 2 && parser.HandleNextDocument(documents); ++i) {
  }
  const auto& starts = documents.starts();
  if (starts.size() < 2) return absl::OkStatus();
  const bool moved = starts[1].pos > starts[0].pos;
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILE",
               absl::StrCat(file, ":", starts[1].line + 1, ": ",
                            moved ? "a second document begins here; a file holds one" : "no YAML begins like this"));
}

}  // namespace

absl::Status ParseYaml(absl::string_view text, absl::string_view file, Message* out, SourceMap* lines) {
  if (size_t at = FirstInvalidUtf8(text); at != absl::string_view::npos) {
    auto line = std::count(text.begin(), text.begin() + static_cast<int64_t>(at), '\n') + 1;
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILE",
                 absl::StrCat(file, ":", line, ": not UTF-8 at byte ", at, "; save the file as UTF-8"));
  }
  Decoder decoder(file, lines);
  try {
    if (absl::Status bounded = CheckBounds(text, file); !bounded.ok()) return bounded;
    if (absl::Status single = CheckSingleDocument(text, file); !single.ok()) return single;
    decoder.DecodeMessage(YAML::Load(std::string(text)), "", 0, out);
  } catch (const YAML::ParserException& e) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILE",
                 absl::StrCat(file, ":", e.mark.line + 1, ":", e.mark.column + 1, ": ", e.msg));
  } catch (const YAML::Exception& e) {
    return Error(absl::StatusCode::kInvalidArgument, "INVALID_FILE", absl::StrCat(file, ": ", e.what()));
  }
  return decoder.Result();
}

absl::Status SetFieldFromTexts(Message* message, const std::string& path, const std::vector<std::string>& values,
                               absl::string_view source) {
  std::vector<std::string> parts = absl::StrSplit(path, '.');
  Message* target = message;
  for (size_t i = 0; i < parts.size(); ++i) {
    const FieldDescriptor* field = target->GetDescriptor()->FindFieldByName(parts[i]);
    if (!field) field = target->GetDescriptor()->FindFieldByCamelcaseName(parts[i]);
    bool last = i + 1 == parts.size();
    if (!field || (!last && (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()))) {
      return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_SETTING",
                   absl::StrCat(source, ": there is no field ", path,
                                field ? "" : DidYouMean(parts[i], Decoder::FieldNames(*target->GetDescriptor()))));
    }
    if (!last) {
      target = target->GetReflection()->MutableMessage(target, field);
      continue;
    }
    target->GetReflection()->ClearField(target, field);
    YAML::Node node;
    try {
      if (values.size() != 1 && !field->is_repeated()) {
        return Error(absl::StatusCode::kInvalidArgument, "INVALID_SETTING", absl::StrCat(source, ": takes one value"));
      }
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        node = YAML::Load(values.empty() ? "" : values[0]);
      } else if (field->is_repeated()) {
        for (const auto& value : values) node.push_back(value);
        if (values.empty()) return absl::OkStatus();
      } else {
        node = YAML::Node(values[0]);
      }
    } catch (const YAML::Exception& e) {
      return Error(absl::StatusCode::kInvalidArgument, "INVALID_SETTING", absl::StrCat(source, ": ", e.what()));
    }
    Decoder decoder(source, nullptr);
    decoder.DecodeField(node, path, 0, field, target);
    if (absl::Status status = decoder.Result(); !status.ok()) {
      auto violations = ViolationsOf(status);
      return Error(absl::StatusCode::kInvalidArgument, "INVALID_SETTING",
                   absl::StrCat(source, ": ", violations.empty() ? "" : violations[0].description));
    }
  }
  return absl::OkStatus();
}

std::string ToYaml(const Message& message) {
  std::unique_ptr<Message> copy(message.New());
  copy->CopyFrom(message);
  MaskSecrets(copy.get());
  YAML::Emitter out;
  EmitYaml(nlohmann::ordered_json(MessageToJson(*copy)), out);
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace tutti
