#include "services/workflow-engine/domain/budget.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::engine {

absl::Status Budget::Check() const {
  auto over = [this](const char* what, int64_t used, int64_t limit) -> absl::Status {
    return Error(absl::StatusCode::kResourceExhausted, "BUDGET_EXCEEDED",
                 absl::StrCat("step ", path_, " has used ", used, " of its budget of ", limit, " ", what,
                              "; raise budget in the workflow, or let on_error or fallback do with less"))
        .Metadata("step", path_)
        .Quota(path_, what);
  };
  if (limits_.calls() > 0 && spent_.calls >= limits_.calls()) return over("calls", spent_.calls, limits_.calls());
  if (limits_.tokens() > 0 && spent_.tokens >= limits_.tokens()) return over("tokens", spent_.tokens, limits_.tokens());
  if (limits_.cost_nano_units() > 0 && spent_.cost_nano_units >= limits_.cost_nano_units()) {
    return over("nano-units", spent_.cost_nano_units, limits_.cost_nano_units());
  }
  return outer_ ? outer_->Check() : absl::OkStatus();
}

void Budget::Call() {
  ++spent_.calls;
  if (outer_) outer_->Call();
}

void Budget::Use(const std::vector<tutti::type::v1::ModelUsage>& usage) {
  for (const auto& item : usage) {
    spent_.tokens += item.input_tokens() + item.output_tokens();
    spent_.cost_nano_units += item.cost_nano_units();
  }
  if (outer_) outer_->Use(usage);
}

}  // namespace tutti::engine
