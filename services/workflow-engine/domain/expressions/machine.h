// Runs a program on one input. Results come one at a time; a run stops after a number of steps and goes on where it
// was, on this thread or another, so that a long one need not hold an event loop.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/workflow-engine/domain/expressions/program.h"
#include "services/workflow-engine/domain/expressions/value.h"

namespace tutti::engine::expressions {

class RegexCache;

struct Limits {
  absl::Duration time = absl::Milliseconds(100);  // of the processor, over all slices
  size_t memory = size_t{64} << 20;               // bytes of values, frames and forks
};

class Machine {
 public:
  enum class State {
    kResult,    // result() is the next one
    kDone,      // there are no more
    kFailed,    // error() says why
    kTooLong,   // the time is used up
    kTooLarge,  // the memory is used up
    kYield,     // the slice is over; Run again
  };

  // `now`: what the function of that name returns.
  Machine(std::shared_ptr<const Program> program, const Limits& limits, absl::Time now);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  Heap& heap() { return heap_; }
  // Sets the program's input, before the first Run. The value's heap is this machine's.
  void SetInput(Value input);

  // One instruction is a step, and a native as many as it looks at values. In a slice that is not `patient` a native
  // that may take more than the rest of the slice is not begun: State is kYield, and the next slice should be patient.
  State Run(int64_t steps, bool patient);
  const Value& result() const { return result_; }
  // The message of kFailed, with the place in the program's text.
  std::string error() const;

  // -- For natives and operators -------------------------------------------------------------------------------------

  // Fails with a message that `try` catches. Returns an absent value.
  Value Fail(std::string message);
  Value FailWith(Value error);
  // Ends the evaluation, whatever catches errors: kTooLarge.
  Value FailTooLarge();
  // Counts steps of a native. False: its slice is over, and it returns an absent value at once, to be called again.
  bool Tick(int64_t steps);
  // Steps that a native may still take in this slice, and how it says that they are not enough: it is called again in a
  // patient slice, or the evaluation ends with kTooLong.
  int64_t StepsLeft() const { return patient_ ? int64_t{1} << 40 : fuel_ - ticks_; }
  void EndSlice();
  // Compares values, however large, as a part of a native: see Tick. Null: the slice is over.
  std::optional<int> CompareValues(const Value& a, const Value& b);
  // Fails with kTooLarge unless there is room for so many bytes.
  bool Reserve(size_t bytes);
  absl::Time now() const { return now_; }
  RegexCache& regexes();
  // Returns true when comparisons and other natives must end, for their time is over.
  bool OutOfTime();

 private:
  struct Frame;
  struct Fork;

  // Returns the bounds of one comparison in this slice.
  CompareBudget NewBudget() const;
  bool Backtrack();
  bool Unwind();
  void CutTo(double label);
  Frame* NewFrame(int unit, Frame* outer);
  void Release(Frame* frame);
  Frame* OuterFrame(int depth) const;
  void EnterFrame(Frame* frame);
  void PushFork(uint8_t kind, int32_t pc, int32_t slot);
  Value ExtendPath(const Value& path, Value key, const Value& near, bool iterate);

  const std::shared_ptr<const Program> program_;
  const Limits limits_;
  const absl::Time now_;
  Heap heap_;
  std::unique_ptr<RegexCache> regexes_;
  std::vector<Fork> forks_;
  Frame* frame_ = nullptr;
  int32_t pc_ = 0;
  bool resume_ = false;  // the next Run goes on by backtracking
  double next_label_ = 1;
  Value result_;
  Value error_;
  bool failed_ = false;  // an error is to be raised
  bool too_large_ = false;
  bool again_ = false;  // the native wants another slice
  bool patient_ = false;
  int64_t fuel_ = 0;
  int64_t ticks_ = 0;  // of the native that is being called
  uint32_t error_position_ = 0;
  absl::Duration used_;      // before this slice
  int64_t slice_begin_ = 0;  // nanoseconds of the thread's processor time
};

}  // namespace tutti::engine::expressions
