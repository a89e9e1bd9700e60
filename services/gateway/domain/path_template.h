// URL path templates of google.api.http, and matching of paths against them.
//
//   Template = "/" Segments [ Verb ] ;  Segments = Segment { "/" Segment } ;
//   Segment  = "*" | "**" | LITERAL | Variable ;  Variable = "{" FieldPath [ "=" Segments ] "}" ;  Verb = ":" LITERAL ;
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tutti::gateway {

struct PathVariable {
  std::string field_path;
  size_t first = 0, last = 0;  // segments [first, last); last == npos with `**`: to the end
  bool multi = false;          // more than one segment: `%2F` stays as it is
};

struct PathTemplate {
  std::vector<std::string> segments;  // literals, "*" and "**"
  std::string verb;
  std::vector<PathVariable> variables;
  // INVALID_ARGUMENT: not of the grammar.
  static absl::StatusOr<PathTemplate> Parse(const std::string& text);
};

struct PathMatch {
  int route = -1;
  std::vector<std::pair<std::string, std::string>> variables;  // field path, decoded value
};

// Finds the route of a request. Literals win over `*`, `*` over `**`. Immutable once built; thread safe then.
class PathMatcher {
 public:
  PathMatcher();
  ~PathMatcher();
  // ALREADY_EXISTS: another route has this method and template.
  absl::Status Add(const std::string& method, const PathTemplate& path, int route);

  enum class Outcome { kFound, kNoPath, kOtherMethod };
  // `path` without query. With kOtherMethod, `allowed` holds the methods that the path knows.
  Outcome Match(const std::string& method, absl::string_view path, PathMatch* match,
                std::vector<std::string>* allowed) const;

 private:
  struct Node;
  struct Leaf {
    int route = -1;
    PathTemplate path;
  };
  const Node* Walk(const Node& node, const std::vector<absl::string_view>& parts, size_t at,
                   const std::string& verb) const;
  std::unique_ptr<Node> root_;
  std::vector<std::string> verbs_;
};

// Percent decoding; nullopt-like false for bad escapes. `keep_slash`: `%2F` stays encoded.
bool PercentDecode(absl::string_view text, bool keep_slash, bool plus_is_space, std::string* out);

}  // namespace tutti::gateway
