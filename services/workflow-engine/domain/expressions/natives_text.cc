// Functions upon strings, formats, and JSON as text.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/json/json_parser.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

constexpr uint32_t kMaxPrintDepth = 10'000;
constexpr size_t kExcerpt = 29;  // bytes

std::string Named(const Value& value) { return absl::StrCat(value.type_name(), " (", Excerpt(value), ")"); }

// Writes JSON until it is as long as `limit` allows.
class Writer {
 public:
  Writer(Machine* machine, size_t limit) : machine_(machine), limit_(limit) {}

  // False: too long, or the machine's slice is over.
  bool Write(const Value& value, uint32_t depth) {
    if (out_.size() > limit_) return false;
    if (machine_ && !machine_->Tick(1)) return false;
    switch (value.kind()) {
      case Kind::kNull:
        out_ += "null";
        return true;
      case Kind::kFalse:
        out_ += "false";
        return true;
      case Kind::kTrue:
        out_ += "true";
        return true;
      case Kind::kNumber:
        out_ += FormatNumber(value);
        return true;
      case Kind::kString:
        if (machine_ && !machine_->Tick(static_cast<int64_t>(value.text().size() / 32))) return false;
        AppendJsonString(value.text().substr(0, limit_ - std::min(limit_, out_.size()) + 8), &out_);
        return true;
      case Kind::kArray: {
        if (depth > kMaxPrintDepth) break;
        out_ += '[';
        for (size_t i = 0; i < value.size(); ++i) {
          if (i > 0) out_ += ',';
          if (!Write(value.At(i), depth + 1)) return false;
        }
        out_ += ']';
        return true;
      }
      case Kind::kObject: {
        if (depth > kMaxPrintDepth) break;
        Value object = value.Opened();
        out_ += '{';
        for (size_t i = 0; i < object.size(); ++i) {
          if (i > 0) out_ += ',';
          AppendJsonString(object.KeyAt(i), &out_);
          out_ += ':';
          if (!Write(object.At(i), depth + 1)) return false;
        }
        out_ += '}';
        return true;
      }
    }
    out_ += "\"<skipped: too deep>\"";
    return true;
  }
  std::string& out() { return out_; }

 private:
  Machine* machine_;
  const size_t limit_;
  std::string out_;
};

// Builds a value from JSON text.
class Builder {
 public:
  explicit Builder(Heap* heap) : heap_(heap) {}
  bool Null() { return Add(Value::Null()); }
  bool Bool(bool value) { return Add(Value::Bool(value)); }
  bool Nan() { return Add(Value::Number(NAN)); }
  bool Number(absl::string_view text) { return Add(Value::NumberFromText(heap_, text)); }
  bool String(std::string&& text) { return Add(Value::Text(heap_, std::move(text))); }
  bool BeginArray() { return Open(Value::Array(heap_)); }
  bool BeginObject() { return Open(Value::Object(heap_)); }
  bool Key(std::string&& name) {
    keys_.back() = std::move(name);
    return true;
  }
  void EndArray() { Close(); }
  void EndObject() { Close(); }
  Value root() { return std::move(root_); }

 private:
  bool Open(Value container) {
    open_.push_back(std::move(container));
    keys_.emplace_back();
    return !heap_->exceeded();
  }
  void Close() {
    Value value = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    Add(std::move(value));
  }
  bool Add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_array()) {
      open_.back().Append(heap_, std::move(value));
    } else {
      open_.back().SetMember(heap_, Value::Text(heap_, std::move(keys_.back())), std::move(value));
    }
    return !heap_->exceeded();
  }

  Heap* heap_;
  std::vector<Value> open_;
  std::vector<std::string> keys_;
  Value root_;
};

Value NotStrings(Machine& machine, const char* what) { return machine.Fail(absl::StrCat(what)); }

Value ToJson(Machine& machine, Value& input, Value*) { return ToJsonText(machine, input); }
Value ToString(Machine& machine, Value& input, Value*) {
  return input.is_string() ? input : ToJsonText(machine, input);
}

Value FromJson(Machine& machine, Value& input, Value*) {
  if (!input.is_string()) return machine.Fail(absl::StrCat(Named(input), " cannot be parsed as JSON"));
  if (!machine.Tick(static_cast<int64_t>(input.text().size() / 8))) return {};
  std::string error;
  Value out = ParseJsonText(&machine.heap(), input.text(), &error);
  if (machine.heap().exceeded()) return machine.FailTooLarge();
  if (out.absent()) return machine.Fail(absl::StrCat(error, " (while parsing '", Utf8Prefix(input.text(), 60), "')"));
  return out;
}

Value ByteLength(Machine& machine, Value& input, Value*) {
  if (!input.is_string()) return machine.Fail(absl::StrCat(Named(input), " only strings have UTF-8 byte length"));
  return Value::Number(static_cast<double>(input.text().size()));
}

Value StartsWith(Machine& machine, Value& input, Value* args) {
  if (!input.is_string() || !args[0].is_string()) return NotStrings(machine, "startswith() requires string inputs");
  return Value::Bool(input.text().substr(0, args[0].text().size()) == args[0].text());
}
Value EndsWith(Machine& machine, Value& input, Value* args) {
  if (!input.is_string() || !args[0].is_string()) return NotStrings(machine, "endswith() requires string inputs");
  absl::string_view text = input.text(), end = args[0].text();
  return Value::Bool(text.size() >= end.size() && text.substr(text.size() - end.size()) == end);
}

Value WithoutEnds(Machine& machine, const Value& input, const Value& piece, bool left, bool right) {
  absl::string_view text = input.text(), cut = piece.text();
  if (left && text.substr(0, cut.size()) == cut) text.remove_prefix(cut.size());
  if (right && text.size() >= cut.size() && text.substr(text.size() - cut.size()) == cut)
    text.remove_suffix(cut.size());
  if (text.size() == input.text().size()) return input;
  return Value::Text(&machine.heap(), std::string(text));
}
Value LeftTrimText(Machine& machine, Value& input, Value* args) {
  if (!input.is_string() || !args[0].is_string()) return NotStrings(machine, "startswith() requires string inputs");
  return WithoutEnds(machine, input, args[0], true, false);
}
Value RightTrimText(Machine& machine, Value& input, Value* args) {
  if (!input.is_string() || !args[0].is_string()) return NotStrings(machine, "endswith() requires string inputs");
  return WithoutEnds(machine, input, args[0], false, true);
}
Value TrimText(Machine& machine, Value& input, Value* args) {
  if (!input.is_string() || !args[0].is_string()) return NotStrings(machine, "startswith() requires string inputs");
  return WithoutEnds(machine, input, args[0], true, true);
}

// White space by Unicode.
bool IsSpace(uint32_t code) {
  return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

Value WithoutSpace(Machine& machine, const Value& input, bool left, bool right) {
  if (!input.is_string()) return machine.Fail("trim input must be a string");
  absl::string_view text = input.text();
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!IsSpace(NextUtf8(text, &next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t before = end - 1;
    while (before > begin && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) --before;
    size_t next = before;
    if (!IsSpace(NextUtf8(text, &next))) break;
    end = before;
  }
  if (end - begin == text.size()) return input;
  return Value::Text(&machine.heap(), std::string(text.substr(begin, end - begin)));
}
Value Trim(Machine& machine, Value& input, Value*) { return WithoutSpace(machine, input, true, true); }
Value LeftTrim(Machine& machine, Value& input, Value*) { return WithoutSpace(machine, input, true, false); }
Value RightTrim(Machine& machine, Value& input, Value*) { return WithoutSpace(machine, input, false, true); }

Value ChangeCase(Machine& machine, const Value& input, char first, char last, const char* name) {
  if (!input.is_string()) return machine.Fail(absl::StrCat(name, " input must be a string"));
  if (!machine.Reserve(input.text().size())) return {};
  std::string out(input.text());
  for (char& c : out) {
    if (c >= first && c <= last) c ^= 0x20;
  }
  return Value::Text(&machine.heap(), std::move(out));
}
Value Downcase(Machine& machine, Value& input, Value*) {
  return ChangeCase(machine, input, 'A', 'Z', "ascii_downcase");
}
Value Upcase(Machine& machine, Value& input, Value*) { return ChangeCase(machine, input, 'a', 'z', "ascii_upcase"); }

Value Explode(Machine& machine, Value& input, Value*) {
  if (!input.is_string()) return machine.Fail(absl::StrCat(Named(input), " cannot be exploded"));
  if (!machine.Reserve(input.text().size() * sizeof(Value)) ||
      !machine.Tick(static_cast<int64_t>(input.text().size() / 4))) {
    return {};
  }
  std::vector<Value> codes;
  for (size_t at = 0; at < input.text().size();) codes.push_back(Value::Number(NextUtf8(input.text(), &at)));
  return Value::Array(&machine.heap(), std::move(codes));
}

Value Implode(Machine& machine, Value& input, Value*) {
  if (!input.is_array()) return machine.Fail("implode input must be an array");
  if (!machine.Tick(static_cast<int64_t>(input.size() / 4))) return {};
  std::string out;
  for (size_t i = 0; i < input.size(); ++i) {
    Value code = input.At(i);
    if (!code.is_number() || std::isnan(code.number())) {
      return machine.Fail(absl::StrCat(code.is_number() ? "number (null)" : Named(code),
                                       " can't be imploded, unicode codepoint needs to be numeric"));
    }
    double number = std::trunc(code.number());
    bool valid = number >= 0 && number <= 0x10FFFF && !(number >= 0xD800 && number < 0xE000);
    AppendUtf8(valid ? static_cast<uint32_t>(number) : 0xFFFD, &out);
  }
  return Value::Text(&machine.heap(), std::move(out));
}

Value Split(Machine& machine, Value& input, Value* args) {
  if (!input.is_string() || !args[0].is_string()) return machine.Fail("split input and separator must be strings");
  return Divide(machine, input, args[0]);
}

Value Join(Machine& machine, Value& input, Value* args) {
  if (!input.is_array() && !input.is_object()) {
    return machine.Fail(absl::StrCat("Cannot iterate over ", Named(input)));
  }
  Value items = input.Opened();
  if (items.size() == 0) return Value::Text(&machine.heap(), "");
  Value out = Value::Text(&machine.heap(), "");
  for (size_t i = 0; i < items.size(); ++i) {
    if (!machine.Tick(1)) return {};
    if (i > 0) {
      out = Add(machine, std::move(out), args[0]);
      if (out.absent()) return {};
    }
    Value item = items.At(i);
    if (item.is_null()) continue;
    if (item.is_boolean() || item.is_number()) item = ToJsonText(machine, item);
    if (item.absent()) return {};
    out = Add(machine, std::move(out), item);
    if (out.absent()) return {};
    if (machine.heap().exceeded()) return machine.FailTooLarge();
  }
  return out;
}

// Returns the places where `needle` begins, in code points; matches may overlap.
Value IndicesOf(Machine& machine, absl::string_view text, absl::string_view needle) {
  Value out = Value::Array(&machine.heap());
  if (needle.empty()) return Value::Null();
  if (!machine.Tick(static_cast<int64_t>(text.size() / 16))) return {};
  size_t counted = 0, points = 0;
  for (size_t at = text.find(needle); at != absl::string_view::npos; at = text.find(needle, at + 1)) {
    points += CountUtf8(text.substr(counted, at - counted));
    counted = at;
    out.Append(&machine.heap(), Value::Number(static_cast<double>(points)));
    if (!machine.Tick(1)) return {};
    if (machine.heap().exceeded()) return machine.FailTooLarge();
  }
  return out;
}

Value Indices(Machine& machine, Value& input, Value* args) {
  const Value& needle = args[0];
  if (input.is_null()) return Value::Null();
  if (input.is_string() && needle.is_string()) return IndicesOf(machine, input.text(), needle.text());
  if (input.is_array() && needle.is_array()) return Index(machine, input, needle);
  if (input.is_array()) return Index(machine, input, Value::Array(&machine.heap(), {needle}));
  return Index(machine, input, needle);
}
Value FirstIndex(Machine& machine, Value& input, Value* args) {
  Value all = Indices(machine, input, args);
  if (all.absent() || !all.is_array()) return all;
  return all.size() == 0 ? Value::Null() : all.At(0);
}
Value LastIndex(Machine& machine, Value& input, Value* args) {
  Value all = Indices(machine, input, args);
  if (all.absent() || !all.is_array()) return all;
  return all.size() == 0 ? Value::Null() : all.At(all.size() - 1);
}

// -- Formats ----------------------------------------------------------------------------------------------------------

enum Format { kText, kJson, kCsv, kTsv, kHtml, kUri, kUrid, kSh, kBase64, kBase64d, kBase32, kBase32d };

constexpr char kBase32Digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
constexpr char kBase64Digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string EscapeHtml(absl::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string EncodeBase32(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i += 5) {
    uint64_t block = 0;
    size_t count = std::min<size_t>(5, text.size() - i);
    for (size_t k = 0; k < 5; ++k) block = block << 8 | (k < count ? static_cast<unsigned char>(text[i + k]) : 0);
    size_t digits = (count * 8 + 4) / 5;
    for (size_t k = 0; k < 8; ++k) out += k < digits ? kBase32Digits[(block >> (35 - 5 * k)) & 31] : '=';
  }
  return out;
}

// Digits of `bits` bits each; false: a character that is none. `*digits`: how many there were.
bool DecodeDigits(absl::string_view text, absl::string_view alphabet, int bits, std::string* out, size_t* digits) {
  uint32_t buffer = 0;
  int have = 0;
  *digits = 0;
  size_t end = text.size();
  while (end > 0 && text[end - 1] == '=') --end;
  for (char c : text.substr(0, end)) {
    size_t digit = alphabet.find(c);
    if (digit == absl::string_view::npos || c == '\0') return false;
    ++*digits;
    buffer = buffer << bits | static_cast<uint32_t>(digit);
    have += bits;
    if (have >= 8) {
      have -= 8;
      *out += static_cast<char>(buffer >> have & 0xFF);
      buffer &= (1u << have) - 1;
    }
  }
  return true;
}

std::string EncodeUri(absl::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (isalnum(byte) || c == '-' || c == '_' || c == '.' || c == '~') {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

bool DecodeUri(absl::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      *out += text[i];
      continue;
    }
    auto digit = [&](size_t at) -> int {
      if (at >= text.size() || !isxdigit(static_cast<unsigned char>(text[at]))) return -1;
      return text[at] <= '9' ? text[at] - '0' : (text[at] | 0x20) - 'a' + 10;
    };
    int high = digit(i + 1), low = digit(i + 2);
    if (high < 0 || low < 0) return false;
    *out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return IsValidUtf8(*out);
}

// One row of @csv, @tsv or @sh.
Value FormatRow(Machine& machine, const Value& value, int format) {
  const bool shell = format == kSh;
  if (!value.is_array()) {
    if (!shell)
      return machine.Fail(absl::StrCat(Named(value), " cannot be ", format == kCsv ? "csv" : "tsv",
                                       "-formatted, only an array can be"));
  }
  std::string out;
  const size_t count = value.is_array() ? value.size() : 1;
  for (size_t i = 0; i < count; ++i) {
    if (!machine.Tick(1)) return {};
    if (!machine.Reserve(out.size())) return {};
    Value item = value.is_array() ? value.At(i) : value;
    if (i > 0) out += shell ? ' ' : format == kCsv ? ',' : '\t';
    switch (item.kind()) {
      case Kind::kNull:
        if (shell) out += "null";
        break;
      case Kind::kFalse:
      case Kind::kTrue:
        out += item.truthy() ? "true" : "false";
        break;
      case Kind::kNumber:
        // NaN has no place in a table.
        if (shell || item.number() == item.number()) out += FormatNumber(item);
        break;
      case Kind::kString:
        if (format == kTsv) {
          for (char c : item.text()) {
            if (c == '\t') {
              out += "\\t";
            } else if (c == '\n') {
              out += "\\n";
            } else if (c == '\r') {
              out += "\\r";
            } else if (c == '\\') {
              out += "\\\\";
            } else {
              out += c;
            }
          }
        } else {
          char quote = shell ? '\'' : '"';
          out += quote;
          for (char c : item.text()) {
            if (c == quote) out += shell ? "'\\'" : "\"";
            out += c;
          }
          out += quote;
        }
        break;
      default:
        return machine.Fail(absl::StrCat(
            Named(item), shell ? " can not be escaped for shell"
                               : absl::StrCat(" is not valid in a ", format == kCsv ? "csv" : "tsv", " row")));
    }
  }
  return Value::Text(&machine.heap(), std::move(out));
}

constexpr Native kNatives[] = {
    {"tojson", 0, ToJson},
    {"fromjson", 0, FromJson},
    {"tostring", 0, ToString},
    {"utf8bytelength", 0, ByteLength},
    {"startswith", 1, StartsWith},
    {"endswith", 1, EndsWith},
    {"ltrimstr", 1, LeftTrimText},
    {"rtrimstr", 1, RightTrimText},
    {"trimstr", 1, TrimText},
    {"trim", 0, Trim},
    {"ltrim", 0, LeftTrim},
    {"rtrim", 0, RightTrim},
    {"ascii_downcase", 0, Downcase},
    {"ascii_upcase", 0, Upcase},
    {"explode", 0, Explode},
    {"implode", 0, Implode},
    {"split", 1, Split},
    {"join", 1, Join},
    {"indices", 1, Indices},
    {"index", 1, FirstIndex},
    {"rindex", 1, LastIndex},
};

}  // namespace

Value FormatValue(Machine& machine, const Value& value, int format) {
  switch (format) {
    case kText:
      return value.is_string() ? value : ToJsonText(machine, value);
    case kJson:
      return ToJsonText(machine, value);
    case kCsv:
    case kTsv:
    case kSh:
      return FormatRow(machine, value, format);
    default:
      break;
  }
  Value text = value.is_string() ? value : ToJsonText(machine, value);
  if (text.absent()) return {};
  if (!machine.Reserve(text.text().size() * 3)) return {};
  std::string out;
  switch (format) {
    case kHtml:
      out = EscapeHtml(text.text());
      break;
    case kUri:
      out = EncodeUri(text.text());
      break;
    case kUrid:
      if (!DecodeUri(text.text(), &out))
        return machine.Fail(absl::StrCat(Named(value), " is not a valid uri encoding"));
      break;
    case kBase64:
      absl::Base64Escape(absl::string_view(text.text().data(), text.text().size()), &out);
      break;
    case kBase32:
      out = EncodeBase32(text.text());
      break;
    default: {
      bool wide = format == kBase64d;
      size_t digits = 0;
      bool valid = DecodeDigits(text.text(), wide ? kBase64Digits : kBase32Digits, wide ? 6 : 5, &out, &digits);
      if (!valid)
        return machine.Fail(absl::StrCat(Named(value), " is not valid ", wide ? "base64" : "base32", " data"));
      if (wide && digits % 4 == 1) return machine.Fail(absl::StrCat(Named(value), " trailing base64 byte found"));
      if (!IsValidUtf8(out)) out = CleanUtf8(out);
    }
  }
  return Value::Text(&machine.heap(), std::move(out));
}

Value ToJsonText(Machine& machine, const Value& value) {
  Writer writer(&machine, machine.heap().limit() - std::min(machine.heap().limit(), machine.heap().used()));
  if (writer.Write(value, 0)) return Value::Text(&machine.heap(), std::move(writer.out()));
  if (!machine.Reserve(writer.out().size())) return {};
  return {};  // the slice is over
}

std::string Excerpt(const Value& value) {
  Writer writer(nullptr, kExcerpt + 8);
  bool whole = writer.Write(value, 0);
  std::string& text = writer.out();
  if (whole && text.size() <= kExcerpt) return text;
  const char* end = value.is_string() ? "\"" : value.is_array() ? "]" : value.is_object() ? "}" : "";
  return absl::StrCat(Utf8Prefix(text, kExcerpt - 3 - (*end ? 1 : 0)), "...", end);
}

Value ParseJsonText(Heap* heap, absl::string_view text, std::string* error) {
  Builder builder(heap);
  JsonBounds bounds;
  bounds.max_depth = 10'000;
  bounds.allow_nan = true;
  bounds.mend_surrogates = true;
  JsonParser<Builder> parser(text, bounds, builder);
  if (parser.Parse()) return builder.root();
  const JsonFault& fault = parser.fault();
  bool deep = fault.what.find("nested deeper") != std::string::npos;
  *error = absl::StrCat(deep ? "Exceeds depth limit for parsing" : fault.what, " at byte ", fault.offset);
  return {};
}

NativeTable TextNatives() { return {kNatives, std::size(kNatives)}; }

}  // namespace tutti::engine::expressions
