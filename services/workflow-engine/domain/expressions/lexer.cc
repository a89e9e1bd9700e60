#include "services/workflow-engine/domain/expressions/lexer.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/expressions/syntax.h"

namespace tutti::engine::expressions {
namespace {

constexpr std::array kKeywords = {"def", "if",    "then",  "elif",   "else",    "end", "as", "reduce", "foreach",
                                  "try", "catch", "label", "import", "include", "and", "or", "__loc__"};

bool IsKeyword(const std::string& word) {
  return std::find_if(kKeywords.begin(), kKeywords.end(), [&](const char* k) { return word == k; }) != kKeywords.end();
}

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameChar(char c) { return IsNameStart(c) || IsDigit(c); }

}  // namespace

absl::Status Lexer::Fail(uint32_t position, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat("syntax error at ", DescribePosition(text_, position), ": ", what));
}

void Lexer::Advance() {
  SkipBlanks();
  at_ = {};
  at_.position = static_cast<uint32_t>(position_);
  if (position_ >= text_.size()) return;
  char c = text_[position_];
  if (c == '.' && position_ + 1 < text_.size() && IsNameStart(text_[position_ + 1])) {
    ++position_;
    at_.text = Word();
    at_.token = Token::kField;
  } else if (IsNameStart(c)) {
    at_.text = Word();
    // `a::b` names a module's function; it is read as one name, which nobody knows.
    while (position_ + 2 < text_.size() && text_.compare(position_, 2, "::") == 0 &&
           IsNameStart(text_[position_ + 2])) {
      position_ += 2;
      absl::StrAppend(&at_.text, "::", Word());
    }
    at_.token = IsKeyword(at_.text) ? Token::kKeyword : Token::kName;
  } else if (c == '$' && position_ + 1 < text_.size() && IsNameStart(text_[position_ + 1])) {
    ++position_;
    at_.text = Word();
    at_.token = Token::kVariable;
  } else if (IsDigit(c) || (c == '.' && position_ + 1 < text_.size() && IsDigit(text_[position_ + 1]))) {
    ReadNumber();
  } else if (c == '"') {
    ++position_;
    at_.token = Token::kString;
  } else if (c == '@' && position_ + 1 < text_.size() && IsNameStart(text_[position_ + 1])) {
    ++position_;
    at_.text = Word();
    at_.token = Token::kFormat;
  } else {
    ReadOperator();
  }
}

void Lexer::SkipBlanks() {
  while (position_ < text_.size()) {
    char c = text_[position_];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      ++position_;
    } else if (c == '#') {
      // A comment ends with its line, unless an odd number of backslashes stands at the end.
      while (position_ < text_.size() && text_[position_] != '\n') {
        if (text_[position_] == '\\' && position_ + 1 < text_.size()) {
          ++position_;
          if (text_[position_] == '\r' && position_ + 1 < text_.size() && text_[position_ + 1] == '\n') ++position_;
        } else if (text_[position_] == '\r' && (position_ + 1 == text_.size() || text_[position_ + 1] != '\n')) {
          // A lone carriage return does not end a line.
        }
        if (position_ < text_.size()) ++position_;
      }
    } else {
      return;
    }
  }
}

std::string Lexer::Word() {
  size_t begin = position_;
  while (position_ < text_.size() && IsNameChar(text_[position_])) ++position_;
  return text_.substr(begin, position_ - begin);
}

void Lexer::ReadNumber() {
  size_t begin = position_;
  auto digits = [&] {
    while (position_ < text_.size() && IsDigit(text_[position_])) ++position_;
  };
  digits();
  size_t whole = position_;
  std::string fraction, exponent;
  if (position_ < text_.size() && text_[position_] == '.' &&
      !(position_ + 1 < text_.size() && (text_[position_ + 1] == '.' || IsNameStart(text_[position_ + 1])) &&
        text_[position_ + 1] != 'e' && text_[position_ + 1] != 'E')) {
    ++position_;
    size_t from = position_;
    digits();
    fraction = text_.substr(from, position_ - from);
  }
  if (position_ < text_.size() && (text_[position_] == 'e' || text_[position_] == 'E')) {
    size_t back = position_++;
    if (position_ < text_.size() && (text_[position_] == '+' || text_[position_] == '-')) ++position_;
    size_t from = position_;
    digits();
    if (position_ == from) {
      position_ = back;
    } else {
      exponent = text_.substr(back, position_ - back);
    }
  }
  // Follows JSON's grammar: no leading zeros, digits on both sides of the point.
  std::string integer = text_.substr(begin, whole - begin);
  integer.erase(0, std::min(integer.find_first_not_of('0'), integer.size()));
  if (integer.empty()) integer = "0";
  at_.token = Token::kNumber;
  at_.text = absl::StrCat(integer, fraction.empty() ? "" : ".", fraction, exponent);
}

void Lexer::ReadOperator() {
  static constexpr std::array kOperators = {
      "?//=", "?//", "//=", "..", "|=", "+=", "-=", "*=", "/=", "%=", "==", "!=", "<=", ">=", "//"};
  at_.token = Token::kOperator;
  for (const char* op : kOperators) {
    size_t length = std::char_traits<char>::length(op);
    if (text_.compare(position_, length, op) != 0) continue;
    if (absl::string_view(op) == "?//=") break;  // `?` before `//=`
    position_ += length;
    at_.text = op;
    return;
  }
  at_.text = text_.substr(position_, 1);
  ++position_;
  if (absl::string_view(".[]{}()|,:;=<>+-*/%?$").find(at_.text[0]) == absl::string_view::npos && failure_.ok()) {
    size_t rest = position_;
    while (rest < text_.size() && (static_cast<unsigned char>(text_[rest]) & 0xC0) == 0x80) ++rest;
    failure_ = Fail(at_.position, absl::StrCat("unexpected \"", text_.substr(at_.position, rest - at_.position), "\""));
    at_ = {.position = at_.position};
  }
}

absl::Status Lexer::Escape(char escape, std::string* out) {
  switch (escape) {
    case '"':
    case '\\':
    case '/':
      out->push_back(escape);
      return absl::OkStatus();
    case 'b':
      out->push_back('\b');
      return absl::OkStatus();
    case 'f':
      out->push_back('\f');
      return absl::OkStatus();
    case 'n':
      out->push_back('\n');
      return absl::OkStatus();
    case 'r':
      out->push_back('\r');
      return absl::OkStatus();
    case 't':
      out->push_back('\t');
      return absl::OkStatus();
    case 'u': {
      auto unit = Hex4();
      if (!unit) return Fail(static_cast<uint32_t>(position_), "\\u needs four hexadecimal digits");
      uint32_t code = *unit;
      if (code >= 0xD800 && code < 0xDC00 && text_.compare(position_, 2, "\\u") == 0) {
        size_t back = position_;
        position_ += 2;
        auto low = Hex4();
        if (low && *low >= 0xDC00 && *low < 0xE000) {
          code = 0x10000 + ((code - 0xD800) << 10) + (*low - 0xDC00);
        } else {
          position_ = back;
        }
      }
      if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
      AppendUtf8(code, out);
      return absl::OkStatus();
    }
    default:
      return Fail(static_cast<uint32_t>(position_ - 2), absl::StrCat("unknown escape \\", std::string(1, escape)));
  }
}

std::optional<uint32_t> Lexer::Hex4() {
  if (position_ + 4 > text_.size()) return std::nullopt;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    char c = text_[position_ + static_cast<size_t>(i)];
    if (!isxdigit(static_cast<unsigned char>(c))) return std::nullopt;
    out = out * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  position_ += 4;
  return out;
}

absl::Status Lexer::Unexpected() const {
  if (!failure_.ok()) return failure_;
  if (at_.token == Token::kEnd) return Fail(at_.position, "unexpected end");
  return Fail(at_.position, absl::StrCat("unexpected \"", Shown(), "\""));
}
std::string Lexer::Shown() const {
  size_t end = std::max<size_t>(position_, at_.position + 1);
  return text_.substr(at_.position, std::min<size_t>(end - at_.position, 20));
}

bool Lexer::Is(const char* op) const { return at_.token == Token::kOperator && at_.text == op; }
bool Lexer::IsWord(const char* word) const { return at_.token == Token::kKeyword && at_.text == word; }
bool Lexer::Take(const char* op) {
  if (!Is(op)) return false;
  Advance();
  return true;
}
bool Lexer::TakeWord(const char* word) {
  if (!IsWord(word)) return false;
  Advance();
  return true;
}
absl::Status Lexer::Expect(const char* op) {
  if (Take(op)) return absl::OkStatus();
  absl::Status status = Unexpected();
  return absl::InvalidArgumentError(absl::StrCat(status.message(), " where \"", op, "\" is expected"));
}
absl::Status Lexer::ExpectWord(const char* word) {
  if (TakeWord(word)) return absl::OkStatus();
  absl::Status status = Unexpected();
  return absl::InvalidArgumentError(absl::StrCat(status.message(), " where \"", word, "\" is expected"));
}
absl::Status Lexer::CheckDepth() const {
  if (depth_ <= kMaxProgramDepth) return absl::OkStatus();
  return Fail(at_.position, absl::StrCat("nested deeper than ", kMaxProgramDepth, " levels"));
}

std::optional<Lexer::Operator> Lexer::OperatorHere() const {
  if (at_.token == Token::kKeyword) {
    if (at_.text == "or") return Operator{2, Operator::kLeft};
    if (at_.text == "and") return Operator{3, Operator::kLeft};
    return std::nullopt;
  }
  if (at_.token != Token::kOperator) return std::nullopt;
  const std::string& op = at_.text;
  if (op == "//") return Operator{0, Operator::kRight};
  if (op == "=" || op == "|=" || op == "+=" || op == "-=" || op == "*=" || op == "/=" || op == "%=" || op == "//=") {
    return Operator{1, Operator::kNone};
  }
  if (op == "==" || op == "!=" || op == "<" || op == "<=" || op == ">" || op == ">=")
    return Operator{4, Operator::kNone};
  if (op == "+" || op == "-") return Operator{5, Operator::kLeft};
  if (op == "*" || op == "/" || op == "%") return Operator{6, Operator::kLeft};
  return std::nullopt;
}

std::string DescribePosition(const std::string& text, uint32_t position) {
  size_t line = 1, column = 1;
  for (size_t i = 0; i < position && i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++line;
      column = 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++column;
    }
  }
  return absl::StrCat(line, ":", column);
}

}  // namespace tutti::engine::expressions
