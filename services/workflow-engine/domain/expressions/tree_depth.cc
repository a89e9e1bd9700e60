#include "services/workflow-engine/domain/expressions/tree_depth.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tutti::engine::expressions {
namespace {

// Calls `visit` for the keys of a pattern, which are programs.
template <class Visit>
void VisitKeys(Pattern& pattern, Visit visit) {
  for (Pattern& item : pattern.items) VisitKeys(item, visit);
  for (Pattern::Member& member : pattern.members) {
    visit(member.key);
    if (member.value) VisitKeys(*member.value, visit);
  }
}

// Calls `visit` for all programs that a node consists of.
template <class Visit>
void VisitParts(Ast& ast, Visit visit) {
  for (AstPtr& item : ast.items) visit(item);
  for (Pattern& pattern : ast.patterns) VisitKeys(pattern, visit);
  if (ast.definition) visit(ast.definition->body);
}

// Returns the position of a part that stands deeper than `kMaxTreeDepth`; null when none does.
std::optional<uint32_t> FindTooDeep(const AstPtr& root) {
  std::vector<std::pair<Ast*, int>> left = {{root.get(), 1}};
  while (!left.empty()) {
    const auto [ast, depth] = left.back();
    left.pop_back();
    if (depth > kMaxTreeDepth) return ast->position;
    VisitParts(*ast, [&left, depth = depth](AstPtr& part) {
      if (part) left.emplace_back(part.get(), depth + 1);
    });
  }
  return std::nullopt;
}

// Destroys a tree of any depth.
void Dismantle(AstPtr root) {
  std::vector<AstPtr> left;
  left.push_back(std::move(root));
  while (!left.empty()) {
    AstPtr ast = std::move(left.back());
    left.pop_back();
    VisitParts(*ast, [&left](AstPtr& part) {
      if (part) left.push_back(std::move(part));
    });
  }
}

}  // namespace

absl::StatusOr<AstPtr> WithBoundedDepth(const std::string& text, absl::StatusOr<AstPtr> tree) {
  if (!tree.ok()) return tree;
  const std::optional<uint32_t> too_deep = FindTooDeep(*tree);
  if (!too_deep) return tree;
  Dismantle(*std::move(tree));
  return absl::InvalidArgumentError(absl::StrCat("at ", DescribePosition(text, *too_deep), ": more than ",
                                                 kMaxTreeDepth,
                                                 " operators stand one inside another; name parts with `as`"));
}

}  // namespace tutti::engine::expressions
