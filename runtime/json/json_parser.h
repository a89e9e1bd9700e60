// Reads JSON text (RFC 8259) without recursion, in time linear in its length, and within bounds that hold while
// reading.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/json/number_text.h"
#include "runtime/text/utf8.h"

namespace tutti {

struct JsonBounds {
  int max_depth = 30;
  int64_t max_values = int64_t{1} << 40;  // members and items together
  bool mend_surrogates = false;           // one without its pair becomes U+FFFD; else it is refused
  bool allow_nan = false;                 // `nan` and `NaN`, with a sign or without, as jq has them
};

// Says why a text is no JSON, and where.
struct JsonFault {
  size_t offset = 0;
  std::string what;
};

// Calls `handler` for each part, in order: Null(), Bool(bool), Number(absl::string_view), Nan(), String(std::string&&),
// BeginArray(), EndArray(), BeginObject(), Key(std::string&&), EndObject(). Each but EndArray and EndObject returns
// whether to go on. `text` must be valid UTF-8.
template <class Handler>
class JsonParser {
 public:
  JsonParser(absl::string_view text, const JsonBounds& bounds, Handler& handler)
      : text_(text), bounds_(bounds), handler_(handler) {}

  // False: fault() says why; the handler may have been called before.
  bool Parse() {
    if (!Values()) return false;
    SkipSpace();
    if (at_ < text_.size()) return Fail("unexpected text behind the value");
    return true;
  }
  const JsonFault& fault() const { return fault_; }

 private:
  bool Fail(std::string what) {
    if (fault_.what.empty()) fault_ = {at_, std::move(what)};
    return false;
  }
  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  // A value, and all that is inside it.
  bool Values() {
    for (;;) {
      // Here a value begins.
      SkipSpace();
      if (at_ >= text_.size()) return Fail("unexpected end");
      if (++values_ > bounds_.max_values) return Fail(absl::StrCat("more than ", bounds_.max_values, " values"));
      bool opened = false;
      char c = text_[at_];
      if (c == '[' || c == '{') {
        if (static_cast<int>(open_.size()) >= bounds_.max_depth) {
          return Fail(absl::StrCat("nested deeper than ", bounds_.max_depth, " levels"));
        }
        ++at_;
        open_.push_back(c);
        if (!(c == '[' ? handler_.BeginArray() : handler_.BeginObject())) return Fail("refused");
        SkipSpace();
        if (at_ >= text_.size()) return Fail("unexpected end");
        if (text_[at_] == (c == '[' ? ']' : '}')) {
          Close();
        } else {
          opened = true;
        }
      } else if (!Scalar(c)) {
        return false;
      }
      if (opened) {
        if (open_.back() == '{' && !Name()) return false;
        continue;
      }
      // Here a value has ended: close what ends with it, up to the next one.
      for (;;) {
        if (open_.empty()) return true;
        SkipSpace();
        if (at_ >= text_.size()) return Fail("unexpected end");
        if (text_[at_] == ',') {
          ++at_;
          if (open_.back() == '{' && !Name()) return false;
          break;
        }
        if (text_[at_] != (open_.back() == '[' ? ']' : '}')) {
          return Fail(open_.back() == '[' ? "expected , or ]" : "expected , or }");
        }
        Close();
      }
    }
  }

  void Close() {
    ++at_;
    if (open_.back() == '[') {
      handler_.EndArray();
    } else {
      handler_.EndObject();
    }
    open_.pop_back();
  }

  bool Name() {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != '"') return Fail("expected a name in quotation marks");
    std::string name;
    if (!Text(&name)) return false;
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != ':') return Fail("expected :");
    ++at_;
    return handler_.Key(std::move(name)) || Fail("refused");
  }

  bool Scalar(char c) {
    if (c == '"') {
      std::string text;
      return Text(&text) && (handler_.String(std::move(text)) || Fail("refused"));
    }
    if (c == 't' && Word("true")) return handler_.Bool(true) || Fail("refused");
    if (c == 'f' && Word("false")) return handler_.Bool(false) || Fail("refused");
    if (c == 'n' && Word("null")) return handler_.Null() || Fail("refused");
    size_t length = NumberTextLength(text_.substr(at_));
    if (length > 0 && !WordGoesOn(at_ + length)) {
      absl::string_view number = text_.substr(at_, length);
      at_ += length;
      return handler_.Number(number) || Fail("refused");
    }
    if (bounds_.allow_nan) {
      size_t before = at_;
      if (c == '-') ++at_;
      if (Word("nan") || Word("NaN")) return handler_.Nan() || Fail("refused");
      at_ = before;
    }
    return Fail("expected a value");
  }

  bool WordGoesOn(size_t at) const {
    return at < text_.size() &&
           (isalnum(static_cast<unsigned char>(text_[at])) || text_[at] == '.' || text_[at] == '_');
  }
  bool Word(absl::string_view word) {
    if (text_.substr(at_, word.size()) != word || WordGoesOn(at_ + word.size())) return false;
    at_ += word.size();
    return true;
  }

  bool Text(std::string* out) {
    ++at_;
    size_t begin = at_;
    for (;;) {
      // A run of what stands for itself.
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20) {
        ++at_;
      }
      if (at_ >= text_.size()) return Fail("a string without its closing quotation mark");
      if (begin == at_ && text_[at_] == '"') {
        ++at_;
        return true;
      }
      out->append(text_.data() + begin, at_ - begin);
      if (text_[at_] == '"') {
        ++at_;
        return true;
      }
      if (text_[at_] != '\\') return Fail("a control character in a string");
      if (!Escape(out)) return false;
      begin = at_;
    }
  }

  bool Escape(std::string* out) {
    if (at_ + 1 >= text_.size()) return Fail("unexpected end");
    char c = text_[at_ + 1];
    at_ += 2;
    switch (c) {
      case '"':
      case '\\':
      case '/':
        out->push_back(c);
        return true;
      case 'b':
        out->push_back('\b');
        return true;
      case 'f':
        out->push_back('\f');
        return true;
      case 'n':
        out->push_back('\n');
        return true;
      case 'r':
        out->push_back('\r');
        return true;
      case 't':
        out->push_back('\t');
        return true;
      case 'u': {
        uint32_t code = 0;
        if (!Hex(&code)) return false;
        if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
          size_t before = at_;
          at_ += 2;
          uint32_t low = 0;
          if (!Hex(&low)) return false;
          if (low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          } else {
            at_ = before;
          }
        }
        if (code >= 0xD800 && code < 0xE000) {
          if (!bounds_.mend_surrogates) return Fail("half of a surrogate pair");
          code = 0xFFFD;
        }
        AppendUtf8(code, out);
        return true;
      }
      default:
        at_ -= 2;
        return Fail("an unknown escape in a string");
    }
  }

  bool Hex(uint32_t* out) {
    *out = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ >= text_.size() || !isxdigit(static_cast<unsigned char>(text_[at_]))) {
        return Fail("\\u needs four hexadecimal digits");
      }
      char c = text_[at_];
      *out = *out * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return true;
  }

  const absl::string_view text_;
  const JsonBounds bounds_;
  Handler& handler_;
  size_t at_ = 0;
  int64_t values_ = 0;
  std::vector<char> open_;
  JsonFault fault_;
};

}  // namespace tutti
