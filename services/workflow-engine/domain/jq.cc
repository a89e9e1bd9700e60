#include "services/workflow-engine/domain/jq.h"

extern "C" {
#include <jq.h>
#include <jv.h>
}

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::engine {
namespace {

constexpr char kPrelude[] =
    "def _range($a; $b): range($a; $b);"
    "def _range3($a; $b; $c): range($a; $b; $c);"
    "def range($a; $b; $c): if $c == 0 or ($b - $a) / $c > 10000 then error(\"range of more than 10000\") "
    "else _range3($a; $b; $c) end;"
    "def range($a; $b): if $b - $a > 10000 then error(\"range of more than 10000\") else _range($a; $b) end;"
    "def range($n): range(0; $n); ";

const std::set<std::string>& Refused() {
  static const std::set<std::string> kNames = {
      "def",    "while",  "until",  "repeat",  "recurse", "env",        "ENV",      "input", "inputs",
      "debug",  "stderr", "import", "include", "halt",    "halt_error", "infinite", "now",   "input_line_number",
      "_range", "_range3"};
  return kNames;
}

// A refused word that stands as a function or variable, not as a field (`.input`) or inside a string.
std::string FindRefused(const std::string& program) {
  for (size_t i = 0; i < program.size();) {
    char c = program[i];
    if (c == '"') {
      for (++i; i < program.size() && program[i] != '"'; ++i) {
        if (program[i] != '\\') continue;
        if (i + 1 < program.size() && program[i + 1] == '(')
          return "\\(";  // code in a string; `${ }` in the text does the same
        ++i;
      }
      ++i;
    } else if (c == '#') {
      return "#";  // a comment could hold a quotation mark, and hide what follows
    } else if (isalpha(static_cast<unsigned char>(c)) || c == '_') {
      size_t end = i;
      while (end < program.size() && (isalnum(static_cast<unsigned char>(program[end])) || program[end] == '_')) ++end;
      bool field = i > 0 && program[i - 1] == '.';
      bool key = end < program.size() && program[end] == ':';
      std::string word = program.substr(i, end - i);
      if (!field && !key && Refused().count(word) > 0) return word;
      i = end;
    } else {
      ++i;
    }
  }
  return "";
}

absl::Status Wrong(const std::string& program, absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_EXPRESSION",
               absl::StrCat("expression ${ ", program, " }: ", what));
}

jv ToJv(const Json& json) {
  switch (json.type()) {
    case Json::value_t::object: {
      jv out = jv_object();
      for (const auto& [key, value] : json.items()) {
        out = jv_object_set(out, jv_string_sized(key.data(), static_cast<int>(key.size())), ToJv(value));
      }
      return out;
    }
    case Json::value_t::array: {
      jv out = jv_array_sized(static_cast<int>(json.size()));
      for (const auto& value : json) out = jv_array_append(out, ToJv(value));
      return out;
    }
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      return jv_string_sized(text.data(), static_cast<int>(text.size()));
    }
    case Json::value_t::boolean:
      return jv_bool(json.get<bool>());
    case Json::value_t::null:
      return jv_null();
    default:
      return jv_number(json.get<double>());
  }
}

Json FromJv(jv value) {
  jv text = jv_dump_string(value, 0);
  Json out = Json::parse(jv_string_value(text), nullptr, false);
  jv_free(text);
  return out;
}

std::string MessageOf(jv message) {
  std::string out = jv_get_kind(message) == JV_KIND_STRING ? jv_string_value(message) : FromJv(jv_copy(message)).dump();
  jv_free(message);
  return out;
}

}  // namespace

struct Jq::Program {
  jq_state* state = nullptr;
  std::list<std::string>::iterator recent;
  std::string error;
  ~Program() {
    if (state) jq_teardown(&state);
  }
  static void OnError(void* self, jv message) {
    auto& error = static_cast<Program*>(self)->error;
    if (error.empty())
      error = MessageOf(message);
    else
      jv_free(message);
  }
};

Jq::Jq() = default;
Jq::~Jq() = default;

absl::StatusOr<Jq::Program*> Jq::Compile(const std::string& text) {
  if (auto it = programs_.find(text); it != programs_.end()) {
    recent_.splice(recent_.begin(), recent_, it->second->recent);
    return it->second.get();
  }
  if (std::string word = FindRefused(text); !word.empty()) {
    return Wrong(text, absl::StrCat("\"", word, "\" is not allowed: an expression must end and see only its data"));
  }
  auto program = std::make_unique<Program>();
  program->state = jq_init();
  if (!program->state) return absl::ResourceExhaustedError("no memory for jq");
  jq_set_error_cb(program->state, &Program::OnError, program.get());
  if (!jq_compile(program->state, absl::StrCat(kPrelude, text).c_str())) {
    std::string error = program->error.substr(0, program->error.find('\n'));
    error = std::string(absl::StripPrefix(error, "jq: error: "));
    return Wrong(text, error.substr(0, error.find(" (Unix shell")));
  }
  if (programs_.size() >= kMaxPrograms) {
    programs_.erase(recent_.back());
    recent_.pop_back();
  }
  recent_.push_front(text);
  program->recent = recent_.begin();
  return (programs_[text] = std::move(program)).get();
}

absl::Status Jq::Check(const std::string& program) { return Compile(program).status(); }

absl::StatusOr<Json> Jq::Run(const std::string& text, const Json& input) {
  TUTTI_ASSIGN_OR_RETURN(Program * program, Compile(text));
  jq_start(program->state, ToJv(input), 0);
  jv result = jq_next(program->state);
  if (jv_is_valid(result)) return FromJv(result);
  if (jv_invalid_has_msg(jv_copy(result))) return Wrong(text, MessageOf(jv_invalid_get_msg(result)));
  jv_free(result);
  return Json(nullptr);
}

}  // namespace tutti::engine
