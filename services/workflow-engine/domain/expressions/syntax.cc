#include "services/workflow-engine/domain/expressions/syntax.h"

#include <algorithm>
#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "runtime/text/utf8.h"

namespace tutti::engine::expressions {
namespace {

enum class Token : uint8_t {
  kEnd, kName, kField, kVariable, kNumber, kString, kFormat, kOperator, kKeyword,
};

struct Lexeme {
  Token token = Token::kEnd;
  std::string text;  // of names without `.`, `$`; of strings: unused
  uint32_t position = 0;
};

constexpr std::array kKeywords = {"def", "if", "then", "elif", "else", "end", "as", "reduce", "foreach", "try", "catch",
                                  "label", "import", "include", "and", "or", "__loc__"};

bool IsKeyword(const std::string& word) {
  return std::find_if(kKeywords.begin(), kKeywords.end(), [&](const char* k) { return word == k; }) != kKeywords.end();
}

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameChar(char c) { return IsNameStart(c) || IsDigit(c); }

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) { Advance(); }

  absl::StatusOr<AstPtr> Program() {
    TUTTI_ASSIGN_OR_RETURN(AstPtr program, Pipe());
    if (!failure_.ok()) return failure_;
    if (at_.token != Token::kEnd) return Unexpected();
    return program;
  }

  absl::StatusOr<AstPtr> Definitions() {
    if (at_.token == Token::kEnd) return New(Ast::Type::kIdentity);
    TUTTI_ASSIGN_OR_RETURN(auto definition, Define());
    AstPtr out = New(Ast::Type::kDefine);
    out->definition = std::move(definition);
    TUTTI_ASSIGN_OR_RETURN(AstPtr rest, Definitions());
    out->items.push_back(std::move(rest));
    return out;
  }

 private:
  using Parsed = absl::StatusOr<AstPtr>;

  // Counts nesting for as long as it lives.
  class Nested {
   public:
    explicit Nested(int& depth) : depth_(depth) { ++depth_; }
    ~Nested() { --depth_; }

   private:
    int& depth_;
  };

  AstPtr New(Ast::Type type) { return NewAt(type, at_.position); }
  static AstPtr NewAt(Ast::Type type, uint32_t position) {
    auto out = std::make_unique<Ast>();
    out->type = type;
    out->position = position;
    return out;
  }
  static AstPtr Text(std::string text, uint32_t position) {
    AstPtr out = NewAt(Ast::Type::kLiteral, position);
    out->literal = Ast::LiteralType::kString;
    out->text = std::move(text);
    return out;
  }
  template <class... Items>
  static AstPtr Make(Ast::Type type, uint32_t position, Items... items) {
    AstPtr out = NewAt(type, position);
    (out->items.push_back(std::move(items)), ...);
    return out;
  }

  absl::Status Fail(uint32_t position, absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("syntax error at ", DescribePosition(text_, position), ": ", what));
  }
  absl::Status Unexpected() const {
    if (!failure_.ok()) return failure_;
    if (at_.token == Token::kEnd) return Fail(at_.position, "unexpected end");
    return Fail(at_.position, absl::StrCat("unexpected \"", Shown(), "\""));
  }
  std::string Shown() const {
    size_t end = std::max<size_t>(position_, at_.position + 1);
    return text_.substr(at_.position, std::min<size_t>(end - at_.position, 20));
  }

  // Reads the next lexeme into at_. Strings stop after their opening quote.
  void Advance() {
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
      while (position_ + 2 < text_.size() && text_.compare(position_, 2, "::") == 0 && IsNameStart(text_[position_ + 2])) {
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

  void SkipBlanks() {
    while (position_ < text_.size()) {
      char c = text_[position_];
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        ++position_;
      } else if (c == '#') {
        // To the end of the line; an odd number of backslashes before it continues the comment.
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

  std::string Word() {
    size_t begin = position_;
    while (position_ < text_.size() && IsNameChar(text_[position_])) ++position_;
    return text_.substr(begin, position_ - begin);
  }

  void ReadNumber() {
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
    // In JSON's grammar: no leading zeros, digits on both sides of the point.
    std::string integer = text_.substr(begin, whole - begin);
    integer.erase(0, std::min(integer.find_first_not_of('0'), integer.size()));
    if (integer.empty()) integer = "0";
    at_.token = Token::kNumber;
    at_.text = absl::StrCat(integer, fraction.empty() ? "" : ".", fraction, exponent);
  }

  void ReadOperator() {
    static constexpr std::array kOperators = {"?//=", "?//", "//=", "..", "|=", "+=", "-=", "*=", "/=", "%=", "==",
                                              "!=",   "<=",  ">=",  "//"};
    at_.token = Token::kOperator;
    for (const char* op : kOperators) {
      size_t length = std::char_traits<char>::length(op);
      if (text_.compare(position_, length, op) != 0) continue;
      if (std::string_view(op) == "?//=") break;  // `?` before `//=`
      position_ += length;
      at_.text = op;
      return;
    }
    at_.text = text_.substr(position_, 1);
    ++position_;
    if (std::string_view(".[]{}()|,:;=<>+-*/%?$").find(at_.text[0]) == std::string_view::npos && failure_.ok()) {
      size_t rest = position_;
      while (rest < text_.size() && (static_cast<unsigned char>(text_[rest]) & 0xC0) == 0x80) ++rest;
      failure_ = Fail(at_.position, absl::StrCat("unexpected \"", text_.substr(at_.position, rest - at_.position), "\""));
      at_ = {.position = at_.position};
    }
  }

  bool Is(const char* op) const { return at_.token == Token::kOperator && at_.text == op; }
  bool IsWord(const char* word) const { return at_.token == Token::kKeyword && at_.text == word; }
  bool Take(const char* op) {
    if (!Is(op)) return false;
    Advance();
    return true;
  }
  bool TakeWord(const char* word) {
    if (!IsWord(word)) return false;
    Advance();
    return true;
  }
  absl::Status Expect(const char* op) {
    if (Take(op)) return absl::OkStatus();
    absl::Status status = Unexpected();
    return absl::InvalidArgumentError(absl::StrCat(status.message(), " where \"", op, "\" is expected"));
  }
  absl::Status ExpectWord(const char* word) {
    if (TakeWord(word)) return absl::OkStatus();
    absl::Status status = Unexpected();
    return absl::InvalidArgumentError(absl::StrCat(status.message(), " where \"", word, "\" is expected"));
  }
  absl::Status CheckDepth() const {
    if (depth_ <= kMaxProgramDepth) return absl::OkStatus();
    return Fail(at_.position, absl::StrCat("nested deeper than ", kMaxProgramDepth, " levels"));
  }

  // pipe := 'def' … ';' pipe | 'label' $x '|' pipe | comma ['|' pipe]
  Parsed Pipe(bool comma_allowed = true) {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    uint32_t position = at_.position;
    if (IsWord("def")) {
      TUTTI_ASSIGN_OR_RETURN(auto definition, Define());
      TUTTI_ASSIGN_OR_RETURN(AstPtr body, Pipe(comma_allowed));
      AstPtr out = NewAt(Ast::Type::kDefine, position);
      out->definition = std::move(definition);
      out->items.push_back(std::move(body));
      return out;
    }
    TUTTI_ASSIGN_OR_RETURN(AstPtr left, comma_allowed ? Comma() : Operators(0));
    uint32_t at = at_.position;
    if (!Take("|")) return left;
    TUTTI_ASSIGN_OR_RETURN(AstPtr right, Pipe(comma_allowed));
    return Make(Ast::Type::kPipe, at, std::move(left), std::move(right));
  }

  // operators ['as' patterns '|' pipe]
  Parsed Bound() {
    uint32_t position = at_.position;
    TUTTI_ASSIGN_OR_RETURN(AstPtr source, Operators(0));
    if (!IsWord("as")) return source;
    Advance();
    AstPtr out = NewAt(Ast::Type::kBind, position);
    TUTTI_RETURN_IF_ERROR(Patterns(out.get()));
    TUTTI_RETURN_IF_ERROR(Expect("|"));
    TUTTI_ASSIGN_OR_RETURN(AstPtr body, Pipe());
    out->items.push_back(std::move(source));
    out->items.push_back(std::move(body));
    return out;
  }

  Parsed Comma() {
    TUTTI_ASSIGN_OR_RETURN(AstPtr left, Bound());
    while (Is(",")) {
      uint32_t at = at_.position;
      Advance();
      TUTTI_ASSIGN_OR_RETURN(AstPtr right, Bound());
      left = Make(Ast::Type::kComma, at, std::move(left), std::move(right));
    }
    return left;
  }

  struct Operator {
    int level;
    enum { kLeft, kRight, kNone } side;
  };
  std::optional<Operator> OperatorHere() const {
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
    if (op == "==" || op == "!=" || op == "<" || op == "<=" || op == ">" || op == ">=") return Operator{4, Operator::kNone};
    if (op == "+" || op == "-") return Operator{5, Operator::kLeft};
    if (op == "*" || op == "/" || op == "%") return Operator{6, Operator::kLeft};
    return std::nullopt;
  }

  Parsed Operators(int level) {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    TUTTI_ASSIGN_OR_RETURN(AstPtr left, Prefixed());
    int refused = -1;  // a level whose operators do not stand in a row
    for (;;) {
      auto op = OperatorHere();
      if (!op || op->level < level) return left;
      if (op->level == refused) return Fail(at_.position, absl::StrCat("\"", at_.text, "\" cannot follow such an operator"));
      std::string text = at_.text;
      uint32_t at = at_.position;
      Advance();
      TUTTI_ASSIGN_OR_RETURN(AstPtr right, Operators(op->side == Operator::kRight ? op->level : op->level + 1));
      refused = op->side == Operator::kNone ? op->level : -1;
      Ast::Type type = Ast::Type::kBinary;
      if (op->level == 0) type = Ast::Type::kAlternative;
      if (op->level == 1) type = Ast::Type::kUpdate;
      if (op->level == 2) type = Ast::Type::kOr;
      if (op->level == 3) type = Ast::Type::kAnd;
      left = Make(type, at, std::move(left), std::move(right));
      left->text = text;
    }
  }

  // A term with what may stand before it: `-`, `def`, `label`.
  Parsed Prefixed() {
    uint32_t position = at_.position;
    if (IsWord("def")) {
      TUTTI_ASSIGN_OR_RETURN(auto definition, Define());
      TUTTI_ASSIGN_OR_RETURN(AstPtr body, Pipe());
      AstPtr out = NewAt(Ast::Type::kDefine, position);
      out->definition = std::move(definition);
      out->items.push_back(std::move(body));
      return out;
    }
    if (TakeWord("label")) {
      if (at_.token != Token::kVariable) return Unexpected();
      AstPtr out = NewAt(Ast::Type::kLabel, position);
      out->text = at_.text;
      Advance();
      TUTTI_RETURN_IF_ERROR(Expect("|"));
      TUTTI_ASSIGN_OR_RETURN(AstPtr body, Pipe());
      out->items.push_back(std::move(body));
      return out;
    }
    return Negated();
  }

  Parsed Negated() {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    if (!Is("-")) return PostTerm();
    uint32_t position = at_.position;
    Advance();
    TUTTI_ASSIGN_OR_RETURN(AstPtr operand, Negated());
    return Make(Ast::Type::kNegate, position, std::move(operand));
  }

  absl::Status Patterns(Ast* out) {
    do {
      TUTTI_ASSIGN_OR_RETURN(Pattern pattern, ReadPattern());
      out->patterns.push_back(std::move(pattern));
    } while (Take("?//"));
    return absl::OkStatus();
  }

  absl::StatusOr<Pattern> ReadPattern() {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    Pattern out;
    if (at_.token == Token::kVariable) {
      out.name = at_.text;
      Advance();
      return out;
    }
    if (Take("[")) {
      out.type = Pattern::Type::kArray;
      do {
        TUTTI_ASSIGN_OR_RETURN(Pattern item, ReadPattern());
        out.items.push_back(std::move(item));
      } while (Take(","));
      TUTTI_RETURN_IF_ERROR(Expect("]"));
      return out;
    }
    if (Take("{")) {
      out.type = Pattern::Type::kObject;
      do {
        Pattern::Member member;
        uint32_t position = at_.position;
        bool needs_value = true;
        if (at_.token == Token::kVariable) {
          member.variable = at_.text;
          member.key = Text(at_.text, position);
          needs_value = false;
          Advance();
        } else if (at_.token == Token::kName || at_.token == Token::kKeyword) {
          member.key = Text(at_.text, position);
          Advance();
        } else if (at_.token == Token::kString) {
          TUTTI_ASSIGN_OR_RETURN(member.key, String(""));
        } else if (Take("(")) {
          TUTTI_ASSIGN_OR_RETURN(member.key, Pipe());
          TUTTI_RETURN_IF_ERROR(Expect(")"));
        } else {
          return Unexpected();
        }
        if (Is(":") || needs_value) {
          TUTTI_RETURN_IF_ERROR(Expect(":"));
          TUTTI_ASSIGN_OR_RETURN(Pattern value, ReadPattern());
          member.value = std::make_unique<Pattern>(std::move(value));
        }
        out.members.push_back(std::move(member));
      } while (Take(","));
      TUTTI_RETURN_IF_ERROR(Expect("}"));
      return out;
    }
    return Unexpected();
  }

  absl::StatusOr<std::unique_ptr<Definition>> Define() {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    TUTTI_RETURN_IF_ERROR(ExpectWord("def"));
    if (at_.token != Token::kName && at_.token != Token::kKeyword) return Unexpected();
    auto out = std::make_unique<Definition>();
    out->name = at_.text;
    Advance();
    if (Take("(")) {
      do {
        if (at_.token == Token::kVariable) {
          out->params.push_back("$" + at_.text);
        } else if (at_.token == Token::kName || at_.token == Token::kKeyword) {
          out->params.push_back(at_.text);
        } else {
          return Unexpected();
        }
        Advance();
      } while (Take(";"));
      TUTTI_RETURN_IF_ERROR(Expect(")"));
    }
    TUTTI_RETURN_IF_ERROR(Expect(":"));
    calls_.push_back({out->name, out->params.size(), false});
    auto body = Pipe();
    out->recursive = calls_.back().called;
    calls_.pop_back();
    TUTTI_RETURN_IF_ERROR(body.status());
    out->body = *std::move(body);
    TUTTI_RETURN_IF_ERROR(Expect(";"));
    return out;
  }

  // A term with its suffixes.
  Parsed PostTerm() {
    TUTTI_ASSIGN_OR_RETURN(AstPtr term, Term());
    for (;;) {
      uint32_t position = at_.position;
      if (at_.token == Token::kField) {
        AstPtr key = Text(at_.text, position);
        Advance();
        term = Make(Ast::Type::kIndex, position, std::move(term), std::move(key));
      } else if (Is(".")) {
        Advance();
        if (at_.token == Token::kString) {
          TUTTI_ASSIGN_OR_RETURN(AstPtr key, String(""));
          term = Make(Ast::Type::kIndex, position, std::move(term), std::move(key));
        } else if (Is("[")) {
          TUTTI_ASSIGN_OR_RETURN(term, Bracket(std::move(term)));
        } else {
          return Unexpected();
        }
      } else if (Is("[")) {
        TUTTI_ASSIGN_OR_RETURN(term, Bracket(std::move(term)));
      } else if (Is("?")) {
        Advance();
        term = Make(Ast::Type::kTry, position, std::move(term), AstPtr());
      } else if (Is("?//")) {
        // Behind a term this is `?` and `//`; the token of its own stands between patterns only.
        at_.text = "//";
        ++at_.position;
        term = Make(Ast::Type::kTry, position, std::move(term), AstPtr());
      } else {
        return term;
      }
    }
  }

  // `[…]` behind a term.
  Parsed Bracket(AstPtr target) {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    uint32_t position = at_.position;
    TUTTI_RETURN_IF_ERROR(Expect("["));
    if (Take("]")) return Make(Ast::Type::kIterate, position, std::move(target));
    AstPtr from, to;
    bool slice = false;
    if (!Is(":")) {
      TUTTI_ASSIGN_OR_RETURN(from, Pipe());
    }
    if (Take(":")) {
      slice = true;
      if (!Is("]")) {
        TUTTI_ASSIGN_OR_RETURN(to, Pipe());
      } else if (!from) {
        return Unexpected();
      }
    }
    TUTTI_RETURN_IF_ERROR(Expect("]"));
    if (slice) return Make(Ast::Type::kSlice, position, std::move(target), std::move(from), std::move(to));
    return Make(Ast::Type::kIndex, position, std::move(target), std::move(from));
  }

  Parsed Term() {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    if (!failure_.ok()) return failure_;
    uint32_t position = at_.position;
    switch (at_.token) {
      case Token::kNumber: {
        AstPtr out = New(Ast::Type::kLiteral);
        out->literal = Ast::LiteralType::kNumber;
        out->text = at_.text;
        Advance();
        return out;
      }
      case Token::kString:
        return String("");
      case Token::kFormat: {
        std::string format = at_.text;
        Advance();
        if (at_.token == Token::kString) return String(format);
        AstPtr out = NewAt(Ast::Type::kFormat, position);
        out->text = format;
        return out;
      }
      case Token::kField: {
        AstPtr key = Text(at_.text, position);
        Advance();
        return Make(Ast::Type::kIndex, position, NewAt(Ast::Type::kIdentity, position), std::move(key));
      }
      case Token::kVariable: {
        AstPtr out = New(at_.text == "__loc__" ? Ast::Type::kLocation : Ast::Type::kVariable);
        out->text = at_.text;
        Advance();
        return out;
      }
      case Token::kName:
        return Call();
      case Token::kKeyword:
        return Keyword();
      case Token::kEnd:
        return Unexpected();
      default:
        break;
    }
    if (Take("..")) return NewAt(Ast::Type::kRecurse, position);
    if (Take(".")) {
      AstPtr self = NewAt(Ast::Type::kIdentity, position);
      if (at_.token == Token::kString) {
        TUTTI_ASSIGN_OR_RETURN(AstPtr key, String(""));
        return Make(Ast::Type::kIndex, position, std::move(self), std::move(key));
      }
      return self;
    }
    if (Take("(")) {
      TUTTI_ASSIGN_OR_RETURN(AstPtr inner, Pipe());
      TUTTI_RETURN_IF_ERROR(Expect(")"));
      return inner;
    }
    if (Take("[")) {
      AstPtr out = NewAt(Ast::Type::kArray, position);
      if (Take("]")) return out;
      TUTTI_ASSIGN_OR_RETURN(AstPtr inner, Pipe());
      out->items.push_back(std::move(inner));
      TUTTI_RETURN_IF_ERROR(Expect("]"));
      return out;
    }
    if (Is("{")) return Object();
    return Unexpected();
  }

  Parsed Call() {
    AstPtr out = New(Ast::Type::kCall);
    out->text = at_.text;
    if (at_.text == "null" || at_.text == "true" || at_.text == "false") {
      out->type = Ast::Type::kLiteral;
      out->literal = at_.text == "null"   ? Ast::LiteralType::kNull
                     : at_.text == "true" ? Ast::LiteralType::kTrue
                                          : Ast::LiteralType::kFalse;
      Advance();
      return out;
    }
    if (at_.text == "break") {
      Advance();
      if (at_.token != Token::kVariable) return Fail(out->position, "break needs a label, such as break $out");
      out->type = Ast::Type::kBreak;
      out->text = at_.text;
      Advance();
      return out;
    }
    Advance();
    if (Take("(")) {
      do {
        TUTTI_ASSIGN_OR_RETURN(AstPtr argument, Pipe());
        out->items.push_back(std::move(argument));
      } while (Take(";"));
      TUTTI_RETURN_IF_ERROR(Expect(")"));
    }
    for (auto& caller : calls_) {
      if (caller.name == out->text && caller.params == out->items.size()) caller.called = true;
    }
    return out;
  }

  Parsed Keyword() {
    uint32_t position = at_.position;
    if (TakeWord("if")) return If(position);
    if (TakeWord("try")) {
      TUTTI_ASSIGN_OR_RETURN(AstPtr body, TryOperand());
      AstPtr handler;
      if (TakeWord("catch")) {
        TUTTI_ASSIGN_OR_RETURN(handler, TryOperand());
      }
      return Make(Ast::Type::kTry, position, std::move(body), std::move(handler));
    }
    bool reduce = IsWord("reduce");
    if (reduce || IsWord("foreach")) {
      Advance();
      AstPtr out = NewAt(reduce ? Ast::Type::kReduce : Ast::Type::kForeach, position);
      TUTTI_ASSIGN_OR_RETURN(AstPtr source, Operators(0));
      TUTTI_RETURN_IF_ERROR(ExpectWord("as"));
      TUTTI_RETURN_IF_ERROR(Patterns(out.get()));
      TUTTI_RETURN_IF_ERROR(Expect("("));
      TUTTI_ASSIGN_OR_RETURN(AstPtr init, Pipe());
      TUTTI_RETURN_IF_ERROR(Expect(";"));
      TUTTI_ASSIGN_OR_RETURN(AstPtr update, Pipe());
      AstPtr extract;
      if (!reduce && Take(";")) {
        TUTTI_ASSIGN_OR_RETURN(extract, Pipe());
      }
      TUTTI_RETURN_IF_ERROR(Expect(")"));
      out->items.push_back(std::move(source));
      out->items.push_back(std::move(init));
      out->items.push_back(std::move(update));
      if (!reduce) out->items.push_back(std::move(extract));
      return out;
    }
    if (IsWord("def") || IsWord("label")) return Prefixed();
    if (IsWord("import") || IsWord("include")) {
      return Fail(position, absl::StrCat("\"", at_.text, "\" is not allowed: an expression has no modules"));
    }
    return Unexpected();
  }

  // The operand of `try` and of `catch`.
  Parsed TryOperand() { return Negated(); }

  Parsed If(uint32_t position) {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    TUTTI_ASSIGN_OR_RETURN(AstPtr condition, Pipe());
    TUTTI_RETURN_IF_ERROR(ExpectWord("then"));
    TUTTI_ASSIGN_OR_RETURN(AstPtr then, Pipe());
    AstPtr otherwise;
    uint32_t at = at_.position;
    if (TakeWord("elif")) {
      TUTTI_ASSIGN_OR_RETURN(otherwise, If(at));  // takes the `end` of all
      return Make(Ast::Type::kIf, position, std::move(condition), std::move(then), std::move(otherwise));
    }
    if (TakeWord("else")) {
      TUTTI_ASSIGN_OR_RETURN(otherwise, Pipe());
    }
    TUTTI_RETURN_IF_ERROR(ExpectWord("end"));
    return Make(Ast::Type::kIf, position, std::move(condition), std::move(then), std::move(otherwise));
  }

  Parsed Object() {
    AstPtr out = New(Ast::Type::kObject);
    TUTTI_RETURN_IF_ERROR(Expect("{"));
    if (Take("}")) return out;
    do {
      if (Is("}") && !out->items.empty()) break;
      uint32_t position = at_.position;
      AstPtr key, value;
      if (at_.token == Token::kVariable) {
        key = Text(at_.text, position);
        value = New(at_.text == "__loc__" ? Ast::Type::kLocation : Ast::Type::kVariable);
        value->text = at_.text;
        Advance();
        if (Take(":")) {  // the variable's value is the key
          key = std::move(value);
          TUTTI_ASSIGN_OR_RETURN(value, Pipe(/*comma_allowed=*/false));
        }
        out->items.push_back(std::move(key));
        out->items.push_back(std::move(value));
        continue;
      }
      bool needs_value = false;
      if (at_.token == Token::kName || at_.token == Token::kKeyword) {
        key = Text(at_.text, position);
        Advance();
      } else if (at_.token == Token::kNumber) {
        return Fail(position, "a member's name must be a string; write it in quotation marks");
      } else if (at_.token == Token::kString) {
        TUTTI_ASSIGN_OR_RETURN(key, String(""));
      } else if (at_.token == Token::kFormat) {
        std::string format = at_.text;
        Advance();
        if (at_.token == Token::kString) {
          TUTTI_ASSIGN_OR_RETURN(key, String(format));
        } else {
          key = NewAt(Ast::Type::kFormat, position);
          key->text = format;
        }
      } else if (Take("(")) {
        TUTTI_ASSIGN_OR_RETURN(key, Pipe());
        TUTTI_RETURN_IF_ERROR(Expect(")"));
        needs_value = true;
      } else {
        return Unexpected();
      }
      if (Is(":") || needs_value) {
        TUTTI_RETURN_IF_ERROR(Expect(":"));
        TUTTI_ASSIGN_OR_RETURN(value, Pipe(/*comma_allowed=*/false));
      }
      out->items.push_back(std::move(key));
      out->items.push_back(std::move(value));  // null: the input's member of that name
    } while (Take(","));
    TUTTI_RETURN_IF_ERROR(Expect("}"));
    return out;
  }

  // The rest of a string whose opening quote has been read.
  Parsed String(const std::string& format) {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    uint32_t begin = at_.position;
    AstPtr out = NewAt(Ast::Type::kString, begin);
    out->text = format;
    std::string piece;
    for (;;) {
      if (position_ >= text_.size()) return Fail(begin, "a string without its closing quotation mark");
      char c = text_[position_++];
      if (c == '"') break;
      if (c != '\\') {
        piece.push_back(c);
        continue;
      }
      if (position_ >= text_.size()) return Fail(begin, "a string without its closing quotation mark");
      char escape = text_[position_++];
      if (escape == '(') {
        out->items.push_back(Text(std::move(piece), begin));
        piece.clear();
        Advance();
        TUTTI_ASSIGN_OR_RETURN(AstPtr inner, Pipe());
        if (!Is(")")) return Unexpected();
        out->items.push_back(std::move(inner));  // the string goes on right behind the parenthesis
        continue;
      }
      TUTTI_RETURN_IF_ERROR(Escape(escape, &piece));
    }
    Advance();
    if (out->items.empty()) return Text(std::move(piece), begin);
    out->items.push_back(Text(std::move(piece), begin));
    return out;
  }

  absl::Status Escape(char escape, std::string* out) {
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

  std::optional<uint32_t> Hex4() {
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

  struct Caller {
    std::string name;
    size_t params;
    bool called;
  };

  const std::string& text_;
  size_t position_ = 0;  // behind at_
  Lexeme at_;
  int depth_ = 0;
  absl::Status failure_;
  std::vector<Caller> calls_;  // the definitions around
};

absl::Status CheckSize(const std::string& text) {
  if (text.size() > kMaxProgramBytes) {
    return absl::InvalidArgumentError(absl::StrCat("longer than ", kMaxProgramBytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AstPtr> ParseProgram(const std::string& text) {
  TUTTI_RETURN_IF_ERROR(CheckSize(text));
  return Parser(text).Program();
}

absl::StatusOr<AstPtr> ParseDefinitions(const std::string& text) {
  TUTTI_RETURN_IF_ERROR(CheckSize(text));
  return Parser(text).Definitions();
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
