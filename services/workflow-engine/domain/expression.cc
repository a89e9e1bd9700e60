#include "services/workflow-engine/domain/expression.h"

#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::engine {
namespace {

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

Json Variables::ToObject(const std::string& program) const {
  // A lone `.` (identity), `..`, `keys` and the like see everything; otherwise only what is named is copied.
  std::set<std::string> words;
  bool whole = false;
  for (size_t i = 0; i < program.size();) {
    if (IsNameStart(program[i])) {
      size_t end = i;
      while (end < program.size() && IsNameChar(program[end])) ++end;
      words.insert(program.substr(i, end - i));
      i = end;
      continue;
    }
    if (program[i] == '.' && (i + 1 == program.size() || !IsNameStart(program[i + 1]))) whole = true;
    ++i;
  }
  for (const char* name :
       {"keys", "to_entries", "paths", "getpath", "has", "map_values", "with_entries", "del", "path"}) {
    whole |= words.count(name) > 0;
  }
  Json out = Json::object();
  for (const Variables* scope = this; scope; scope = scope->parent_) {
    for (const auto& [name, value] : scope->own_) {
      if ((whole || words.count(name) > 0) && !out.contains(name)) out[name] = *value;
    }
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
  return jq_.Check(expression);
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

absl::StatusOr<Json> Evaluator::Evaluate(const std::string& expression, const Variables& variables) {
  if (auto path = ParsePath(expression)) return Walk(expression, *path, variables);
  return jq_.Run(expression, variables.ToObject(expression));
}

absl::StatusOr<bool> Evaluator::EvaluateCondition(absl::string_view expression, const Variables& variables) {
  TUTTI_ASSIGN_OR_RETURN(Json value, Evaluate(ExpressionBody(expression), variables));
  return !(value.is_null() || (value.is_boolean() && !value.get<bool>()));
}

absl::StatusOr<Json> Evaluator::ExpandString(const std::string& text, const Variables& variables) {
  if (text.find("${") == std::string::npos) return Json(text);
  if (EndOfExpression(text, text.find("${") + 2) == std::string::npos) return Unclosed(text);
  std::string body = ExpressionBody(text);
  if (body != absl::StripAsciiWhitespace(text)) return Evaluate(body, variables);
  std::string out;
  absl::Status status = Split(
      text, [&](const std::string& piece) { out += piece; },
      [&](const std::string& expression) -> absl::Status {
        TUTTI_ASSIGN_OR_RETURN(Json value, Evaluate(expression, variables));
        out += value.is_string() ? value.get<std::string>() : DumpJson(value);
        return absl::OkStatus();
      });
  TUTTI_RETURN_IF_ERROR(status);
  return Json(std::move(out));
}

absl::StatusOr<Json> Evaluator::Expand(const Json& value, const Variables& variables) {
  if (value.is_string()) return ExpandString(value.get_ref<const std::string&>(), variables);
  if (value.is_array()) {
    Json out = Json::array();
    for (const auto& item : value) {
      TUTTI_ASSIGN_OR_RETURN(Json expanded, Expand(item, variables));
      out.push_back(std::move(expanded));
    }
    return out;
  }
  if (value.is_object()) {
    Json out = Json::object();
    for (const auto& [key, item] : value.items()) {
      TUTTI_ASSIGN_OR_RETURN(out[key], Expand(item, variables));
    }
    return out;
  }
  return value;
}

}  // namespace tutti::engine
