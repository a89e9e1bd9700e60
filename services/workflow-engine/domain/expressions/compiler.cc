// Compiles syntax to code. A function that does not call itself is expanded where it is called, and so are its
// arguments; slots are never reused, so that going back to a fork needs no saved state: what runs again writes its
// slots again.
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/compiler.h"

namespace tutti::engine::expressions {

absl::Status Compiler::Run(const Ast& ast) {
  NewUnit(-1, false);
  int out = NewValue();
  TUTTI_RETURN_IF_ERROR(Gen(ast, nullptr, 0, true, out, true));
  Emit(Op::kReturn, out);
  return absl::OkStatus();
}

int Compiler::NewUnit(int parent, bool pairs) {
  program_.units.emplace_back();
  program_.units.back().pairs = pairs;
  program_.units.back().slots = pairs ? 2 : 1;
  building_.push_back({.parent = parent});
  int before = unit_;
  unit_ = static_cast<int>(program_.units.size()) - 1;
  return before;
}

int Compiler::NewSlots(int count) {
  int slot = unit().slots;
  unit().slots += count;
  return slot;
}

int Compiler::Emit(Op op, int a, int b, int c, int flags) {
  unit().code.push_back({op, static_cast<uint8_t>(flags), a, b, c});
  unit().positions.push_back(position_);
  ++instructions_;
  return Here() - 1;
}

int Compiler::Constant(Value value) {
  value.MakeConstant();
  program_.constants.push_back(std::move(value));
  return static_cast<int>(program_.constants.size()) - 1;
}

int Compiler::DepthOf(int unit) const {
  int depth = 0;
  for (int at = unit_; at != unit; at = building_[static_cast<size_t>(at)].parent) ++depth;
  return depth;
}

absl::Status Compiler::Fail(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("at ", DescribePosition(program_.text, position_), ": ", what));
}

const Binding* Compiler::Bind(Binding binding) {
  binding.prelude = in_prelude_;
  bindings_.push_back(std::move(binding));
  return &bindings_.back();
}

const Binding* Compiler::BindVariable(const Binding* outer, const std::string& name, int slot) {
  return Bind({.type = Binding::Type::kVariable, .name = name, .outer = outer, .unit = unit_, .slot = slot});
}

const Binding* Compiler::FindFunction(const Binding* scope, const std::string& name, size_t arity) {
  for (; scope; scope = scope->outer) {
    bool function = scope->type == Binding::Type::kFunction || scope->type == Binding::Type::kArgument ||
                    scope->type == Binding::Type::kParam;
    if (function && scope->arity == arity && scope->name == name) return scope;
  }
  return nullptr;
}

const Binding* Compiler::FindNamed(const Binding* scope, Binding::Type type, const std::string& name) {
  for (; scope; scope = scope->outer) {
    if (scope->type == type && scope->name == name) return scope;
  }
  return nullptr;
}

bool Compiler::ForkFree(const Ast& ast, const Binding* scope, int depth) {
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

namespace {

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
