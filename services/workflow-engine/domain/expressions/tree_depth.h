// Bounds the depth of syntax trees without recursion: deep trees would take the stack of whoever walks them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/workflow-engine/domain/expressions/syntax.h"

namespace tutti::engine::expressions {

// Returns `tree`, which stands for `text`; INVALID_ARGUMENT with line and column when it is deeper than
// `kMaxTreeDepth`.
absl::StatusOr<AstPtr> WithBoundedDepth(const std::string& text, absl::StatusOr<AstPtr> tree);

}  // namespace tutti::engine::expressions
