// The machine's instructions.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine_frames.h"

namespace tutti::engine::expressions {
namespace {

int64_t Weight(const Value& value) {
  return static_cast<int64_t>(value.is_string() ? value.text().size() / 64 : value.size() / 4);
}

}  // namespace

Machine::State Machine::Run(int64_t steps, bool patient) {
  fuel_ = steps;
  patient_ = patient;
  again_ = false;
  if (patient_) slice_begin_ = ThreadNanoseconds();
  if (resume_) {
    resume_ = false;
    if (!Backtrack()) return State::kDone;
  }
  auto ends = [&](State state) {
    if (patient_) {
      used_ += absl::Nanoseconds(ThreadNanoseconds() - slice_begin_);
      if (used_ > limits_.time && state == State::kYield) return State::kTooLong;
    }
    return state;
  };

  for (;;) {
    if (--fuel_ < 0) return ends(State::kYield);
    const Unit& unit = program_->units[static_cast<size_t>(frame_->unit)];
    const Instr& instr = unit.code[static_cast<size_t>(pc_)];
    Value* slots = frame_->slots();
    const bool pair = (instr.flags & kPair) != 0;
    bool backtrack = false;
    int32_t next = pc_ + 1;
    ticks_ = 0;

    // Stores the result of an operator, unless it failed.
    auto store = [&](Value value) {
      if (!value.absent()) slots[instr.a] = std::move(value);
    };
    // A comparison that may look at large values: false when it has to wait for another slice.
    auto compare = [&](int* order) {
      CompareBudget budget = NewBudget();
      *order = Compare(slots[instr.b], slots[instr.c], &budget);
      ticks_ += budget.steps;
      if (!budget.over()) return true;
      EndSlice();
      return false;
    };

    switch (instr.op) {
      case Op::kCopy:
        slots[instr.a] = slots[instr.b];
        if (pair) slots[instr.a + 1] = slots[instr.b + 1];
        break;
      case Op::kMove:
        slots[instr.a] = std::move(slots[instr.b]);
        if (pair) slots[instr.a + 1] = std::move(slots[instr.b + 1]);
        break;
      case Op::kMoveIfAbsent:
        if (slots[instr.a].absent()) slots[instr.a] = std::move(slots[instr.b]);
        break;
      case Op::kTake:
        slots[instr.a] = std::exchange(slots[instr.b], Value::Null());
        if (pair) slots[instr.a + 1] = std::move(slots[instr.b + 1]);
        break;
      case Op::kClear:
        for (int32_t i = 0; i < instr.b; ++i) slots[instr.a + i] = Value();
        break;
      case Op::kConst:
        slots[instr.a] = program_->constants[static_cast<size_t>(instr.b)];
        break;
      case Op::kLoadOuter:
        slots[instr.a] = OuterFrame(instr.b)->slots()[instr.c];
        break;
      case Op::kUntrackPath: {
        const Value& value = slots[instr.a];
        bool plain = value.is_null() || value.is_boolean() || value.is_number();
        if (plain && value.SameAs(slots[instr.b])) {
          slots[instr.a + 1] = slots[instr.b + 1];
        } else {
          slots[instr.a + 1] = Value();
        }
        break;
      }
      case Op::kFork:
        PushFork(kPlainFork, instr.a, 0);
        break;
      case Op::kJump:
        next = instr.a;
        break;
      case Op::kJumpIfFalse:
        if (!slots[instr.a].truthy()) next = instr.b;
        break;
      case Op::kBacktrack:
        backtrack = true;
        break;
      case Op::kTruth:
        slots[instr.a] = Value::Bool(slots[instr.b].truthy());
        break;
      case Op::kIndex:
      case Op::kIndexConst: {
        const Value& key = instr.op == Op::kIndex ? slots[instr.c] : program_->constants[static_cast<size_t>(instr.c)];
        Value path;
        if (pair) {
          path = ExtendPath(slots[instr.b + 1], key, slots[instr.b], false);
          if (path.absent()) break;
        }
        Value value = Index(*this, slots[instr.b], key);
        if (value.absent()) {
          if (failed_ && (instr.flags & kOptional)) {
            failed_ = false;
            backtrack = true;
          }
          break;
        }
        slots[instr.a] = std::move(value);
        if (pair) slots[instr.a + 1] = std::move(path);
        break;
      }
      case Op::kSlice: {
        Value path;
        if (pair) {
          Value key = Value::Object(&heap_);
          key.SetMember(&heap_, "start", slots[instr.c]);
          key.SetMember(&heap_, "end", slots[instr.c + 1]);
          path = ExtendPath(slots[instr.b + 1], std::move(key), slots[instr.b], false);
          if (path.absent()) break;
        }
        Value value = Slice(*this, slots[instr.b], slots[instr.c], slots[instr.c + 1]);
        if (value.absent()) {
          if (failed_ && (instr.flags & kOptional)) {
            failed_ = false;
            backtrack = true;
          }
          break;
        }
        slots[instr.a] = std::move(value);
        if (pair) slots[instr.a + 1] = std::move(path);
        break;
      }
      case Op::kIterBegin: {
        const Value& target = slots[instr.b];
        if (!target.is_array() && !target.is_object()) {
          if (instr.flags & kOptional) {
            backtrack = true;
          } else {
            Fail(absl::StrCat("Cannot iterate over ", target.type_name(),
                              target.is_null() ? "" : absl::StrCat(" (", Excerpt(target), ")")));
          }
          break;
        }
        if (pair && slots[instr.b + 1].absent()) {
          ExtendPath(Value(), Value(), target, true);
          break;
        }
        Value path = pair ? slots[instr.b + 1] : Value();
        slots[instr.a] = target.Opened();
        slots[instr.a + 1] = Value::Number(0);
        slots[instr.a + 2] = std::move(path);
        break;
      }
      case Op::kIterNext: {
        const Value& target = slots[instr.b];
        auto at = static_cast<size_t>(slots[instr.b + 1].number());
        if (at >= target.size()) {
          backtrack = true;
          break;
        }
        slots[instr.b + 1] = Value::Number(static_cast<double>(at + 1));
        if (at + 1 < target.size()) PushFork(kPlainFork, pc_, 0);
        if (pair) {
          Value key = target.is_array() ? Value::Number(static_cast<double>(at)) : target.KeyValueAt(at);
          Value path = slots[instr.b + 2];
          path.Append(&heap_, std::move(key));
          slots[instr.a + 1] = std::move(path);
        }
        slots[instr.a] = target.At(at);
        break;
      }
      case Op::kRangeBegin:
        for (int32_t i = 0; i < 3; ++i) {
          if (!slots[instr.b + i].is_number()) {
            Fail("Range bounds must be numeric");
            break;
          }
          slots[instr.a + i] = Value::Number(slots[instr.b + i].number());
        }
        break;
      case Op::kRangeNext: {
        double at = slots[instr.b].number(), end = slots[instr.b + 1].number(), by = slots[instr.b + 2].number();
        if (!(by > 0 ? at < end : by < 0 && at > end)) {
          backtrack = true;
          break;
        }
        double after = at + by;
        slots[instr.b] = Value::Number(after);
        if (by > 0 ? after < end : after > end) PushFork(kPlainFork, pc_, 0);
        slots[instr.a] = Value::Number(at);
        break;
      }
      case Op::kNewArray:
        slots[instr.a] = Value::Array(&heap_);
        break;
      case Op::kAppend:
        slots[instr.a].Append(&heap_, std::move(slots[instr.b]));
        break;
      case Op::kMakeObject: {
        Value object = Value::Object(&heap_);
        for (int32_t i = 0; i < instr.c && !failed_; ++i) {
          const Value& key = slots[instr.b + 2 * i];
          if (!key.is_string()) {
            Fail(absl::StrCat("Object keys must be strings"));
            break;
          }
          object.SetMember(&heap_, key, slots[instr.b + 2 * i + 1]);
        }
        if (!failed_) slots[instr.a] = std::move(object);
        break;
      }
      case Op::kConcat: {
        size_t size = 0;
        for (int32_t i = 0; i < instr.c; ++i) size += slots[instr.b + i].text().size();
        if (!Reserve(size) || !Tick(static_cast<int64_t>(size / 64))) break;
        std::string text;
        text.reserve(size);
        for (int32_t i = 0; i < instr.c; ++i) absl::StrAppend(&text, slots[instr.b + i].text());
        slots[instr.a] = Value::Text(&heap_, std::move(text));
        break;
      }
      case Op::kFormat:
        if (Tick(Weight(slots[instr.b]))) store(FormatValue(*this, slots[instr.b], instr.c));
        break;
      case Op::kNegate:
        store(Negate(*this, slots[instr.b]));
        break;
      case Op::kAdd: {
        Value &left = slots[instr.b], &right = slots[instr.c];
        if (left.is_number() && right.is_number()) {
          slots[instr.a] = Value::Number(left.number() + right.number());
          break;
        }
        if (!Tick(Weight(right) + ((instr.flags & kConsumeB) ? 0 : Weight(left)))) break;
        Value taken = (instr.flags & kConsumeB) ? std::move(left) : left;
        store(Add(*this, std::move(taken), right));
        break;
      }
      case Op::kSubtract:
        if (slots[instr.b].is_number() && slots[instr.c].is_number()) {
          slots[instr.a] = Value::Number(slots[instr.b].number() - slots[instr.c].number());
          break;
        }
        store(Subtract(*this, slots[instr.b], slots[instr.c]));
        break;
      case Op::kMultiply:
        if (slots[instr.b].is_number() && slots[instr.c].is_number()) {
          slots[instr.a] = Value::Number(slots[instr.b].number() * slots[instr.c].number());
          break;
        }
        store(Multiply(*this, slots[instr.b], slots[instr.c]));
        break;
      case Op::kDivide:
        store(Divide(*this, slots[instr.b], slots[instr.c]));
        break;
      case Op::kModulo:
        store(Modulo(*this, slots[instr.b], slots[instr.c]));
        break;
      case Op::kEqual:
      case Op::kNotEqual:
      case Op::kLess:
      case Op::kLessOrEqual:
      case Op::kGreater:
      case Op::kGreaterOrEqual: {
        const Value &left = slots[instr.b], &right = slots[instr.c];
        bool holds = false;
        int order = 0;
        if (left.is_number() && right.is_number() && (std::isnan(left.number()) || std::isnan(right.number()))) {
          // NaN is below every number, and equal to none.
          order = std::isnan(left.number()) ? -1 : 1;
        } else if (!compare(&order)) {
          break;
        }
        switch (instr.op) {
          case Op::kEqual:
            holds = order == 0;
            break;
          case Op::kNotEqual:
            holds = order != 0;
            break;
          case Op::kLess:
            holds = order < 0;
            break;
          case Op::kLessOrEqual:
            holds = order <= 0;
            break;
          case Op::kGreater:
            holds = order > 0;
            break;
          default:
            holds = order >= 0;
        }
        slots[instr.a] = Value::Bool(holds);
        break;
      }
      case Op::kTryBegin:
        slots[instr.a + 2] = Value::Number(static_cast<double>(forks_.size()));
        PushFork(kTryFork, instr.b, instr.a);
        break;
      case Op::kAltBegin:
        slots[instr.a] = Value::Bool(false);
        slots[instr.a + 1] = Value::Number(static_cast<double>(forks_.size()));
        PushFork(kAltFork, instr.b, instr.a);
        break;
      case Op::kTryEnd:
      case Op::kAltFound: {
        double place = slots[instr.a + (instr.op == Op::kTryEnd ? 2 : 1)].number();
        if (instr.op == Op::kAltFound) slots[instr.a] = Value::Bool(true);
        if (static_cast<double>(forks_.size()) == place + 1) {
          Release(forks_.back().frame);
          forks_.pop_back();
        } else {
          PushFork(kExitFork, 0, 0);
          forks_.back().mark = place;
        }
        break;
      }
      case Op::kLabel:
        slots[instr.a] = Value::Number(next_label_);
        PushFork(kLabelFork, 0, 0);
        forks_.back().mark = next_label_++;
        break;
      case Op::kBreak:
        CutTo(OuterFrame(instr.b)->slots()[instr.c].number());
        backtrack = true;
        break;
      case Op::kCut:
        CutTo(slots[instr.a].number());
        break;
      case Op::kLimitCheck: {
        const Value& count = slots[instr.a];
        if (!count.is_number()) {
          // Numbers are above null and booleans and below all else.
          if (count.kind() < Kind::kNumber) {
            backtrack = true;
            break;
          }
          slots[instr.a] = Value::Number(INFINITY);
          break;
        }
        if (count.number() < 0) {
          Fail(instr.b ? "limit doesn't support negative count" : "skip doesn't support negative count");
        } else if (instr.b && count.number() <= 0) {
          backtrack = true;
        }
        break;
      }
      case Op::kCountTo: {
        double count = slots[instr.a].number() + 1;
        slots[instr.a] = Value::Number(count);
        if (count >= slots[instr.b].number()) CutTo(slots[instr.c].number());
        break;
      }
      case Op::kSkipTo: {
        double count = slots[instr.a].number();
        if (count < slots[instr.b].number()) {
          slots[instr.a] = Value::Number(count + 1);
          backtrack = true;
        }
        break;
      }
      case Op::kBacktrackIfAbsent:
        backtrack = slots[instr.a].absent();
        break;
      case Op::kRaise:
        FailWith(slots[instr.a]);
        break;
      case Op::kPathBegin:
        slots[instr.a] = slots[instr.b];
        slots[instr.a + 1] = Value::Array(&heap_);
        break;
      case Op::kPathEnd:
        if (slots[instr.b + 1].absent()) {
          Fail(absl::StrCat("Invalid path expression with result ", Excerpt(slots[instr.b])));
          break;
        }
        slots[instr.a] = std::move(slots[instr.b + 1]);
        break;
      case Op::kGetPath: {
        const Value& target = slots[instr.b];
        const Value& path = slots[instr.c];
        if (!Tick(static_cast<int64_t>(path.size()))) break;
        if (pair && slots[instr.b + 1].absent()) {
          Fail(absl::StrCat("Invalid path expression with result ", Excerpt(target)));
          break;
        }
        Value value = GetPath(*this, target, path);
        if (value.absent()) break;
        if (pair) {
          Value longer = slots[instr.b + 1];
          for (size_t i = 0; i < path.size(); ++i) longer.Append(&heap_, path.At(i));
          slots[instr.a + 1] = std::move(longer);
        }
        slots[instr.a] = std::move(value);
        break;
      }
      case Op::kSetPath: {
        Value changed = SetPath(*this, std::move(slots[instr.a]), slots[instr.b], std::move(slots[instr.c]));
        if (!changed.absent()) slots[instr.a] = std::move(changed);
        break;
      }
      case Op::kDeletePaths:
        if (!Tick(static_cast<int64_t>(slots[instr.c].size()))) break;
        store(DeletePaths(*this, slots[instr.b], slots[instr.c]));
        break;
      case Op::kNative: {
        const NativeSite& site = program_->natives[static_cast<size_t>(instr.c)];
        int64_t weight = Weight(slots[instr.b]);
        for (int i = 0; i < site.native->arity; ++i) weight += Weight(slots[site.args + i]);
        if (!Tick(weight)) break;
        bool owned = (instr.flags & kConsumeB) != 0;
        Value input = owned ? std::move(slots[instr.b]) : slots[instr.b];
        Value value = site.native->fn(*this, input, slots + site.args);
        if (again_ && owned) slots[instr.b] = std::move(input);
        store(std::move(value));
        break;
      }
      case Op::kCall:
      case Op::kTailCall:
      case Op::kCallParam:
      case Op::kTailCallParam: {
        int32_t callee_unit = 0;
        Frame* outer = nullptr;
        const CallSite* site = nullptr;
        if (instr.op == Op::kCall || instr.op == Op::kTailCall) {
          site = &program_->calls[static_cast<size_t>(instr.c)];
          callee_unit = site->unit;
          outer = site->home_depth < 0 ? nullptr : OuterFrame(site->home_depth);
        } else {
          const ParamSite& param = program_->params[static_cast<size_t>(instr.c)];
          const Frame::Closure& closure = OuterFrame(param.depth)->closures[static_cast<size_t>(param.index)];
          callee_unit = pair ? closure.ref->tracking : closure.ref->plain;
          outer = closure.frame;
        }
        Frame* callee = NewFrame(callee_unit, outer);
        if (site) {
          callee->closures.reserve(site->closures.size());
          for (const ClosureRef& ref : site->closures) {
            Frame::Closure closure{&ref, frame_};
            if (ref.forward_depth >= 0) {
              closure = OuterFrame(ref.forward_depth)->closures[static_cast<size_t>(ref.forward_index)];
            }
            ++closure.frame->refs;
            callee->closures.push_back(closure);
          }
        }
        bool consume = (instr.flags & kConsumeB) != 0;
        for (int32_t i = 0; i <= (pair ? 1 : 0); ++i) {
          callee->slots()[i] = consume ? std::move(slots[instr.b + i]) : slots[instr.b + i];
        }
        if ((instr.op == Op::kTailCall || instr.op == Op::kTailCallParam) && frame_->caller) {
          callee->caller = frame_->caller;
          ++callee->caller->refs;
          callee->return_pc = frame_->return_pc;
          callee->return_slot = frame_->return_slot;
          EnterFrame(callee);
        } else {
          callee->caller = frame_;
          callee->return_pc = next;
          callee->return_slot = instr.a;
          frame_ = callee;
        }
        next = 0;
        break;
      }
      case Op::kReturn: {
        Frame* caller = frame_->caller;
        if (!caller) {
          result_ = std::move(slots[instr.a]);
          resume_ = true;
          if (heap_.exceeded()) return State::kTooLarge;
          return ends(State::kResult);
        }
        next = frame_->return_pc;
        int32_t slot = frame_->return_slot;
        caller->slots()[slot] = std::move(slots[instr.a]);
        if (pair) caller->slots()[slot + 1] = std::move(slots[instr.a + 1]);
        ++caller->refs;
        EnterFrame(caller);
        break;
      }
    }

    fuel_ -= ticks_;
    if (too_large_ || heap_.exceeded()) return State::kTooLarge;
    if (again_) {
      again_ = false;
      fuel_ = 0;
      return ends(State::kYield);
    }
    if (failed_) {
      error_position_ = program_->units[static_cast<size_t>(frame_->unit)].positions[static_cast<size_t>(pc_)];
      if (!Unwind()) return failed_ ? ends(State::kFailed) : State::kDone;
    } else if (backtrack) {
      if (!Backtrack()) return State::kDone;
    } else {
      pc_ = next;
    }
  }
}

}  // namespace tutti::engine::expressions
