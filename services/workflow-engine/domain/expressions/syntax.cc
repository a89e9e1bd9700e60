#include "services/workflow-engine/domain/expressions/syntax.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/expressions/lexer.h"
#include "services/workflow-engine/domain/expressions/tree_depth.h"

namespace tutti::engine::expressions {
namespace {

class Parser : private Lexer {
 public:
  explicit Parser(const std::string& text) : Lexer(text) { Advance(); }

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
    std::vector<AstPtr> items;
    std::vector<uint32_t> commas;
    for (;;) {
      TUTTI_ASSIGN_OR_RETURN(items.emplace_back(), Bound());
      if (!Is(",")) return JoinItems(items, commas, 0, items.size());
      commas.push_back(at_.position);
      Advance();
    }
  }
  // Joins the items from `begin` to `end`. Commas may be grouped in any way: halves keep long lists shallow.
  static AstPtr JoinItems(std::vector<AstPtr>& items, const std::vector<uint32_t>& commas, size_t begin, size_t end) {
    if (end - begin == 1) return std::move(items[begin]);
    const size_t middle = begin + (end - begin) / 2;
    AstPtr left = JoinItems(items, commas, begin, middle);
    return Make(Ast::Type::kComma, commas[middle - 1], std::move(left), JoinItems(items, commas, middle, end));
  }

  Parsed Operators(int level) {
    Nested nested(depth_);
    TUTTI_RETURN_IF_ERROR(CheckDepth());
    TUTTI_ASSIGN_OR_RETURN(AstPtr left, Prefixed());
    int refused = -1;  // a level whose operators do not stand in a row
    for (;;) {
      auto op = OperatorHere();
      if (!op || op->level < level) return left;
      if (op->level == refused)
        return Fail(at_.position, absl::StrCat("\"", at_.text, "\" cannot follow such an operator"));
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

  struct Caller {
    std::string name;
    size_t params;
    bool called;
  };

  std::vector<Caller> calls_;  // the definitions around
};

}  // namespace

absl::StatusOr<AstPtr> ParseProgram(const std::string& text) {
  if (text.size() > kMaxProgramBytes) {
    return absl::InvalidArgumentError(absl::StrCat("longer than ", kMaxProgramBytes, " bytes"));
  }
  return WithBoundedDepth(text, Parser(text).Program());
}

absl::StatusOr<AstPtr> ParseDefinitions(const std::string& text) { return Parser(text).Definitions(); }

}  // namespace tutti::engine::expressions
