// Defines the frames and forks of a machine's run. Only the machine's own files include this header.
#pragma once

#include <cstdint>
#include <vector>

#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {

enum ForkKind : uint8_t { kPlainFork, kTryFork, kExitFork, kAltFork, kLabelFork };

// Nanoseconds of this thread's processor time.
int64_t ThreadNanoseconds();

// The slots of a unit that runs. Frames are shared by those they have called, by closures and by forks.
struct Machine::Frame {
  struct Closure {
    const ClosureRef* ref = nullptr;
    Frame* frame = nullptr;
  };
  int32_t refs = 1;
  int32_t unit = 0;
  int32_t slot_count = 0;
  int32_t return_pc = 0;
  int32_t return_slot = 0;
  Frame* outer = nullptr;   // that the unit's function stands in
  Frame* caller = nullptr;  // null: the program's own
  std::vector<Closure> closures;
  size_t charged = 0;
  Value* slots() { return reinterpret_cast<Value*>(this + 1); }
};

struct Machine::Fork {
  uint8_t kind;
  int32_t pc;
  int32_t slot;
  Frame* frame;
  double mark;  // kLabelFork: the label; kExitFork: the place of its kTryFork
};

}  // namespace tutti::engine::expressions
