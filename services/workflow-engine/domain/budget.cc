#include "services/workflow-engine/domain/budget.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::engine {

Spent SpentBy(const tutti::type::v1::ModelUsage& usage) {
  return {usage.input_tokens() + usage.output_tokens(), usage.cost_nano_units(), 0};
}

Spent SpentBy(const tutti::type::v1::UsageTotals& usage) {
  return {usage.input_tokens() + usage.output_tokens(), usage.cost_nano_units(), usage.calls()};
}

absl::Status Budget::Check() const {
  auto over = [this](const char* what, int64_t used, int64_t limit) -> absl::Status {
    return Error(absl::StatusCode::kResourceExhausted, "BUDGET_EXCEEDED",
                 absl::StrCat(path_.empty() ? "the run" : absl::StrCat("step ", path_), " has used ", used,
                              " of its budget of ", limit, " ", what,
                              "; raise budget in the workflow, or let on_error or fallback do with less"))
        .Metadata("step", path_)
        .Metadata("budget", path_.empty() ? "run" : path_)
        .Quota(path_.empty() ? "run" : path_, what);
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

void Budget::Add(const Spent& spent) {
  spent_.Add(spent);
  if (outer_) outer_->Add(spent);
}

void Budget::Use(const std::vector<tutti::type::v1::ModelUsage>& usage) {
  for (const auto& item : usage) Add(SpentBy(item));
}

void Budget::Use(const tutti::type::v1::UsageTotals& usage) { Add(SpentBy(usage)); }

tutti::workflow::v1::StepBudget Budget::Left() const {
  tutti::workflow::v1::StepBudget left;
  if (limits_.tokens() > 0) left.set_tokens(std::max<int64_t>(1, limits_.tokens() - spent_.tokens));
  if (limits_.calls() > 0) left.set_calls(std::max<int64_t>(1, limits_.calls() - spent_.calls));
  if (limits_.cost_nano_units() > 0) {
    left.set_cost_nano_units(std::max<int64_t>(1, limits_.cost_nano_units() - spent_.cost_nano_units));
  }
  if (outer_) Tighten(outer_->Left(), &left);
  return left;
}

void Tighten(const tutti::workflow::v1::StepBudget& other, tutti::workflow::v1::StepBudget* budget) {
  auto lower = [](int64_t a, int64_t b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); };
  budget->set_tokens(lower(budget->tokens(), other.tokens()));
  budget->set_calls(lower(budget->calls(), other.calls()));
  budget->set_cost_nano_units(lower(budget->cost_nano_units(), other.cost_nano_units()));
}

}  // namespace tutti::engine
