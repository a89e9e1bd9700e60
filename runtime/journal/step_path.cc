#include "runtime/journal/step_path.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tutti::step_path {

std::string Below(absl::string_view path, absl::string_view segment) {
  return path.empty() ? std::string(segment) : absl::StrCat(path, "/", segment);
}

std::string Below(absl::string_view path, absl::string_view word, int64_t number) {
  return path.empty() ? absl::StrCat(word, number) : absl::StrCat(path, "/", word, number);
}

std::string Item(absl::string_view path, int64_t index) { return absl::StrCat(path, "/", index); }

bool IsAtOrBelow(absl::string_view path, absl::string_view root) {
  return absl::StartsWith(path, root) && (path.size() == root.size() || path[root.size()] == '/');
}

bool IsBelow(absl::string_view path, absl::string_view root, absl::string_view word) {
  return path.size() > root.size() && path[root.size()] == '/' && absl::StartsWith(path, root) &&
         absl::StartsWith(path.substr(root.size() + 1), word);
}

bool PassesThrough(absl::string_view path, absl::string_view word, size_t from) {
  return path.find(absl::StrCat("/", word, "/"), from) != absl::string_view::npos;
}

std::optional<std::string> Without(absl::string_view path, absl::string_view word) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos || !absl::StartsWith(path.substr(slash + 1), word)) return std::nullopt;
  return std::string(path.substr(0, slash));
}

std::optional<int64_t> IndexAt(absl::string_view text) {
  int64_t index = 0;
  if (absl::SimpleAtoi(text.substr(0, text.find('/')), &index)) return index;
  return std::nullopt;
}

}  // namespace tutti::step_path
