#include "services/workflow-engine/domain/expressions/machine.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine_frames.h"
#include "services/workflow-engine/domain/expressions/regex.h"
#include "services/workflow-engine/domain/expressions/syntax.h"

namespace tutti::engine::expressions {
namespace {

constexpr int64_t kMaxComparison = 20'000'000;  // values in one comparison, whatever the time
constexpr int64_t kTicksBetweenLooks = 20'000;  // at the clock

}  // namespace

int64_t ThreadNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Machine::Machine(std::shared_ptr<const Program> program, const Limits& limits, absl::Time now)
    : program_(std::move(program)),
      limits_(limits),
      now_(now),
      heap_(limits.memory),
      regexes_(std::make_unique<RegexCache>()) {}

Machine::~Machine() {
  while (!forks_.empty()) {
    Release(forks_.back().frame);
    forks_.pop_back();
  }
  if (frame_) Release(frame_);
  result_ = Value();
  error_ = Value();
}

RegexCache& Machine::regexes() { return *regexes_; }

Value Machine::Fail(std::string message) { return FailWith(Value::Text(&heap_, std::move(message))); }

Value Machine::FailWith(Value error) {
  failed_ = true;
  error_ = std::move(error);
  return {};
}

Value Machine::FailTooLarge() {
  too_large_ = true;
  return {};
}

bool Machine::Reserve(size_t bytes) {
  if (heap_.HasRoomFor(bytes)) return true;
  too_large_ = true;
  return false;
}

void Machine::EndSlice() {
  if (patient_) used_ = absl::InfiniteDuration();
  again_ = true;
}

CompareBudget Machine::NewBudget() const {
  CompareBudget budget;
  budget.limit = patient_ ? kMaxComparison : std::max<int64_t>(StepsLeft(), 0);
  return budget;
}

std::optional<int> Machine::CompareValues(const Value& a, const Value& b) {
  CompareBudget budget = NewBudget();
  const int order = Compare(a, b, &budget);
  if (budget.over()) {
    EndSlice();
    return std::nullopt;
  }
  if (!Tick(budget.steps)) return std::nullopt;
  return order;
}

bool Machine::OutOfTime() {
  return patient_ && used_ + absl::Nanoseconds(ThreadNanoseconds() - slice_begin_) > limits_.time;
}

bool Machine::Tick(int64_t steps) {
  int64_t before = ticks_;
  ticks_ += steps;
  if (!patient_) {
    if (ticks_ <= fuel_) return true;
    again_ = true;
    return false;
  }
  if (before / kTicksBetweenLooks == ticks_ / kTicksBetweenLooks || !OutOfTime()) return true;
  again_ = true;  // the end of the slice finds the time used up
  return false;
}

Machine::Frame* Machine::NewFrame(int unit, Frame* outer) {
  const int32_t slots = program_->units[static_cast<size_t>(unit)].slots;
  const size_t bytes = sizeof(Frame) + static_cast<size_t>(slots) * sizeof(Value);
  auto* frame = new (::operator new(bytes)) Frame;
  frame->unit = unit;
  frame->slot_count = slots;
  frame->outer = outer;
  if (outer) ++outer->refs;
  frame->charged = bytes;
  heap_.Charge(bytes);
  for (int32_t i = 0; i < slots; ++i) new (frame->slots() + i) Value;
  return frame;
}

// Without recursion: chains of frames are as long as a program's recursion was deep.
void Machine::Release(Frame* frame) {
  if (--frame->refs > 0) return;
  std::vector<Frame*> dead{frame};
  auto drop = [&](Frame* other) {
    if (other && --other->refs == 0) dead.push_back(other);
  };
  while (!dead.empty()) {
    Frame* next = dead.back();
    dead.pop_back();
    for (int32_t i = 0; i < next->slot_count; ++i) next->slots()[i].~Value();
    drop(next->outer);
    drop(next->caller);
    for (const auto& closure : next->closures) drop(closure.frame);
    heap_.Release(next->charged);
    next->~Frame();
    ::operator delete(next);
  }
}

Machine::Frame* Machine::OuterFrame(int depth) const {
  Frame* frame = frame_;
  for (; depth > 0; --depth) frame = frame->outer;
  return frame;
}

// Takes the reference to `frame`.
void Machine::EnterFrame(Frame* frame) {
  Frame* before = frame_;
  frame_ = frame;
  if (before) Release(before);
}

void Machine::PushFork(uint8_t kind, int32_t pc, int32_t slot) {
  ++frame_->refs;
  size_t capacity = forks_.capacity();
  forks_.push_back({kind, pc, slot, frame_, 0});
  if (forks_.capacity() != capacity) heap_.Charge((forks_.capacity() - capacity) * sizeof(Fork));
}

bool Machine::Backtrack() {
  while (!forks_.empty()) {
    Fork fork = forks_.back();
    forks_.pop_back();
    if (fork.kind == kPlainFork || (fork.kind == kAltFork && !fork.frame->slots()[fork.slot].truthy())) {
      EnterFrame(fork.frame);
      pc_ = fork.pc;
      return true;
    }
    Release(fork.frame);
  }
  return false;
}

// Goes back to the innermost `try` or `//` whose body raised the error.
bool Machine::Unwind() {
  double outside = INFINITY;  // forks from this place up are of bodies that have been left
  while (!forks_.empty()) {
    Fork fork = forks_.back();
    forks_.pop_back();
    const auto place = static_cast<double>(forks_.size());
    if (fork.kind == kExitFork) outside = std::min(outside, fork.mark);
    if (place < outside && fork.kind == kTryFork) {
      failed_ = false;
      EnterFrame(fork.frame);
      frame_->slots()[fork.slot] = std::move(error_);
      pc_ = fork.pc;
      return true;
    }
    if (place < outside && fork.kind == kAltFork) {
      failed_ = false;
      error_ = Value();
      if (fork.frame->slots()[fork.slot].truthy()) {
        Release(fork.frame);
        if (Backtrack()) return true;
        return false;
      }
      EnterFrame(fork.frame);
      pc_ = fork.pc;
      return true;
    }
    Release(fork.frame);
  }
  return false;
}

void Machine::CutTo(double label) {
  while (!forks_.empty()) {
    Fork fork = forks_.back();
    forks_.pop_back();
    Release(fork.frame);
    if (fork.kind == kLabelFork && fork.mark == label) return;
  }
}

void Machine::SetInput(Value input) {
  frame_ = NewFrame(0, nullptr);
  frame_->slots()[0] = std::move(input);
}

Value Machine::ExtendPath(const Value& path, Value key, const Value& near, bool iterate) {
  if (path.absent()) {
    if (iterate) return Fail(absl::StrCat("Invalid path expression near attempt to iterate through ", Excerpt(near)));
    return Fail(
        absl::StrCat("Invalid path expression near attempt to access element ", Excerpt(key), " of ", Excerpt(near)));
  }
  Value out = path;
  out.Append(&heap_, std::move(key));
  return out;
}

std::string Machine::error() const {
  std::string message;
  if (error_.is_string()) {
    message = std::string(error_.text());
  } else {
    message = absl::StrCat(Excerpt(error_), " (not a string)");
  }
  return absl::StrCat("at ", DescribePosition(program_->text, error_position_), ": ", message);
}

}  // namespace tutti::engine::expressions
