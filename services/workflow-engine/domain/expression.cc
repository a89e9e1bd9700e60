#include "services/workflow-engine/domain/expression.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/async/executor.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/utf8.h"

namespace tutti::engine {
namespace {

using expressions::EvaluationQueue;
using expressions::Machine;
using expressions::Value;

constexpr int64_t kSlice = 10'000;                 // steps between pauses
constexpr size_t kFirstMemory = size_t{4} << 20;   // what the first slice may take
constexpr size_t kMaxExpanded = size_t{64} << 20;  // bytes of one string with its expressions
constexpr uint32_t kMaxResultDepth = 100;
constexpr size_t kMaxResult = size_t{32} << 20;  // bytes of a result: texts, and so much for each value
constexpr size_t kPartBytes = 32;
constexpr double kWrittenWhole = 1e17;  // whole numbers below are written without an exponent

absl::Status Stopped() { return absl::CancelledError("the run was asked to stop"); }

absl::Status Wrong(const std::string& expression, absl::string_view what, const char* reason = "BAD_EXPRESSION") {
  std::string shown = expression.size() <= 200 ? expression : absl::StrCat(Utf8Prefix(expression, 200), " …");
  return Error(absl::StatusCode::kInvalidArgument, reason, absl::StrCat("expression ${ ", shown, " }: ", what));
}

enum class Conversion { kDone, kTooDeep, kTooLarge };

// Copies the value. Parts that the machine shares are copied each time: `room` bounds the bytes of the whole.
Conversion FromValue(const Value& value, uint32_t depth, size_t& room, Json* out) {
  if (room < kPartBytes) return Conversion::kTooLarge;
  room -= kPartBytes;
  auto take = [&room](size_t bytes) {
    const bool fits = bytes <= room;
    if (fits) room -= bytes;
    return fits;
  };
  switch (value.kind()) {
    case expressions::Kind::kNull:
      *out = nullptr;
      return Conversion::kDone;
    case expressions::Kind::kFalse:
    case expressions::Kind::kTrue:
      *out = value.truthy();
      return Conversion::kDone;
    case expressions::Kind::kNumber: {
      if (!value.literal().empty()) {
        if (!take(value.literal().size())) return Conversion::kTooLarge;
        *out = JsonNumber(value.literal());
        return Conversion::kDone;
      }
      double number = value.number();
      if (std::isnan(number)) {
        *out = nullptr;
      } else if (number == std::floor(number) && std::fabs(number) < kWrittenWhole && !std::signbit(number)) {
        *out = static_cast<uint64_t>(number);
      } else if (number == std::floor(number) && std::fabs(number) < kWrittenWhole && number != 0) {
        *out = static_cast<int64_t>(number);
      } else {
        constexpr double kLargest = std::numeric_limits<double>::max();
        *out = std::clamp(number, -kLargest, kLargest);
      }
      return Conversion::kDone;
    }
    case expressions::Kind::kString:
      if (!take(value.text().size())) return Conversion::kTooLarge;
      *out = std::string(value.text());
      return Conversion::kDone;
    case expressions::Kind::kArray:
      if (depth == 0) return Conversion::kTooDeep;
      *out = Json::array();
      for (size_t i = 0; i < value.size(); ++i) {
        Json& item = out->get_ref<Json::array_t&>().emplace_back();
        if (auto end = FromValue(value.At(i), depth - 1, room, &item); end != Conversion::kDone) return end;
      }
      return Conversion::kDone;
    case expressions::Kind::kObject: {
      if (depth == 0) return Conversion::kTooDeep;
      *out = Json::object();
      Value object = value.Opened();
      for (size_t i = 0; i < object.size(); ++i) {
        if (!take(object.KeyAt(i).size())) return Conversion::kTooLarge;
        Json& place = out->get_ref<Json::object_t&>()[std::string(object.KeyAt(i))];
        if (auto end = FromValue(object.At(i), depth - 1, room, &place); end != Conversion::kDone) return end;
      }
      return Conversion::kDone;
    }
  }
  return Conversion::kDone;
}

bool IsNameStart(char c) { return isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsNameChar(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

struct PathPart {
  std::string name;  // or
  int64_t index = 0;
  bool is_index = false;
};

// `.a.b[0].c` as parts; nullopt for everything else.
std::optional<std::vector<PathPart>> ParsePath(const std::string& text) {
  std::vector<PathPart> parts;
  size_t i = 0;
  while (i < text.size()) {
    if (text[i] == '.' && i + 1 < text.size() && IsNameStart(text[i + 1])) {
      size_t end = i + 1;
      while (end < text.size() && IsNameChar(text[end])) ++end;
      parts.push_back({.name = text.substr(i + 1, end - i - 1)});
      i = end;
    } else if (text[i] == '[' && !parts.empty()) {
      size_t end = text.find(']', i);
      if (end == std::string::npos || end == i + 1 || end - i > 10) return std::nullopt;
      for (size_t k = i + 1; k < end; ++k) {
        if (!isdigit(static_cast<unsigned char>(text[k]))) return std::nullopt;
      }
      parts.push_back({.index = std::stoll(text.substr(i + 1, end - i - 1)), .is_index = true});
      i = end + 1;
    } else {
      return std::nullopt;
    }
  }
  if (parts.empty()) return std::nullopt;
  return parts;
}

absl::Status CannotIndex(const std::string& expression, const Json& value, const PathPart& part) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_EXPRESSION",
               absl::StrCat("expression ${ ", expression, " }: cannot index ", value.type_name(), " with ",
                            part.is_index ? absl::StrCat(part.index) : absl::StrCat("\"", part.name, "\"")));
}

// As jq: a missing key or position is null, indexing something else is an error.
absl::StatusOr<Json> Walk(const std::string& expression, const std::vector<PathPart>& parts,
                          const Variables& variables) {
  const Json* value = variables.Find(parts[0].name);
  for (size_t i = 1; value != nullptr && i < parts.size(); ++i) {
    const PathPart& part = parts[i];
    if (value->is_null()) return Json(nullptr);
    if (part.is_index) {
      if (!value->is_array()) return CannotIndex(expression, *value, part);
      value = part.index < static_cast<int64_t>(value->size()) ? &(*value)[part.index] : nullptr;
    } else {
      if (!value->is_object()) return CannotIndex(expression, *value, part);
      auto it = value->find(part.name);
      value = it == value->end() ? nullptr : &*it;
    }
  }
  return value ? *value : Json(nullptr);
}

// The end of the expression that begins after `${` at `begin`: the position of its `}`.
size_t EndOfExpression(const std::string& text, size_t begin) {
  int depth = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
      }
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && depth-- == 0) {
      return i;
    }
  }
  return std::string::npos;
}

absl::Status Unclosed(const std::string& text) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_EXPRESSION",
               absl::StrCat("\"", text.substr(0, 80), "\": ${ without }"));
}

// Calls `on_text` and `on_expression` for the pieces of a string in order.
template <class OnText, class OnExpression>
absl::Status Split(const std::string& text, OnText on_text, OnExpression on_expression) {
  size_t at = 0;
  for (;;) {
    size_t open = text.find("${", at);
    on_text(text.substr(at, open == std::string::npos ? open : open - at));
    if (open == std::string::npos) return absl::OkStatus();
    size_t close = EndOfExpression(text, open + 2);
    if (close == std::string::npos) return Unclosed(text);
    TUTTI_RETURN_IF_ERROR(
        on_expression(std::string(absl::StripAsciiWhitespace(text.substr(open + 2, close - open - 2)))));
    at = close + 1;
  }
}

}  // namespace

const Json* Variables::Find(const std::string& name) const {
  for (const Variables* scope = this; scope; scope = scope->parent_) {
    if (auto it = scope->own_.find(name); it != scope->own_.end()) return it->second.get();
  }
  return nullptr;
}

Variables Variables::Flatten() const {
  Variables out;
  for (const Variables* scope = this; scope; scope = scope->parent_) {
    for (const auto& [name, value] : scope->own_) out.own_.try_emplace(name, value);
  }
  return out;
}

Json Variables::ToObject() const {
  Json out = Json::object();
  for (const auto& [name, value] : Seen()) out[name] = *value;
  return out;
}

std::map<std::string, JsonRef> Variables::Seen() const {
  std::map<std::string, JsonRef> out;
  for (const Variables* scope = this; scope; scope = scope->parent_) {
    for (const auto& [name, value] : scope->own_) out.try_emplace(name, value);
  }
  return out;
}

std::string ExpressionBody(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  std::string whole(text);
  if (absl::ConsumePrefix(&text, "${") && EndOfExpression(whole, 2) == whole.size() - 1) {
    return std::string(absl::StripAsciiWhitespace(text.substr(0, text.size() - 1)));
  }
  return whole;
}

absl::Status Evaluator::CheckExpression(const std::string& expression) {
  if (expression.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "BAD_EXPRESSION", "an expression must not be empty");
  }
  if (ParsePath(expression)) return absl::OkStatus();
  return Compile(expression).status();
}

absl::Status Evaluator::CheckTemplate(const Json& value) {
  if (value.is_string()) {
    return Split(
        value.get_ref<const std::string&>(), [](const std::string&) {},
        [&](const std::string& expression) { return CheckExpression(expression); });
  }
  if (value.is_structured()) {
    for (const auto& item : value) TUTTI_RETURN_IF_ERROR(CheckTemplate(item));
  }
  return absl::OkStatus();
}

absl::StatusOr<Evaluator::ProgramRef> Evaluator::Compile(const std::string& text) {
  if (auto it = programs_.find(text); it != programs_.end()) {
    recent_.splice(recent_.begin(), recent_, it->second.recent);
    return it->second.program;
  }
  auto program = expressions::Compile(text);
  if (!program.ok()) return Wrong(text, program.status().message());
  if (programs_.size() >= kMaxPrograms) {
    programs_.erase(recent_.back());
    recent_.pop_back();
  }
  recent_.push_front(text);
  programs_[text] = {*program, recent_.begin()};
  return *program;
}

absl::StatusOr<Json> Evaluator::Outcome(Machine& machine, Machine::State state, const std::string& text) const {
  Json out(nullptr);
  switch (state) {
    case Machine::State::kResult:
      switch (size_t room = kMaxResult; FromValue(machine.result(), kMaxResultDepth, room, &out)) {
        case Conversion::kDone:
          return out;
        case Conversion::kTooDeep:
          return Wrong(text, absl::StrCat("the result is nested deeper than ", kMaxResultDepth, " levels"),
                       "EXPRESSION_TOO_LARGE");
        case Conversion::kTooLarge:
          return Wrong(text, absl::StrCat("the result takes more than ", kMaxResult >> 20, " MiB"),
                       "EXPRESSION_TOO_LARGE");
      }
      return out;
    case Machine::State::kFailed:
      return Wrong(text, machine.error());
    case Machine::State::kTooLong:
      return Wrong(text,
                   absl::StrCat("not done after ", absl::FormatDuration(options_.limits.time),
                                " of processor time, the most that an expression may take"),
                   "EXPRESSION_TOO_LONG");
    case Machine::State::kTooLarge:
      return Wrong(text,
                   absl::StrCat("needs more than ", options_.limits.memory >> 20,
                                " MiB, the most that an expression may take, or nests too deep"),
                   "EXPRESSION_TOO_LARGE");
    default:
      return out;
  }
}

Task<absl::StatusOr<Json>> Evaluator::Run(std::string text, const Variables& variables, const Context& context) {
  TUTTI_CO_ASSIGN_OR_RETURN(ProgramRef program, Compile(text));
  // The machine borrows from these; they outlive it.
  const std::map<std::string, JsonRef> seen = variables.Seen();
  auto set_input = [&](Machine& machine) {
    Value input = Value::Object(&machine.heap());
    for (const auto& [name, value] : seen) {
      if (program->whole || program->names.count(name) > 0) {
        input.SetMember(&machine.heap(), absl::string_view(name), Value::Borrow(value.get(), &machine.heap()));
      }
    }
    machine.SetInput(std::move(input));
  };
  {
    // Most evaluations end here, at once. What needs more begins anew below, so that whoever waits holds no memory.
    expressions::Limits limits = options_.limits;
    if (options_.queue) limits.memory = std::min(limits.memory, kFirstMemory);
    Machine machine(program, limits, context.now);
    set_input(machine);
    Machine::State state = machine.Run(kSlice, /*patient=*/false);
    while (state == Machine::State::kYield && !options_.queue) {
      if (context.stopped && context.stopped()) co_return Stopped();
      state = machine.Run(kSlice, /*patient=*/true);
    }
    if (state != Machine::State::kYield && (state != Machine::State::kTooLarge || !options_.queue)) {
      co_return Outcome(machine, state, text);
    }
  }
  if (context.long_ones) ++*context.long_ones;
  absl::StatusOr<Json> out = Stopped();
  {
    const EvaluationQueue::Seat seat = co_await options_.queue->Enter(context.tenant);
    co_await options_.queue->NextTurn(context.tenant);
    Machine machine(program, options_.limits, context.now);
    set_input(machine);
    while (!context.stopped || !context.stopped()) {
      const Machine::State state = machine.Run(kSlice, /*patient=*/true);
      if (state != Machine::State::kYield) {
        out = Outcome(machine, state, text);
        break;
      }
      co_await options_.queue->NextTurn(context.tenant);
    }
  }
  co_await ResumeOn(*context.executor);
  if (context.long_ones) --*context.long_ones;
  co_return out;
}

Task<absl::StatusOr<Json>> Evaluator::Evaluate(std::string expression, const Variables& variables,
                                               const Context& context) {
  if (auto path = ParsePath(expression)) co_return Walk(expression, *path, variables);
  auto out = co_await Run(std::move(expression), variables, context);
  co_return out;
}

Task<absl::StatusOr<bool>> Evaluator::EvaluateCondition(std::string expression, const Variables& variables,
                                                        const Context& context) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json value, co_await Evaluate(ExpressionBody(expression), variables, context));
  co_return !(value.is_null() || (value.is_boolean() && !value.get<bool>()));
}

Task<absl::StatusOr<Json>> Evaluator::ExpandString(std::string text, const Variables& variables,
                                                   const Context& context) {
  if (EndOfExpression(text, text.find("${") + 2) == std::string::npos) co_return Unclosed(text);
  std::string body = ExpressionBody(text);
  if (body != absl::StripAsciiWhitespace(text)) {
    auto value = co_await Evaluate(std::move(body), variables, context);
    co_return value;
  }
  struct Piece {
    std::string text;
    bool expression;
  };
  std::vector<Piece> pieces;
  TUTTI_CO_RETURN_IF_ERROR(Split(
      text,
      [&](const std::string& piece) {
        pieces.push_back({piece, false});
      },
      [&](const std::string& expression) {
        pieces.push_back({expression, true});
        return absl::OkStatus();
      }));
  std::string out;
  for (Piece& piece : pieces) {
    if (!piece.expression) {
      out += piece.text;
      continue;
    }
    TUTTI_CO_ASSIGN_OR_RETURN(Json value, co_await Evaluate(piece.text, variables, context));
    out += value.is_string() ? value.get_ref<const std::string&>() : DumpJson(value);
    if (out.size() > kMaxExpanded) {
      co_return Wrong(piece.text, absl::StrCat("makes a text of more than ", kMaxExpanded >> 20, " MiB"),
                      "EXPRESSION_TOO_LARGE");
    }
  }
  co_return Json(std::move(out));
}

namespace {

// The expression and its parts, of a string that is one plain path in `${ }`.
std::optional<std::pair<std::string, std::vector<PathPart>>> PlainPath(const std::string& text) {
  if (!absl::StartsWith(text, "${")) return std::nullopt;
  std::string body = ExpressionBody(text);
  if (body.size() == text.size()) return std::nullopt;
  auto parts = ParsePath(body);
  if (!parts) return std::nullopt;
  return std::make_pair(std::move(body), *std::move(parts));
}

void FindTemplates(Json& value, std::vector<Json*>* out) {
  if (value.is_string()) {
    if (value.get_ref<const std::string&>().find("${") != std::string::npos) out->push_back(&value);
  } else if (value.is_structured()) {
    for (auto& item : value) FindTemplates(item, out);
  }
}

}  // namespace

Task<absl::StatusOr<Json>> Evaluator::Expand(Json value, const Variables& variables, const Context& context) {
  std::vector<Json*> templates;
  FindTemplates(value, &templates);
  for (Json* place : templates) {
    // Most are plain paths: those need no coroutine.
    if (auto path = PlainPath(place->get_ref<const std::string&>())) {
      TUTTI_CO_ASSIGN_OR_RETURN(*place, Walk(path->first, path->second, variables));
      continue;
    }
    TUTTI_CO_ASSIGN_OR_RETURN(*place, co_await ExpandString(place->get<std::string>(), variables, context));
  }
  co_return std::move(value);
}

}  // namespace tutti::engine
