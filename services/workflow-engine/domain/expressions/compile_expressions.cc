// Code for expressions.
#include <map>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/compiler.h"

namespace tutti::engine::expressions {

absl::StatusOr<Operand> Compiler::GenOperand(const Ast& ast, const Binding* scope, int in, bool last) {
  if (ast.type == Ast::Type::kIdentity) return Operand{in, last};
  if (ast.type == Ast::Type::kVariable && !pairs_) {
    const Binding* found = FindNamed(scope, Binding::Type::kVariable, ast.text);
    if (found && found->unit == unit_) return Operand{found->slot, false};
  }
  int out = NewValue();
  TUTTI_RETURN_IF_ERROR(Gen(ast, scope, in, last, out, false));
  return Operand{out, true};
}

absl::StatusOr<Operand> Compiler::GenPlainOperand(const Ast& ast, const Binding* scope, int in, bool last) {
  Plain plain(this);
  return GenOperand(ast, scope, in, last && !plain.was_tracking);
}

absl::Status Compiler::Gen(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail) {
  At at(this, ast.position);
  if (instructions_ > kMaxInstructions) return Fail("the expression is too large");
  if (!pairs_) return GenNode(ast, scope, in, last, out, tail);
  switch (ast.type) {
    case Ast::Type::kIdentity:
    case Ast::Type::kRecurse:
    case Ast::Type::kIndex:
    case Ast::Type::kSlice:
    case Ast::Type::kIterate:
    case Ast::Type::kPipe:
    case Ast::Type::kComma:
    case Ast::Type::kIf:
    case Ast::Type::kTry:
    case Ast::Type::kAlternative:
    case Ast::Type::kReduce:
    case Ast::Type::kForeach:
    case Ast::Type::kBind:
    case Ast::Type::kDefine:
    case Ast::Type::kCall:
    case Ast::Type::kLabel:
    case Ast::Type::kBreak:
      return GenNode(ast, scope, in, last, out, tail);
    default: {
      {
        Plain plain(this);
        TUTTI_RETURN_IF_ERROR(GenNode(ast, scope, in, false, out, false));
      }
      Emit(Op::kUntrackPath, out, in);
      return absl::OkStatus();
    }
  }
}

absl::Status Compiler::GenNode(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail) {
  switch (ast.type) {
    case Ast::Type::kIdentity:
      Emit(last ? Op::kMove : Op::kCopy, out, in, 0, PairFlag());
      return absl::OkStatus();
    case Ast::Type::kRecurse: {
      Ast call;
      call.type = Ast::Type::kCall;
      call.text = "recurse";
      call.position = ast.position;
      return GenCall(call, nullptr, in, last, out, tail);
    }
    case Ast::Type::kLiteral:
      return GenLiteral(ast, out);
    case Ast::Type::kString:
      return GenString(ast, scope, in, out);
    case Ast::Type::kFormat: {
      auto format = FindFormat(ast.text);
      if (!format) return Fail(absl::StrCat("@", ast.text, " is not a known format"));
      Emit(Op::kFormat, out, in, *format);
      return absl::OkStatus();
    }
    case Ast::Type::kIndex:
      return GenIndex(ast, scope, in, last, out, 0);
    case Ast::Type::kSlice:
      return GenSlice(ast, scope, in, last, out, 0);
    case Ast::Type::kIterate:
      return GenIterate(ast, scope, in, last, out, 0);
    case Ast::Type::kArray:
      return GenArray(ast, scope, in, last, out);
    case Ast::Type::kObject:
      return GenObject(ast, scope, in, out);
    case Ast::Type::kNegate: {
      const Ast& operand = *ast.items[0];
      if (operand.type == Ast::Type::kLiteral && operand.literal == Ast::LiteralType::kNumber) {
        Emit(Op::kConst, out, Constant(NumberOf("-" + operand.text)));
        return absl::OkStatus();
      }
      TUTTI_ASSIGN_OR_RETURN(Operand value, GenOperand(operand, scope, in, last));
      Emit(Op::kNegate, out, value.slot);
      return absl::OkStatus();
    }
    case Ast::Type::kPipe: {
      TUTTI_ASSIGN_OR_RETURN(Operand middle, GenOperand(*ast.items[0], scope, in, last));
      return Gen(*ast.items[1], scope, middle.slot, middle.consumable, out, tail);
    }
    case Ast::Type::kComma: {
      int fork = Emit(Op::kFork);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[0], scope, in, false, out, tail));
      int jump = Emit(Op::kJump);
      PatchA(fork);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[1], scope, in, last, out, tail));
      PatchA(jump);
      return absl::OkStatus();
    }
    case Ast::Type::kBinary:
      return GenBinary(ast, scope, in, last, out);
    case Ast::Type::kAnd:
    case Ast::Type::kOr:
      return GenLogic(ast, scope, in, last, out);
    case Ast::Type::kAlternative: {
      int found = NewSlots(2);  // the flag, and the fork's place
      int begin = Emit(Op::kAltBegin, found);
      TUTTI_ASSIGN_OR_RETURN(Operand left, GenOperand(*ast.items[0], scope, in, false));
      int no = Emit(Op::kJumpIfFalse, left.slot);
      Emit(Op::kAltFound, found);
      Emit(Op::kCopy, out, left.slot, 0, PairFlag());
      int jump = Emit(Op::kJump);
      PatchB(no);
      Emit(Op::kBacktrack);
      PatchB(begin);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[1], scope, in, last, out, tail));
      PatchA(jump);
      return absl::OkStatus();
    }
    case Ast::Type::kUpdate:
      return GenUpdate(ast, scope, in, last, out);
    case Ast::Type::kIf: {
      TUTTI_ASSIGN_OR_RETURN(Operand condition, GenPlainOperand(*ast.items[0], scope, in, false));
      bool free = last && ForkFree(*ast.items[0], scope);
      int no = Emit(Op::kJumpIfFalse, condition.slot);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[1], scope, in, free, out, tail));
      int jump = Emit(Op::kJump);
      PatchB(no);
      static const Ast* const kSelf = new Ast;
      TUTTI_RETURN_IF_ERROR(Gen(ast.items[2] ? *ast.items[2] : *kSelf, scope, in, free, out, tail));
      PatchA(jump);
      return absl::OkStatus();
    }
    case Ast::Type::kTry:
      return GenTry(ast, scope, in, out, tail);
    case Ast::Type::kReduce:
    case Ast::Type::kForeach:
      return GenFold(ast, scope, in, out);
    case Ast::Type::kBind: {
      TUTTI_ASSIGN_OR_RETURN(Operand source, GenPlainOperand(*ast.items[0], scope, in, false));
      bool free = last && ast.patterns.size() == 1 && ast.patterns[0].type == Pattern::Type::kVariable &&
                  ForkFree(*ast.items[0], scope);
      return GenPatterns(ast, scope, source, in, [&](const Binding* inner) {
        return Gen(*ast.items[1], inner, in, free, out, tail && ast.patterns.size() == 1);
      });
    }
    case Ast::Type::kDefine: {
      const Binding* inner = Bind({.type = Binding::Type::kFunction,
                                   .name = ast.definition->name,
                                   .arity = ast.definition->params.size(),
                                   .outer = scope,
                                   .unit = unit_,
                                   .definition = ast.definition.get()});
      return Gen(*ast.items[0], inner, in, last, out, tail);
    }
    case Ast::Type::kCall:
      return GenCall(ast, scope, in, last, out, tail);
    case Ast::Type::kVariable: {
      const Binding* found = FindNamed(scope, Binding::Type::kVariable, ast.text);
      if (!found) {
        if (ast.text == "ENV") return Fail("$ENV is not allowed: an expression sees only its data");
        return Fail(absl::StrCat("$", ast.text, " is not defined"));
      }
      if (found->unit == unit_) {
        Emit(Op::kCopy, out, found->slot);
      } else {
        Emit(Op::kLoadOuter, out, DepthOf(found->unit), found->slot);
      }
      return absl::OkStatus();
    }
    case Ast::Type::kLabel: {
      int slot = NewSlots(1);
      Emit(Op::kLabel, slot);
      const Binding* inner =
          Bind({.type = Binding::Type::kLabel, .name = ast.text, .outer = scope, .unit = unit_, .slot = slot});
      return Gen(*ast.items[0], inner, in, last, out, tail);
    }
    case Ast::Type::kBreak: {
      const Binding* found = FindNamed(scope, Binding::Type::kLabel, ast.text);
      if (!found) return Fail(absl::StrCat("$*label-", ast.text, " is not defined"));
      Emit(Op::kBreak, 0, DepthOf(found->unit), found->slot);
      return absl::OkStatus();
    }
    case Ast::Type::kLocation: {
      int base = NewSlots(4);
      Emit(Op::kConst, base, Constant(Value::Text(nullptr, "file")));
      Emit(Op::kConst, base + 1, Constant(Value::Text(nullptr, "<top-level>")));
      Emit(Op::kConst, base + 2, Constant(Value::Text(nullptr, "line")));
      std::string place = DescribePosition(program_.text, ast.position);
      Emit(Op::kConst, base + 3, Constant(NumberOf(place.substr(0, place.find(':')))));
      Emit(Op::kMakeObject, out, base, 2);
      return absl::OkStatus();
    }
  }
  return Fail("unknown syntax");
}

absl::Status Compiler::GenLiteral(const Ast& ast, int out) {
  Value value;
  switch (ast.literal) {
    case Ast::LiteralType::kNull:
      value = Value::Null();
      break;
    case Ast::LiteralType::kTrue:
    case Ast::LiteralType::kFalse:
      value = Value::Bool(ast.literal == Ast::LiteralType::kTrue);
      break;
    case Ast::LiteralType::kNumber:
      value = NumberOf(ast.text);
      break;
    case Ast::LiteralType::kString:
      value = Value::Text(nullptr, ast.text);
      break;
  }
  Emit(Op::kConst, out, Constant(std::move(value)));
  return absl::OkStatus();
}

absl::Status Compiler::GenString(const Ast& ast, const Binding* scope, int in, int out) {
  auto format = FindFormat(ast.text.empty() ? "text" : ast.text);
  if (!format) return Fail(absl::StrCat("@", ast.text, " is not a known format"));
  int count = static_cast<int>(ast.items.size());
  int base = NewSlots(count);
  for (int i = count - 1; i >= 0; --i) {
    const Ast& item = *ast.items[static_cast<size_t>(i)];
    bool piece = i % 2 == 0;
    if (piece) {
      TUTTI_RETURN_IF_ERROR(GenLiteral(item, base + i));
    } else {
      TUTTI_ASSIGN_OR_RETURN(Operand value, GenOperand(item, scope, in, false));
      Emit(Op::kFormat, base + i, value.slot, *format);
    }
  }
  Emit(Op::kConcat, out, base, count);
  return absl::OkStatus();
}

absl::Status Compiler::GenIndex(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags) {
  const Ast& key = *ast.items[1];
  if (key.type == Ast::Type::kLiteral) {
    TUTTI_ASSIGN_OR_RETURN(Operand target, GenTarget(*ast.items[0], scope, in, last, flags));
    Value value = key.literal == Ast::LiteralType::kString   ? Value::Text(nullptr, key.text)
                  : key.literal == Ast::LiteralType::kNumber ? NumberOf(key.text)
                  : key.literal == Ast::LiteralType::kNull   ? Value::Null()
                                                             : Value::Bool(key.literal == Ast::LiteralType::kTrue);
    Emit(Op::kIndexConst, out, target.slot, Constant(std::move(value)), flags | PairFlag());
    return absl::OkStatus();
  }
  TUTTI_ASSIGN_OR_RETURN(Operand index, GenPlainOperand(key, scope, in, false));
  TUTTI_ASSIGN_OR_RETURN(Operand target, GenTarget(*ast.items[0], scope, in, false, flags));
  Emit(Op::kIndex, out, target.slot, index.slot, flags | PairFlag());
  return absl::OkStatus();
}

absl::Status Compiler::GenSlice(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags) {
  int bounds = NewSlots(2);
  for (int i = 0; i < 2; ++i) {
    const AstPtr& bound = ast.items[static_cast<size_t>(1 + i)];
    if (bound) {
      Plain plain(this);
      TUTTI_RETURN_IF_ERROR(Gen(*bound, scope, in, false, bounds + i, false));
    } else {
      Emit(Op::kConst, bounds + i, Constant(Value::Null()));
    }
  }
  TUTTI_ASSIGN_OR_RETURN(Operand target, GenTarget(*ast.items[0], scope, in, false, flags));
  Emit(Op::kSlice, out, target.slot, bounds, flags | PairFlag());
  return absl::OkStatus();
}

absl::Status Compiler::GenIterate(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags) {
  TUTTI_ASSIGN_OR_RETURN(Operand target, GenTarget(*ast.items[0], scope, in, last, flags));
  int iterator = NewSlots(3);
  Emit(Op::kIterBegin, iterator, target.slot, 0, flags | PairFlag());
  Emit(Op::kIterNext, out, iterator, 0, PairFlag());
  return absl::OkStatus();
}

absl::StatusOr<Operand> Compiler::GenTarget(const Ast& ast, const Binding* scope, int in, bool last, int flags) {
  if (flags == 0) return GenOperand(ast, scope, in, last);
  At at(this, ast.position);
  int out = NewValue();
  switch (ast.type) {
    case Ast::Type::kIndex:
      TUTTI_RETURN_IF_ERROR(GenIndex(ast, scope, in, last, out, flags));
      return Operand{out, true};
    case Ast::Type::kIterate:
      TUTTI_RETURN_IF_ERROR(GenIterate(ast, scope, in, last, out, flags));
      return Operand{out, true};
    default:
      return GenOperand(ast, scope, in, last);
  }
}

absl::Status Compiler::GenArray(const Ast& ast, const Binding* scope, int in, bool last, int out) {
  int items = NewSlots(1);
  Emit(Op::kNewArray, items);
  if (!ast.items.empty()) {
    int fork = Emit(Op::kFork);
    int item = NewValue();
    TUTTI_RETURN_IF_ERROR(Gen(*ast.items[0], scope, in, last, item, false));
    Emit(Op::kAppend, items, item);
    Emit(Op::kBacktrack);
    PatchA(fork);
  }
  Emit(Op::kMove, out, items);
  return absl::OkStatus();
}

absl::Status Compiler::GenObject(const Ast& ast, const Binding* scope, int in, int out) {
  int count = static_cast<int>(ast.items.size() / 2);
  int base = NewSlots(2 * count);
  for (int i = 0; i < count; ++i) {
    const AstPtr& key = ast.items[static_cast<size_t>(2 * i)];
    const AstPtr& value = ast.items[static_cast<size_t>(2 * i + 1)];
    if (key->type == Ast::Type::kLiteral && key->literal != Ast::LiteralType::kString) {
      return Fail("an object's key must be a string; write it in quotation marks");
    }
    TUTTI_RETURN_IF_ERROR(Gen(*key, scope, in, false, base + 2 * i, false));
    if (value) {
      TUTTI_RETURN_IF_ERROR(Gen(*value, scope, in, false, base + 2 * i + 1, false));
    } else {
      Emit(Op::kIndex, base + 2 * i + 1, in, base + 2 * i);
    }
  }
  Emit(Op::kMakeObject, out, base, count);
  return absl::OkStatus();
}

absl::Status Compiler::GenBinary(const Ast& ast, const Binding* scope, int in, bool last, int out) {
  static const std::map<std::string, Op>* const kOps = new std::map<std::string, Op>{
      {"+", Op::kAdd},          {"-", Op::kSubtract}, {"*", Op::kMultiply},       {"/", Op::kDivide},
      {"%", Op::kModulo},       {"==", Op::kEqual},   {"!=", Op::kNotEqual},      {"<", Op::kLess},
      {"<=", Op::kLessOrEqual}, {">", Op::kGreater},  {">=", Op::kGreaterOrEqual}};
  const Ast &left = *ast.items[0], &right = *ast.items[1];
  TUTTI_ASSIGN_OR_RETURN(Operand r, GenOperand(right, scope, in, false));
  TUTTI_ASSIGN_OR_RETURN(Operand l, GenOperand(left, scope, in, last && ForkFree(right, scope) && r.slot != in));
  int flags = (l.consumable ? kConsumeB : 0) | (r.consumable && ForkFree(left, scope) ? kConsumeC : 0);
  Emit(kOps->at(ast.text), out, l.slot, r.slot, flags);
  return absl::OkStatus();
}

absl::Status Compiler::GenLogic(const Ast& ast, const Binding* scope, int in, bool last, int out) {
  bool conjunction = ast.type == Ast::Type::kAnd;
  TUTTI_ASSIGN_OR_RETURN(Operand left, GenOperand(*ast.items[0], scope, in, false));
  int no = Emit(Op::kJumpIfFalse, left.slot);
  int yes = -1;
  if (!conjunction) {
    Emit(Op::kConst, out, Constant(Value::Bool(true)));
    yes = Emit(Op::kJump);
    PatchB(no);
  }
  TUTTI_ASSIGN_OR_RETURN(Operand right, GenOperand(*ast.items[1], scope, in, false));
  Emit(Op::kTruth, out, right.slot);
  if (conjunction) {
    yes = Emit(Op::kJump);
    PatchB(no);
    Emit(Op::kConst, out, Constant(Value::Bool(false)));
  }
  PatchA(yes);
  return absl::OkStatus();
}

bool Compiler::IsPlainChain(const Ast& ast) {
  switch (ast.type) {
    case Ast::Type::kIdentity:
      return true;
    case Ast::Type::kIndex:
      return ast.items[1]->type == Ast::Type::kLiteral && IsPlainChain(*ast.items[0]);
    default:
      return false;
  }
}

absl::Status Compiler::GenTry(const Ast& ast, const Binding* scope, int in, int out, bool tail) {
  const Ast& body = *ast.items[0];
  const Ast* handler = ast.items[1].get();
  if (!handler && body.type == Ast::Type::kIndex && IsPlainChain(body)) {
    return GenIndex(body, scope, in, false, out, kOptional);
  }
  if (!handler && body.type == Ast::Type::kIterate && IsPlainChain(*body.items[0])) {
    return GenIterate(body, scope, in, false, out, kOptional);
  }
  int error = NewSlots(3);  // the error, room for its path, and the fork's place
  int begin = Emit(Op::kTryBegin, error);
  TUTTI_RETURN_IF_ERROR(Gen(body, scope, in, false, out, false));
  Emit(Op::kTryEnd, error);
  int jump = Emit(Op::kJump);
  PatchB(begin);
  if (handler) {
    TUTTI_RETURN_IF_ERROR(Gen(*handler, scope, error, false, out, tail));
  } else {
    Emit(Op::kBacktrack);
  }
  PatchA(jump);
  return absl::OkStatus();
}

absl::Status Compiler::GenFold(const Ast& ast, const Binding* scope, int in, int out) {
  bool reduce = ast.type == Ast::Type::kReduce;
  int state = NewValue(), taken = NewValue(), updated = NewValue();
  TUTTI_RETURN_IF_ERROR(Gen(*ast.items[1], scope, in, false, state, false));
  int fork = reduce ? Emit(Op::kFork) : -1;
  TUTTI_ASSIGN_OR_RETURN(Operand source, GenPlainOperand(*ast.items[0], scope, in, false));
  TUTTI_RETURN_IF_ERROR(GenPatterns(ast, scope, source, in, [&](const Binding* inner) -> absl::Status {
    Emit(Op::kTake, taken, state, 0, PairFlag());
    TUTTI_RETURN_IF_ERROR(Gen(*ast.items[2], inner, taken, true, updated, false));
    if (reduce) {
      Emit(Op::kMove, state, updated, 0, PairFlag());
      Emit(Op::kBacktrack);
      return absl::OkStatus();
    }
    Emit(Op::kCopy, state, updated, 0, PairFlag());
    const AstPtr& extract = ast.items[3];
    if (extract) return Gen(*extract, inner, updated, true, out, false);
    Emit(Op::kMove, out, updated, 0, PairFlag());
    return absl::OkStatus();
  }));
  if (reduce) {
    PatchA(fork);
    Emit(Op::kMove, out, state, 0, PairFlag());
  }
  return absl::OkStatus();
}

void Compiler::NamesOf(const Pattern& pattern, std::vector<std::string>* out) {
  if (pattern.type == Pattern::Type::kVariable) out->push_back(pattern.name);
  for (const Pattern& item : pattern.items) NamesOf(item, out);
  for (const auto& member : pattern.members) {
    if (!member.variable.empty()) out->push_back(member.variable);
    if (member.value) NamesOf(*member.value, out);
  }
}

absl::StatusOr<const Binding*> Compiler::GenPattern(const Pattern& pattern, const Binding* scope, int value, int in) {
  Plain plain(this);
  switch (pattern.type) {
    case Pattern::Type::kVariable: {
      int slot = NewSlots(1);
      Emit(Op::kCopy, slot, value);
      return BindVariable(scope, pattern.name, slot);
    }
    case Pattern::Type::kArray: {
      for (size_t i = 0; i < pattern.items.size(); ++i) {
        int item = NewSlots(1);
        Emit(Op::kIndexConst, item, value, Constant(Value::Number(static_cast<double>(i))));
        TUTTI_ASSIGN_OR_RETURN(scope, GenPattern(pattern.items[i], scope, item, in));
      }
      return scope;
    }
    case Pattern::Type::kObject: {
      for (const auto& member : pattern.members) {
        if (member.key->type == Ast::Type::kLiteral && member.key->literal != Ast::LiteralType::kString) {
          return Fail("an object's key must be a string; write it in quotation marks");
        }
        TUTTI_ASSIGN_OR_RETURN(Operand key, GenOperand(*member.key, scope, in, false));
        int item = NewSlots(1);
        Emit(Op::kIndex, item, value, key.slot);
        if (!member.variable.empty()) scope = BindVariable(scope, member.variable, item);
        if (member.value) {
          TUTTI_ASSIGN_OR_RETURN(scope, GenPattern(*member.value, scope, item, in));
        }
      }
      return scope;
    }
  }
  return scope;
}

absl::Status Compiler::GenUpdate(const Ast& ast, const Binding* scope, int in, bool last, int out) {
  const Ast &left = *ast.items[0], &right = *ast.items[1];
  const bool by_filter = ast.text == "|=";
  Operand value;
  if (!by_filter) {
    TUTTI_ASSIGN_OR_RETURN(value, GenOperand(right, scope, in, false));
  }
  // One path at most, and nobody else needs the input: changed where it is.
  const bool in_place = last && ForkFree(left, scope) && (by_filter || ForkFree(right, scope)) && value.slot != in;
  int result = NewSlots(1), path = NewSlots(1), changed = NewSlots(1), gone = NewSlots(1), old = NewSlots(1);
  if (!in_place) Emit(Op::kCopy, result, in);
  if (by_filter) Emit(Op::kNewArray, gone);
  const int done = Emit(Op::kFork);
  TUTTI_RETURN_IF_ERROR(GenPath(left, scope, in, path, in_place));
  if (in_place) Emit(Op::kMove, result, in);
  if (ast.text == "=") {
    Emit(Op::kCopy, changed, value.slot);
  } else {
    Emit(Op::kGetPath, old, result, path);
  }
  auto release_old = [&] {
    if (!in_place) return;
    Emit(Op::kConst, changed, Constant(Value::Null()));
    Emit(Op::kSetPath, result, path, changed);
  };
  if (by_filter) {
    release_old();
    int label = NewSlots(1);
    Emit(Op::kLabel, label);
    int none = Emit(Op::kFork);
    TUTTI_RETURN_IF_ERROR(Gen(right, scope, old, true, changed, false));
    Emit(Op::kCut, label);
    Emit(Op::kSetPath, result, path, changed);
    Emit(Op::kBacktrack);
    PatchA(none);
    Emit(Op::kAppend, gone, path);
  } else if (ast.text == "//=") {
    int no = Emit(Op::kJumpIfFalse, old);
    Emit(Op::kMove, changed, old);
    int jump = Emit(Op::kJump);
    PatchB(no);
    Emit(Op::kCopy, changed, value.slot);
    PatchA(jump);
    Emit(Op::kSetPath, result, path, changed);
  } else {
    if (ast.text != "=") {
      release_old();
      Op op = ast.text == "+="   ? Op::kAdd
              : ast.text == "-=" ? Op::kSubtract
              : ast.text == "*=" ? Op::kMultiply
              : ast.text == "/=" ? Op::kDivide
                                 : Op::kModulo;
      Emit(op, changed, old, value.slot, kConsumeB);
    }
    Emit(Op::kSetPath, result, path, changed);
  }
  Emit(Op::kBacktrack);
  PatchA(done);
  if (in_place) {
    // Without a path the input stands where it was.
    Emit(Op::kMoveIfAbsent, result, in);
  }
  if (by_filter) {
    Emit(Op::kDeletePaths, out, result, gone);
  } else {
    Emit(Op::kMove, out, result);
  }
  return absl::OkStatus();
}

absl::Status Compiler::GenPath(const Ast& ast, const Binding* scope, int in, int out, bool release) {
  int root = NewSlots(2), found = NewSlots(2);
  Emit(Op::kPathBegin, root, in);
  {
    Tracking tracking(this);
    TUTTI_RETURN_IF_ERROR(Gen(ast, scope, root, true, found, false));
  }
  Emit(Op::kPathEnd, out, found);
  if (release) {
    Emit(Op::kClear, root, 2);
    Emit(Op::kClear, found, 2);
  }
  return absl::OkStatus();
}

}  // namespace tutti::engine::expressions
