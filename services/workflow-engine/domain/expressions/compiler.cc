// From syntax to code. A function that does not call itself is expanded where it is called, and so are its arguments;
// slots are never reused, so that going back to a fork needs no saved state: what runs again writes its slots again.
#include <deque>
#include <map>

#include "absl/strings/str_cat.h"
#include "runtime/json/number_text.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/program.h"
#include "services/workflow-engine/domain/expressions/syntax.h"

namespace tutti::engine::expressions {
namespace {

constexpr int kMaxExpansion = 40;             // expansions inside one another
constexpr size_t kMaxExpandedUnit = 4000;     // instructions from which on functions get units of their own
constexpr size_t kMaxInstructions = 200'000;  // of a program

// What a name means at a place; places inside see those outside.
struct Binding {
  enum class Type { kVariable, kFunction, kArgument, kParam, kLabel };
  Type type;
  std::string name;
  size_t arity = 0;
  const Binding* outer = nullptr;
  int unit = 0;                            // kVariable, kParam, kLabel
  int slot = 0;                            // kVariable, kLabel; kParam: its index
  const Definition* definition = nullptr;  // kFunction
  const Ast* argument = nullptr;           // kArgument, with the scope it is written in
  const Binding* scope = nullptr;
  bool prelude = false;  // written in a builtin
};

struct Operand {
  int slot = 0;
  bool consumable = false;
};

class Compiler {
 public:
  explicit Compiler(Program* program) : program_(*program) {}

  absl::Status Run(const Ast& ast) {
    NewUnit(-1, false);
    int out = NewValue();
    TUTTI_RETURN_IF_ERROR(Gen(ast, nullptr, 0, true, out, true));
    Emit(Op::kReturn, out);
    return absl::OkStatus();
  }

 private:
  struct Building {
    int parent = -1;
    std::vector<uint8_t> param_modes;  // 1: called plainly, 2: with paths
    bool complete = false;
  };

  // -- Units and code ------------------------------------------------------------------------------------------------

  int NewUnit(int parent, bool pairs) {
    program_.units.emplace_back();
    program_.units.back().pairs = pairs;
    program_.units.back().slots = pairs ? 2 : 1;
    building_.push_back({.parent = parent});
    int before = unit_;
    unit_ = static_cast<int>(program_.units.size()) - 1;
    return before;
  }
  Unit& unit() { return program_.units[static_cast<size_t>(unit_)]; }
  bool pairs() { return pairs_; }

  int NewSlots(int count) {
    int slot = unit().slots;
    unit().slots += count;
    return slot;
  }
  // A slot for a value, and for its path where paths are tracked.
  int NewValue() { return NewSlots(pairs_ ? 2 : 1); }

  int Here() { return static_cast<int>(unit().code.size()); }
  int Emit(Op op, int a = 0, int b = 0, int c = 0, int flags = 0) {
    unit().code.push_back({op, static_cast<uint8_t>(flags), a, b, c});
    unit().positions.push_back(position_);
    ++instructions_;
    return Here() - 1;
  }
  int PairFlag() { return pairs_ ? kPair : 0; }
  void PatchA(int at) { unit().code[static_cast<size_t>(at)].a = Here(); }
  void PatchB(int at) { unit().code[static_cast<size_t>(at)].b = Here(); }

  int Constant(Value value) {
    value.MakeConstant();
    program_.constants.push_back(std::move(value));
    return static_cast<int>(program_.constants.size()) - 1;
  }

  // Levels from the current unit out to `unit`.
  int DepthOf(int unit) const {
    int depth = 0;
    for (int at = unit_; at != unit; at = building_[static_cast<size_t>(at)].parent) ++depth;
    return depth;
  }

  absl::Status Fail(absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("at ", DescribePosition(program_.text, position_), ": ", what));
  }

  // -- Scopes --------------------------------------------------------------------------------------------------------

  const Binding* Bind(Binding binding) {
    binding.prelude = in_prelude_;
    bindings_.push_back(std::move(binding));
    return &bindings_.back();
  }
  const Binding* BindVariable(const Binding* outer, const std::string& name, int slot) {
    return Bind({.type = Binding::Type::kVariable, .name = name, .outer = outer, .unit = unit_, .slot = slot});
  }

  static const Binding* FindFunction(const Binding* scope, const std::string& name, size_t arity) {
    for (; scope; scope = scope->outer) {
      bool function = scope->type == Binding::Type::kFunction || scope->type == Binding::Type::kArgument ||
                      scope->type == Binding::Type::kParam;
      if (function && scope->arity == arity && scope->name == name) return scope;
    }
    return nullptr;
  }
  static const Binding* FindNamed(const Binding* scope, Binding::Type type, const std::string& name) {
    for (; scope; scope = scope->outer) {
      if (scope->type == type && scope->name == name) return scope;
    }
    return nullptr;
  }

  // Whether evaluating leaves no fork behind, so that what was read before it is not read again.
  bool ForkFree(const Ast& ast, const Binding* scope, int depth = 0) {
    if (depth > 12) return false;
    auto all = [&] {
      for (const auto& item : ast.items) {
        if (item && !ForkFree(*item, scope, depth + 1)) return false;
      }
      return true;
    };
    switch (ast.type) {
      case Ast::Type::kIdentity:
      case Ast::Type::kLiteral:
      case Ast::Type::kVariable:
      case Ast::Type::kLocation:
      case Ast::Type::kFormat:
      case Ast::Type::kArray:
        return true;
      case Ast::Type::kString:
      case Ast::Type::kIndex:
      case Ast::Type::kSlice:
      case Ast::Type::kObject:
      case Ast::Type::kNegate:
      case Ast::Type::kPipe:
      case Ast::Type::kBinary:
      case Ast::Type::kAnd:
      case Ast::Type::kOr:
      case Ast::Type::kIf:
      case Ast::Type::kTry:
        return all();
      case Ast::Type::kReduce:
        return ForkFree(*ast.items[1], scope, depth + 1);
      case Ast::Type::kUpdate:
        return ast.text == "|=" || ForkFree(*ast.items[1], scope, depth + 1);
      case Ast::Type::kCall: {
        const Binding* found = FindFunction(scope, ast.text, ast.items.size());
        if (found && found->type == Binding::Type::kArgument) {
          return ForkFree(*found->argument, found->scope, depth + 1);
        }
        if (found) return false;
        if (ast.text == "path" || ast.text == "range" || ast.text == "empty") return false;
        if (ast.text == "first" && ast.items.size() == 1) return true;
        if (FindNative(ast.text, ast.items.size())) return all();
        const Definition* definition = FindDefinition(ast.text, ast.items.size());
        if (!definition || definition->recursive) return false;
        const Ast& body = *definition->body;
        return (body.type == Ast::Type::kArray || body.type == Ast::Type::kReduce) && definition->params.size() < 2 &&
               (definition->params.empty() || definition->params[0][0] != '$');
      }
      default:
        return false;
    }
  }

  // -- Expressions ---------------------------------------------------------------------------------------------------

  // The value of `ast` in a slot: where it stands already, or a new one.
  absl::StatusOr<Operand> GenOperand(const Ast& ast, const Binding* scope, int in, bool last) {
    if (ast.type == Ast::Type::kIdentity) return Operand{in, last};
    if (ast.type == Ast::Type::kVariable && !pairs_) {
      const Binding* found = FindNamed(scope, Binding::Type::kVariable, ast.text);
      if (found && found->unit == unit_) return Operand{found->slot, false};
    }
    int out = NewValue();
    TUTTI_RETURN_IF_ERROR(Gen(ast, scope, in, last, out, false));
    return Operand{out, true};
  }

  // The same where the path, if paths are tracked, is of no interest.
  absl::StatusOr<Operand> GenPlainOperand(const Ast& ast, const Binding* scope, int in, bool last) {
    Plain plain(this);
    return GenOperand(ast, scope, in, last && !plain.was_tracking);
  }

  // Code without paths while it lives: the input of a tracking unit is its value's slot alone.
  struct Plain {
    explicit Plain(Compiler* compiler) : compiler(compiler), was_tracking(compiler->pairs_) { compiler->pairs_ = false; }
    ~Plain() { compiler->pairs_ = was_tracking; }
    Compiler* compiler;
    bool was_tracking;
  };
  struct Tracking {
    explicit Tracking(Compiler* compiler) : compiler(compiler), was_tracking(compiler->pairs_) { compiler->pairs_ = true; }
    ~Tracking() { compiler->pairs_ = was_tracking; }
    Compiler* compiler;
    bool was_tracking;
  };
  struct At {
    At(Compiler* compiler, uint32_t position) : compiler(compiler), before(compiler->position_) {
      // Inside builtin definitions the place of their call is what a user knows.
      if (!compiler->in_prelude_) compiler->position_ = position;
    }
    ~At() { compiler->position_ = before; }
    Compiler* compiler;
    uint32_t before;
  };

  // Code that stores a result of `ast` in `out` and goes on behind itself; further results come by backtracking.
  // `last`: nothing reads `in` later. `tail`: what follows returns `out`.
  absl::Status Gen(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail) {
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

  absl::Status GenNode(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail) {
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

  static Value NumberOf(const std::string& text) { return Value::NumberFromText(nullptr, text); }

  absl::Status GenLiteral(const Ast& ast, int out) {
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

  // The last of several interpolations varies slowest, as in jq.
  absl::Status GenString(const Ast& ast, const Binding* scope, int in, int out) {
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

  absl::Status GenIndex(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags) {
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

  absl::Status GenSlice(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags) {
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

  absl::Status GenIterate(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags) {
    TUTTI_ASSIGN_OR_RETURN(Operand target, GenTarget(*ast.items[0], scope, in, last, flags));
    int iterator = NewSlots(3);
    Emit(Op::kIterBegin, iterator, target.slot, 0, flags | PairFlag());
    Emit(Op::kIterNext, out, iterator, 0, PairFlag());
    return absl::OkStatus();
  }

  // What a suffix stands behind; with `flags` the same suffixes inside it are optional as well.
  absl::StatusOr<Operand> GenTarget(const Ast& ast, const Binding* scope, int in, bool last, int flags) {
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

  absl::Status GenArray(const Ast& ast, const Binding* scope, int in, bool last, int out) {
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

  absl::Status GenObject(const Ast& ast, const Binding* scope, int in, int out) {
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

  absl::Status GenBinary(const Ast& ast, const Binding* scope, int in, bool last, int out) {
    static const std::map<std::string, Op>* const kOps = new std::map<std::string, Op>{
        {"+", Op::kAdd},       {"-", Op::kSubtract},     {"*", Op::kMultiply}, {"/", Op::kDivide},
        {"%", Op::kModulo},    {"==", Op::kEqual},       {"!=", Op::kNotEqual}, {"<", Op::kLess},
        {"<=", Op::kLessOrEqual}, {">", Op::kGreater}, {">=", Op::kGreaterOrEqual}};
    const Ast &left = *ast.items[0], &right = *ast.items[1];
    TUTTI_ASSIGN_OR_RETURN(Operand r, GenOperand(right, scope, in, false));
    TUTTI_ASSIGN_OR_RETURN(Operand l, GenOperand(left, scope, in, last && ForkFree(right, scope) && r.slot != in));
    int flags = (l.consumable ? kConsumeB : 0) | (r.consumable && ForkFree(left, scope) ? kConsumeC : 0);
    Emit(kOps->at(ast.text), out, l.slot, r.slot, flags);
    return absl::OkStatus();
  }

  absl::Status GenLogic(const Ast& ast, const Binding* scope, int in, bool last, int out) {
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

  // A chain of suffixes with constant keys on the input or a variable: cannot fail but by the suffixes themselves.
  static bool IsPlainChain(const Ast& ast) {
    switch (ast.type) {
      case Ast::Type::kIdentity:
        return true;
      case Ast::Type::kIndex:
        return ast.items[1]->type == Ast::Type::kLiteral && IsPlainChain(*ast.items[0]);
      default:
        return false;
    }
  }

  absl::Status GenTry(const Ast& ast, const Binding* scope, int in, int out, bool tail) {
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

  absl::Status GenFold(const Ast& ast, const Binding* scope, int in, int out) {
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

  // Binds `source` to each of the patterns in turn until one fits, and calls `body` with the names.
  template <class Body>
  absl::Status GenPatterns(const Ast& ast, const Binding* scope, Operand source, int in, Body body) {
    if (ast.patterns.size() == 1) {
      TUTTI_ASSIGN_OR_RETURN(const Binding* inner, GenPattern(ast.patterns[0], scope, source.slot, in));
      return body(inner);
    }
    // All names are known in all alternatives, as null where the one that fits has none of them.
    std::vector<std::string> names;
    for (const Pattern& pattern : ast.patterns) NamesOf(pattern, &names);
    const Binding* all = scope;
    std::vector<int> slots;
    for (const std::string& name : names) {
      slots.push_back(NewSlots(1));
      all = BindVariable(all, name, slots.back());
    }
    std::vector<int> jumps;
    for (size_t i = 0; i < ast.patterns.size(); ++i) {
      bool last = i + 1 == ast.patterns.size();
      int error = NewSlots(3);
      int begin = last ? -1 : Emit(Op::kTryBegin, error);
      for (int slot : slots) Emit(Op::kConst, slot, Constant(Value::Null()));
      TUTTI_ASSIGN_OR_RETURN(const Binding* inner, GenPattern(ast.patterns[i], all, source.slot, in));
      TUTTI_RETURN_IF_ERROR(body(inner));
      if (last) break;
      Emit(Op::kTryEnd, error);
      jumps.push_back(Emit(Op::kJump));
      PatchB(begin);
    }
    for (int jump : jumps) PatchA(jump);
    return absl::OkStatus();
  }

  static void NamesOf(const Pattern& pattern, std::vector<std::string>* out) {
    if (pattern.type == Pattern::Type::kVariable) out->push_back(pattern.name);
    for (const Pattern& item : pattern.items) NamesOf(item, out);
    for (const auto& member : pattern.members) {
      if (!member.variable.empty()) out->push_back(member.variable);
      if (member.value) NamesOf(*member.value, out);
    }
  }

  absl::StatusOr<const Binding*> GenPattern(const Pattern& pattern, const Binding* scope, int value, int in) {
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

  // `left OP right`. Each value of the right gives one result: the input with what the left's paths name changed.
  absl::Status GenUpdate(const Ast& ast, const Binding* scope, int in, bool last, int out) {
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

  // The paths of `ast` upon `in`, one after the other, in `out`. `release`: there is one at most, and the values on the
  // way are not held any longer.
  absl::Status GenPath(const Ast& ast, const Binding* scope, int in, int out, bool release = false) {
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

  // -- Calls ---------------------------------------------------------------------------------------------------------

  absl::Status GenCall(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail) {
    const Binding* found = FindFunction(scope, ast.text, ast.items.size());
    if (found) {
      switch (found->type) {
        case Binding::Type::kArgument: {
          Restore<bool> prelude(&in_prelude_, found->prelude);
          return Expanded([&] { return Gen(*found->argument, found->scope, in, last, out, tail); });
        }
        case Binding::Type::kParam:
          return GenParamCall(*found, in, last, out, tail);
        default:
          return GenFunction(*found->definition, found, ast, scope, in, last, out, tail);
      }
    }
    if (const char* why = RefusedWord(ast.text)) {
      return Fail(absl::StrCat("\"", ast.text, "\" is not allowed: ", why));
    }
    bool special = false;
    TUTTI_RETURN_IF_ERROR(GenSpecial(ast, scope, in, last, out, tail, &special));
    if (special) return absl::OkStatus();
    const Native* native = FindNative(ast.text, ast.items.size());
    if (native && (in_prelude_ || ast.text[0] != '_')) {
      return GenNative(*native, ast, scope, in, last, out);
    }
    if (const Definition* definition = FindDefinition(ast.text, ast.items.size())) {
      return GenFunction(*definition, nullptr, ast, scope, in, last, out, tail);
    }
    return Fail(absl::StrCat(ast.text, "/", ast.items.size(), " is not defined"));
  }

  template <class T>
  struct Restore {
    Restore(T* place, T value) : place(place), before(*place) { *place = value; }
    ~Restore() { *place = before; }
    T* place;
    T before;
  };

  template <class Fn>
  absl::Status Expanded(Fn fn) {
    Restore<int> depth(&expansion_, expansion_ + 1);
    if (expansion_ > 4 * kMaxExpansion) return Fail("functions are nested too deep");
    return fn();
  }

  absl::Status GenNative(const Native& native, const Ast& ast, const Binding* scope, int in, bool last, int out) {
    bool free = true;
    int base = NewSlots(native.arity);
    {
      Plain plain(this);
      // The last argument varies slowest, as in jq.
      for (int i = native.arity - 1; i >= 0; --i) {
        const Ast& argument = *ast.items[static_cast<size_t>(i)];
        TUTTI_RETURN_IF_ERROR(Gen(argument, scope, in, false, base + i, false));
        free &= ForkFree(argument, scope);
      }
    }
    program_.natives.push_back({&native, base});
    Emit(Op::kNative, out, in, static_cast<int>(program_.natives.size()) - 1,
         last && free && !pairs_ ? kConsumeB : 0);
    if (pairs_) Emit(Op::kUntrackPath, out, in);
    return absl::OkStatus();
  }

  // Functions that the compiler knows.
  absl::Status GenSpecial(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail, bool* special) {
    const std::string& name = ast.text;
    const size_t arity = ast.items.size();
    *special = true;
    if (name == "empty" && arity == 0) {
      Emit(Op::kBacktrack);
      return absl::OkStatus();
    }
    if (name == "error" && arity <= 1) {
      int message = in;
      if (arity == 1) {
        TUTTI_ASSIGN_OR_RETURN(Operand given, GenPlainOperand(*ast.items[0], scope, in, false));
        message = given.slot;
      }
      Emit(Op::kRaise, message);
      return absl::OkStatus();
    }
    if (name == "path" && arity == 1) {
      {
        Plain plain(this);
        TUTTI_RETURN_IF_ERROR(GenPath(*ast.items[0], scope, in, out));
      }
      if (pairs_) Emit(Op::kUntrackPath, out, in);
      return absl::OkStatus();
    }
    if (name == "getpath" && arity == 1) {
      TUTTI_ASSIGN_OR_RETURN(Operand path, GenPlainOperand(*ast.items[0], scope, in, false));
      Emit(Op::kGetPath, out, in, path.slot, PairFlag());
      return absl::OkStatus();
    }
    if (name == "first" && arity == 1) {
      int label = NewSlots(1);
      Emit(Op::kLabel, label);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[0], scope, in, false, out, false));
      Emit(Op::kCut, label);
      return absl::OkStatus();
    }
    if (name == "last" && arity == 1) {
      int found = NewValue(), item = NewValue();
      Emit(Op::kClear, found, pairs_ ? 2 : 1);
      int fork = Emit(Op::kFork);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[0], scope, in, false, item, false));
      Emit(Op::kMove, found, item, 0, PairFlag());
      Emit(Op::kBacktrack);
      PatchA(fork);
      Emit(Op::kBacktrackIfAbsent, found);
      Emit(Op::kMove, out, found, 0, PairFlag());
      return absl::OkStatus();
    }
    if ((name == "limit" || name == "skip") && arity == 2) {
      bool limit = name == "limit";
      TUTTI_ASSIGN_OR_RETURN(Operand count, GenPlainOperand(*ast.items[0], scope, in, false));
      int counter = NewSlots(1), label = NewSlots(1);
      Emit(Op::kLimitCheck, count.slot, limit ? 1 : 0);
      Emit(Op::kConst, counter, Constant(Value::Number(0)));
      if (limit) Emit(Op::kLabel, label);
      TUTTI_RETURN_IF_ERROR(Gen(*ast.items[1], scope, in, false, out, false));
      if (limit) {
        Emit(Op::kCountTo, counter, count.slot, label);
      } else {
        Emit(Op::kSkipTo, counter, count.slot);
      }
      return absl::OkStatus();
    }
    if (name == "range" && arity >= 1 && arity <= 3) {
      int bounds = NewSlots(3), range = NewSlots(3);
      {
        Plain plain(this);
        if (arity == 1) Emit(Op::kConst, bounds, Constant(Value::Number(0)));
        for (size_t i = 0; i < arity; ++i) {
          int slot = bounds + static_cast<int>(arity == 1 ? 1 : i);
          TUTTI_RETURN_IF_ERROR(Gen(*ast.items[i], scope, in, false, slot, false));
        }
        if (arity < 3) Emit(Op::kConst, bounds + 2, Constant(Value::Number(1)));
      }
      Emit(Op::kRangeBegin, range, bounds);
      Emit(Op::kRangeNext, out, range);
      if (pairs_) Emit(Op::kUntrackPath, out, in);
      return absl::OkStatus();
    }
    *special = false;
    return absl::OkStatus();
  }

  absl::Status GenFunction(const Definition& definition, const Binding* binding, const Ast& ast, const Binding* scope,
                           int in, bool last, int out, bool tail) {
    bool expand = !definition.recursive && expansion_ < kMaxExpansion && unit().code.size() < kMaxExpandedUnit;
    if (!expand) return GenRealCall(definition, binding, ast, scope, in, last, out, tail);
    // Arguments by value come first: the first varies slowest.
    const Binding* inner = binding;  // a function sees what its definition sees, and itself
    bool free = last;
    for (size_t i = 0; i < definition.params.size(); ++i) {
      const std::string& param = definition.params[i];
      bool by_value = param[0] == '$';
      if (by_value) {
        Plain plain(this);
        int slot = NewSlots(1);
        TUTTI_RETURN_IF_ERROR(Gen(*ast.items[i], scope, in, false, slot, false));
        inner = BindVariable(inner, param.substr(1), slot);
        free &= ForkFree(*ast.items[i], scope);
      }
      inner = Bind({.type = Binding::Type::kArgument,
                    .name = by_value ? param.substr(1) : param,
                    .outer = inner,
                    .argument = ast.items[i].get(),
                    .scope = scope});
    }
    Restore<bool> prelude(&in_prelude_, binding ? binding->prelude : true);
    return Expanded([&] { return Gen(*definition.body, inner, in, free, out, tail); });
  }

  absl::Status GenRealCall(const Definition& definition, const Binding* binding, const Ast& ast, const Binding* scope,
                           int in, bool last, int out, bool tail) {
    int home = binding ? binding->unit : -1;
    TUTTI_ASSIGN_OR_RETURN(int callee, UnitOf(definition, binding, home));
    CallSite site;
    site.unit = callee;
    site.home_depth = home < 0 ? -1 : DepthOf(home);
    for (size_t i = 0; i < ast.items.size(); ++i) {
      uint8_t modes = 3;
      if (building_[static_cast<size_t>(callee)].complete) modes = building_[static_cast<size_t>(callee)].param_modes[i];
      TUTTI_ASSIGN_OR_RETURN(ClosureRef closure, GenClosure(*ast.items[i], scope, modes));
      site.closures.push_back(closure);
    }
    program_.calls.push_back(std::move(site));
    EmitCall(tail ? Op::kTailCall : Op::kCall, in, last, out, static_cast<int>(program_.calls.size()) - 1);
    return absl::OkStatus();
  }

  void EmitCall(Op op, int in, bool last, int out, int site) {
    Emit(op, out, in, site, PairFlag() | (last ? kConsumeB : 0));
  }

  // The unit of a function, compiled at its first call, for the current way of tracking paths.
  absl::StatusOr<int> UnitOf(const Definition& definition, const Binding* binding, int home) {
    auto key = std::make_tuple(&definition, binding, pairs_);
    if (auto it = units_.find(key); it != units_.end()) return it->second;
    bool tracking = pairs_;
    int caller = NewUnit(home, tracking);
    int self = unit_;
    units_[key] = self;
    Restore<int> expansion(&expansion_, 0);
    Restore<bool> prelude(&in_prelude_, binding ? binding->prelude : true);
    auto& modes = building_[static_cast<size_t>(self)].param_modes;
    modes.assign(definition.params.size(), 0);
    const Binding* inner = binding;
    for (size_t i = 0; i < definition.params.size(); ++i) {
      const std::string& param = definition.params[i];
      bool by_value = param[0] == '$';
      inner = Bind({.type = Binding::Type::kParam,
                    .name = by_value ? param.substr(1) : param,
                    .outer = inner,
                    .unit = self,
                    .slot = static_cast<int>(i)});
      if (!by_value) continue;
      Plain plain(this);
      int slot = NewSlots(1);
      TUTTI_RETURN_IF_ERROR(GenParamCall(*inner, 0, false, slot, false));
      inner = BindVariable(inner, param.substr(1), slot);
    }
    int out = NewValue();
    absl::Status status = Gen(*definition.body, inner, 0, true, out, true);
    Emit(Op::kReturn, out, 0, 0, PairFlag());
    building_[static_cast<size_t>(self)].complete = true;
    unit_ = caller;
    TUTTI_RETURN_IF_ERROR(status);
    return self;
  }

  absl::StatusOr<ClosureRef> GenClosure(const Ast& argument, const Binding* scope, uint8_t modes) {
    ClosureRef out;
    // An argument that is nothing but another one is handed on.
    if (argument.type == Ast::Type::kCall && argument.items.empty()) {
      const Binding* found = FindFunction(scope, argument.text, 0);
      if (found && found->type == Binding::Type::kArgument) {
        Restore<bool> prelude(&in_prelude_, found->prelude);
        return GenClosure(*found->argument, found->scope, modes);
      }
      if (found && found->type == Binding::Type::kParam) {
        building_[static_cast<size_t>(found->unit)].param_modes[static_cast<size_t>(found->slot)] |= modes;
        out.forward_depth = DepthOf(found->unit);
        out.forward_index = found->slot;
        return out;
      }
    }
    for (int mode = 0; mode < 2; ++mode) {
      if ((modes & (mode + 1)) == 0) continue;
      Restore<bool> tracking(&pairs_, mode == 1);
      int caller = NewUnit(unit_, pairs_);
      int self = unit_;
      Restore<int> expansion(&expansion_, 0);
      int result = NewValue();
      absl::Status status = Gen(argument, scope, 0, true, result, true);
      Emit(Op::kReturn, result, 0, 0, PairFlag());
      building_[static_cast<size_t>(self)].complete = true;
      unit_ = caller;
      TUTTI_RETURN_IF_ERROR(status);
      (mode == 1 ? out.tracking : out.plain) = self;
    }
    return out;
  }

  absl::Status GenParamCall(const Binding& param, int in, bool last, int out, bool tail) {
    building_[static_cast<size_t>(param.unit)].param_modes[static_cast<size_t>(param.slot)] |= pairs_ ? 2 : 1;
    program_.params.push_back({DepthOf(param.unit), param.slot});
    EmitCall(tail ? Op::kTailCallParam : Op::kCallParam, in, last, out,
             static_cast<int>(program_.params.size()) - 1);
    return absl::OkStatus();
  }

  Program& program_;
  std::vector<Building> building_;  // beside program_.units
  std::deque<Binding> bindings_;
  std::map<std::tuple<const Definition*, const Binding*, bool>, int> units_;
  int unit_ = -1;
  bool pairs_ = false;
  bool in_prelude_ = false;
  int expansion_ = 0;
  uint32_t position_ = 0;
  size_t instructions_ = 0;
};

// The members of its input that a program names, by its words: a superset. Functions may look at all of it.
void CollectNames(const std::string& text, Program* program) {
  auto start = [](char c) { return isalpha(static_cast<unsigned char>(c)) || c == '_'; };
  auto inside = [](char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  static const std::set<std::string>* const kNoFunctions = new std::set<std::string>{
      "and", "or", "if", "then", "elif", "else", "end", "as", "try", "catch", "null", "true", "false"};
  for (size_t i = 0; i < text.size();) {
    if (start(text[i])) {
      size_t end = i;
      while (end < text.size() && inside(text[end])) ++end;
      std::string word = text.substr(i, end - i);
      bool name = i > 0 && (text[i - 1] == '.' || text[i - 1] == '$');
      program->whole |= !name && kNoFunctions->count(word) == 0;
      program->names.insert(std::move(word));
      i = end;
      continue;
    }
    // A lone `.` may stand for all of it, and a string may have code or an escaped name in it.
    program->whole |= text[i] == '.' && (i + 1 == text.size() || !start(text[i + 1]));
    program->whole |= text[i] == '@' || text[i] == '\\' || text[i] == '"';
    ++i;
  }
}

}  // namespace

Program::~Program() {
  for (Value& constant : constants) constant.FreeConstant();
}

absl::StatusOr<std::shared_ptr<const Program>> Compile(const std::string& text) {
  TUTTI_ASSIGN_OR_RETURN(AstPtr ast, ParseProgram(text));
  auto program = std::make_shared<Program>();
  program->text = text;
  TUTTI_RETURN_IF_ERROR(Compiler(program.get()).Run(*ast));
  CollectNames(text, program.get());
  return std::shared_ptr<const Program>(std::move(program));
}

}  // namespace tutti::engine::expressions
