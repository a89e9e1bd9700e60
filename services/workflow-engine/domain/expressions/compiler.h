// Compiles syntax to code. Only the compiler's own files include this header.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/expressions/program.h"
#include "services/workflow-engine/domain/expressions/syntax.h"

namespace tutti::engine::expressions {

inline constexpr int kMaxExpansion = 40;             // expansions inside one another
inline constexpr size_t kMaxExpandedUnit = 4000;     // instructions from which on functions get units of their own
inline constexpr size_t kMaxInstructions = 200'000;  // of a program

// A name with its meaning at a place; places inside see those outside.
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

  absl::Status Run(const Ast& ast);

 private:
  struct Building {
    int parent = -1;
    std::vector<uint8_t> param_modes;  // 1: called plainly, 2: with paths
    bool complete = false;
  };

  // -- Units and code ------------------------------------------------------------------------------------------------

  int NewUnit(int parent, bool pairs);
  Unit& unit() { return program_.units[static_cast<size_t>(unit_)]; }
  bool pairs() { return pairs_; }

  int NewSlots(int count);
  // A slot for a value, and for its path where paths are tracked.
  int NewValue() { return NewSlots(pairs_ ? 2 : 1); }

  int Here() { return static_cast<int>(unit().code.size()); }
  int Emit(Op op, int a = 0, int b = 0, int c = 0, int flags = 0);
  int PairFlag() { return pairs_ ? kPair : 0; }
  void PatchA(int at) { unit().code[static_cast<size_t>(at)].a = Here(); }
  void PatchB(int at) { unit().code[static_cast<size_t>(at)].b = Here(); }

  int Constant(Value value);

  // Levels from the current unit out to `unit`.
  int DepthOf(int unit) const;

  absl::Status Fail(absl::string_view what);

  // -- Scopes --------------------------------------------------------------------------------------------------------

  const Binding* Bind(Binding binding);
  const Binding* BindVariable(const Binding* outer, const std::string& name, int slot);

  static const Binding* FindFunction(const Binding* scope, const std::string& name, size_t arity);
  static const Binding* FindNamed(const Binding* scope, Binding::Type type, const std::string& name);

  // Returns true when evaluation leaves no fork behind, so that nothing read before is read again.
  bool ForkFree(const Ast& ast, const Binding* scope, int depth = 0);

  // -- Expressions ---------------------------------------------------------------------------------------------------

  // The value of `ast` in a slot: where it stands already, or a new one.
  absl::StatusOr<Operand> GenOperand(const Ast& ast, const Binding* scope, int in, bool last);

  // The same where the path, if paths are tracked, is of no interest.
  absl::StatusOr<Operand> GenPlainOperand(const Ast& ast, const Binding* scope, int in, bool last);

  // Code without paths while it lives: the input of a tracking unit is its value's slot alone.
  struct Plain {
    explicit Plain(Compiler* compiler) : compiler(compiler), was_tracking(compiler->pairs_) {
      compiler->pairs_ = false;
    }
    ~Plain() { compiler->pairs_ = was_tracking; }
    Compiler* compiler;
    bool was_tracking;
  };
  struct Tracking {
    explicit Tracking(Compiler* compiler) : compiler(compiler), was_tracking(compiler->pairs_) {
      compiler->pairs_ = true;
    }
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
  absl::Status Gen(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail);

  absl::Status GenNode(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail);

  static Value NumberOf(const std::string& text) { return Value::NumberFromText(nullptr, text); }

  absl::Status GenLiteral(const Ast& ast, int out);

  // The last of several interpolations varies slowest, as in jq.
  absl::Status GenString(const Ast& ast, const Binding* scope, int in, int out);

  absl::Status GenIndex(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags);

  absl::Status GenSlice(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags);

  absl::Status GenIterate(const Ast& ast, const Binding* scope, int in, bool last, int out, int flags);

  // Generates the value before a suffix; `flags` make the same suffixes inside it optional as well.
  absl::StatusOr<Operand> GenTarget(const Ast& ast, const Binding* scope, int in, bool last, int flags);

  absl::Status GenArray(const Ast& ast, const Binding* scope, int in, bool last, int out);

  absl::Status GenObject(const Ast& ast, const Binding* scope, int in, int out);

  absl::Status GenBinary(const Ast& ast, const Binding* scope, int in, bool last, int out);

  absl::Status GenLogic(const Ast& ast, const Binding* scope, int in, bool last, int out);

  // A chain of suffixes with constant keys on the input or a variable: cannot fail but by the suffixes themselves.
  static bool IsPlainChain(const Ast& ast);

  absl::Status GenTry(const Ast& ast, const Binding* scope, int in, int out, bool tail);

  absl::Status GenFold(const Ast& ast, const Binding* scope, int in, int out);

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

  static void NamesOf(const Pattern& pattern, std::vector<std::string>* out);

  absl::StatusOr<const Binding*> GenPattern(const Pattern& pattern, const Binding* scope, int value, int in);

  // `left OP right`. Each value of the right gives one result: the input with what the left's paths name changed.
  absl::Status GenUpdate(const Ast& ast, const Binding* scope, int in, bool last, int out);

  // The paths of `ast` upon `in`, one after the other, in `out`. `release`: there is one at most, and the values on the
  // way are not held any longer.
  absl::Status GenPath(const Ast& ast, const Binding* scope, int in, int out, bool release = false);

  // -- Calls ---------------------------------------------------------------------------------------------------------

  absl::Status GenCall(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail);

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

  absl::Status GenNative(const Native& native, const Ast& ast, const Binding* scope, int in, bool last, int out);

  // Functions that the compiler knows.
  absl::Status GenSpecial(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail, bool* special);

  absl::Status GenFunction(const Definition& definition, const Binding* binding, const Ast& ast, const Binding* scope,
                           int in, bool last, int out, bool tail);

  absl::Status GenRealCall(const Definition& definition, const Binding* binding, const Ast& ast, const Binding* scope,
                           int in, bool last, int out, bool tail);

  void EmitCall(Op op, int in, bool last, int out, int site);

  // The unit of a function, compiled at its first call, for the current way of tracking paths.
  absl::StatusOr<int> UnitOf(const Definition& definition, const Binding* binding, int home);

  absl::StatusOr<ClosureRef> GenClosure(const Ast& argument, const Binding* scope, uint8_t modes);

  absl::Status GenParamCall(const Binding& param, int in, bool last, int out, bool tail);

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

}  // namespace tutti::engine::expressions
