#include "services/gateway/domain/path_template.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace tutti::gateway {
namespace {

constexpr size_t kToEnd = static_cast<size_t>(-1);

absl::Status Bad(const std::string& text, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("path template \"", text, "\": ", what));
}

// Splits at `/` outside braces.
std::vector<std::string> SplitSegments(absl::string_view text) {
  std::vector<std::string> out(1);
  int depth = 0;
  for (char c : text) {
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (c == '/' && depth == 0) {
      out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  return out;
}

bool IsPlain(const std::string& segment) {
  return segment.find_first_of("{}*:=/") == std::string::npos && !segment.empty();
}

}  // namespace

absl::StatusOr<PathTemplate> PathTemplate::Parse(const std::string& text) {
  PathTemplate out;
  if (text.empty() || text[0] != '/') return Bad(text, "must begin with /");
  std::string path = text.substr(1);
  size_t colon = path.rfind(':'), brace = path.rfind('}');
  if (colon != std::string::npos && (brace == std::string::npos || colon > brace)) {
    out.verb = path.substr(colon + 1);
    path.resize(colon);
    if (!IsPlain(out.verb)) return Bad(text, "has a bad verb");
  }
  for (const auto& part : SplitSegments(path)) {
    if (!out.segments.empty() && out.segments.back() == "**") return Bad(text, "** must be last");
    if (part == "*" || part == "**" || IsPlain(part)) {
      out.segments.push_back(part);
      continue;
    }
    if (part.size() < 3 || part.front() != '{' || part.back() != '}')
      return Bad(text, absl::StrCat("bad segment \"", part, "\""));
    std::string inner = part.substr(1, part.size() - 2);
    size_t equals = inner.find('=');
    PathVariable variable;
    variable.field_path = inner.substr(0, equals);
    if (variable.field_path.empty()) return Bad(text, "a variable has no name");
    variable.first = out.segments.size();
    std::string pattern = equals == std::string::npos ? "*" : inner.substr(equals + 1);
    for (absl::string_view segment : absl::StrSplit(pattern, '/')) {
      if (segment != "*" && segment != "**" && !IsPlain(std::string(segment)))
        return Bad(text, "variables cannot nest");
      if (!out.segments.empty() && out.segments.back() == "**") return Bad(text, "** must be last");
      out.segments.emplace_back(segment);
    }
    variable.last = out.segments.back() == "**" ? kToEnd : out.segments.size();
    variable.multi = variable.last == kToEnd || variable.last - variable.first > 1;
    out.variables.push_back(std::move(variable));
  }
  return out;
}

struct PathMatcher::Node {
  std::map<std::string, std::unique_ptr<Node>, std::less<>> literals;
  std::unique_ptr<Node> any;                                  // `*`
  std::unique_ptr<Node> rest;                                 // `**`
  std::map<std::string, std::map<std::string, Leaf>> leaves;  // verb, method
};

PathMatcher::PathMatcher() : root_(std::make_unique<Node>()) {}
PathMatcher::~PathMatcher() = default;

absl::Status PathMatcher::Add(const std::string& method, const PathTemplate& path, int route) {
  Node* node = root_.get();
  for (const auto& segment : path.segments) {
    auto& next = segment == "*" ? node->any : segment == "**" ? node->rest : node->literals[segment];
    if (!next) next = std::make_unique<Node>();
    node = next.get();
  }
  Leaf& leaf = node->leaves[path.verb][method];
  if (leaf.route >= 0)
    return absl::AlreadyExistsError(absl::StrCat(method, " ", absl::StrJoin(path.segments, "/"), " is taken"));
  leaf = {route, path};
  if (!path.verb.empty()) verbs_.push_back(path.verb);
  return absl::OkStatus();
}

const PathMatcher::Node* PathMatcher::Walk(const Node& node, const std::vector<absl::string_view>& parts, size_t at,
                                           const std::string& verb) const {
  if (at == parts.size()) {
    if (node.leaves.count(verb) > 0) return &node;
    return node.rest && node.rest->leaves.count(verb) > 0 ? node.rest.get() : nullptr;
  }
  if (auto it = node.literals.find(parts[at]); it != node.literals.end()) {
    if (const Node* found = Walk(*it->second, parts, at + 1, verb)) return found;
  }
  if (node.any && !parts[at].empty()) {
    if (const Node* found = Walk(*node.any, parts, at + 1, verb)) return found;
  }
  return node.rest && node.rest->leaves.count(verb) > 0 ? node.rest.get() : nullptr;
}

PathMatcher::Outcome PathMatcher::Match(const std::string& method, absl::string_view path, PathMatch* match,
                                        std::vector<std::string>* allowed) const {
  if (path.empty() || path[0] != '/' || path.size() > 8192) return Outcome::kNoPath;
  std::string verb;
  size_t colon = path.rfind(':');
  if (colon != absl::string_view::npos && path.find('/', colon) == absl::string_view::npos) {
    std::string candidate(path.substr(colon + 1));
    if (std::find(verbs_.begin(), verbs_.end(), candidate) != verbs_.end()) {
      verb = candidate;
      path = path.substr(0, colon);
    }
  }
  std::vector<absl::string_view> parts = absl::StrSplit(path.substr(1), '/');
  const Node* node = Walk(*root_, parts, 0, verb);
  if (!node) return Outcome::kNoPath;
  const auto& methods = node->leaves.at(verb);
  auto it = methods.find(method);
  if (it == methods.end()) {
    for (const auto& [name, leaf] : methods) allowed->push_back(name);
    return Outcome::kOtherMethod;
  }
  match->route = it->second.route;
  for (const auto& variable : it->second.path.variables) {
    size_t last = std::min(variable.last, parts.size());
    std::string raw = absl::StrJoin(parts.begin() + static_cast<int64_t>(variable.first),
                                    parts.begin() + static_cast<int64_t>(last), "/");
    std::string value;
    if (!PercentDecode(raw, variable.multi, /*plus_is_space=*/false, &value)) return Outcome::kNoPath;
    match->variables.emplace_back(variable.field_path, std::move(value));
  }
  return Outcome::kFound;
}

bool PercentDecode(absl::string_view text, bool keep_slash, bool plus_is_space, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      *out += ' ';
    } else if (text[i] != '%') {
      *out += text[i];
    } else {
      if (i + 2 >= text.size() || !absl::ascii_isxdigit(text[i + 1]) || !absl::ascii_isxdigit(text[i + 2]))
        return false;
      auto digit = [](char c) { return absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10; };
      char c = static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      if (c == '/' && keep_slash) {
        out->append(text.data() + i, 3);
      } else {
        *out += c;
      }
      i += 2;
    }
  }
  return true;
}

}  // namespace tutti::gateway
