// A compiled expression: register code for the machine.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/workflow-engine/domain/expressions/value.h"

namespace tutti::engine::expressions {

class Machine;

// `a`, `b` and `c` are slots of the running frame unless the comment says otherwise. In units that track paths each
// value stands in a pair of slots: the value, and its path behind it (absent: the value is no path's).
enum class Op : uint8_t {
  kCopy,          // a ← b
  kMove,          // a ← b, which becomes absent
  kTake,          // a ← b, which becomes null
  kMoveIfAbsent,  // a ← b, which becomes absent, when a is absent
  kClear,         // a … a+b-1 become absent
  kConst,         // a ← constant b
  kLoadOuter,     // a ← slot c of the frame b levels out
  kUntrackPath,   // the path of a: that of b when both are the same plain value, else none
  kFork,          // goes on at pc a after what follows has failed
  kJump,          // to pc a
  kJumpIfFalse,   // to pc b when a is false or null
  kBacktrack,
  kTruth,       // a ← truth of b
  kIndex,       // a ← b[c]
  kIndexConst,  // a ← b[constant c]
  kSlice,       // a ← b[c:c+1]
  kIterBegin,   // a, a+1 (and a+2, its path): the iterator over b
  kIterNext,    // a ← next of the iterator b
  kRangeBegin,  // a … a+2: the range from b to b+1 by b+2
  kRangeNext,   // a ← next of the range b
  kNewArray,    // a ← []
  kAppend,      // appends b, which becomes absent, to a
  kMakeObject,  // a ← object of the c pairs of key and value from b on
  kConcat,      // a ← the c texts from b on, joined
  kFormat,      // a ← b as text in format c (Format)
  kNegate,      // a ← -b
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kModulo,  // a ← b op c
  kEqual,
  kNotEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,     // a ← b op c
  kTryBegin,           // errors until kTryEnd go to pc b, their value to a
  kTryEnd,             // a: as in kTryBegin
  kAltBegin,           // a: whether something was found; pc b otherwise
  kAltFound,           // a: as in kAltBegin
  kLabel,              // a ← a new label
  kBreak,              // to the label in slot c of the frame b levels out
  kCut,                // forgets all forks since label a
  kLimitCheck,         // fails when a is negative; with b backtracks when it is 0
  kCountTo,            // ++a; cuts label c when a has come to b
  kSkipTo,             // backtracks, and ++a, while a is less than b
  kBacktrackIfAbsent,  // a
  kRaise,              // the error a
  kPathBegin,          // a, a+1 ← b, the empty path
  kPathEnd,            // a ← the path behind b; an error when it has none
  kGetPath,            // a ← value of b at the path in c; in pairs its path follows
  kSetPath,            // sets the path b of a to c, which becomes absent
  kDeletePaths,        // a ← b without the paths in c
  kNative,             // a ← native of site c with input b
  kCall,               // a ← call of site c with input b
  kTailCall,           // returns what call of site c with input b does
  kCallParam,          // a ← closure of param site c with input b
  kTailCallParam,
  kReturn,  // a
};

enum InstrFlags : uint8_t {
  kPair = 1,      // with paths
  kOptional = 2,  // an error is no output
  kConsumeB = 4,  // nothing reads b later
  kConsumeC = 8,  // nothing reads c later
};

struct Instr {
  Op op;
  uint8_t flags = 0;
  int32_t a = 0, b = 0, c = 0;
};

// Code with a frame of its own: the program, a function that is not expanded in place, or an argument of one.
struct Unit {
  std::vector<Instr> code;
  std::vector<uint32_t> positions;  // of each instruction in the text
  int32_t slots = 0;                // slot 0 (and 1 in pairs) is the input
  bool pairs = false;
};

// `input` may be consumed when `owns_input`. Absent: the native has failed, by Machine::Fail.
using NativeFn = Value (*)(Machine& machine, Value& input, Value* args);

struct Native {
  const char* name;
  int arity;
  NativeFn fn;
};

struct NativeSite {
  const Native* native;
  int32_t args = 0;  // the first argument's slot
};

struct ClosureRef {
  int32_t plain = -1, tracking = -1;  // units; -1: never called so
  int32_t forward_depth = -1;         // ≥ 0: the closure `forward_index` of the frame so many levels out
  int32_t forward_index = 0;
};

struct CallSite {
  int32_t unit = 0;
  int32_t home_depth = 0;  // levels from the caller out to the frame that the unit's function stands in; -1: none
  std::vector<ClosureRef> closures;
};

struct ParamSite {
  int32_t depth = 0;  // levels out to the frame that was called with the closure
  int32_t index = 0;
};

// Immutable after Compile, and shared between threads.
struct Program {
  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();

  std::string text;
  std::vector<Value> constants;
  std::vector<Unit> units;  // the first is the program itself
  std::vector<NativeSite> natives;
  std::vector<CallSite> calls;
  std::vector<ParamSite> params;
  // Names that the program may look up in its input; `whole`: it may look at all of it.
  std::set<std::string> names;
  bool whole = false;
};

// INVALID_ARGUMENT with the place in the text: a syntax error, an unknown name, or a function that looks outside of the
// expression's data.
absl::StatusOr<std::shared_ptr<const Program>> Compile(const std::string& text);

}  // namespace tutti::engine::expressions
