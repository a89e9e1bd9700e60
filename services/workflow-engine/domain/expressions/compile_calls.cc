// Code for calls of functions.
#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/compiler.h"

namespace tutti::engine::expressions {

absl::Status Compiler::GenCall(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail) {
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

absl::Status Compiler::GenNative(const Native& native, const Ast& ast, const Binding* scope, int in, bool last,
                                 int out) {
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
  Emit(Op::kNative, out, in, static_cast<int>(program_.natives.size()) - 1, last && free && !pairs_ ? kConsumeB : 0);
  if (pairs_) Emit(Op::kUntrackPath, out, in);
  return absl::OkStatus();
}

absl::Status Compiler::GenSpecial(const Ast& ast, const Binding* scope, int in, bool last, int out, bool tail,
                                  bool* special) {
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

absl::Status Compiler::GenFunction(const Definition& definition, const Binding* binding, const Ast& ast,
                                   const Binding* scope, int in, bool last, int out, bool tail) {
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

absl::Status Compiler::GenRealCall(const Definition& definition, const Binding* binding, const Ast& ast,
                                   const Binding* scope, int in, bool last, int out, bool tail) {
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

void Compiler::EmitCall(Op op, int in, bool last, int out, int site) {
  Emit(op, out, in, site, PairFlag() | (last ? kConsumeB : 0));
}

absl::StatusOr<int> Compiler::UnitOf(const Definition& definition, const Binding* binding, int home) {
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

absl::StatusOr<ClosureRef> Compiler::GenClosure(const Ast& argument, const Binding* scope, uint8_t modes) {
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

absl::Status Compiler::GenParamCall(const Binding& param, int in, bool last, int out, bool tail) {
  building_[static_cast<size_t>(param.unit)].param_modes[static_cast<size_t>(param.slot)] |= pairs_ ? 2 : 1;
  program_.params.push_back({DepthOf(param.unit), param.slot});
  EmitCall(tail ? Op::kTailCallParam : Op::kCallParam, in, last, out, static_cast<int>(program_.params.size()) - 1);
  return absl::OkStatus();
}

}  // namespace tutti::engine::expressions
