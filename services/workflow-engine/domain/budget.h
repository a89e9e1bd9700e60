// What a step may consume, and what it has consumed: its own bounds and those of the steps around it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tutti/type/v1/usage.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// What was consumed.
struct Spent {
  int64_t tokens = 0, cost_nano_units = 0;
  int64_t calls = 0;  // of agents, tools and HTTP APIs, whatever came of them
  void Add(const Spent& other) {
    tokens += other.tokens;
    cost_nano_units += other.cost_nano_units;
    calls += other.calls;
  }
};

Spent SpentBy(const tutti::type::v1::UsageTotals& usage);
Spent SpentBy(const tutti::type::v1::ModelUsage& usage);
// The lower of each bound that both have, and the bounds that one has.
void Tighten(const tutti::workflow::v1::StepBudget& other, tutti::workflow::v1::StepBudget* budget);

class Budget {
 public:
  // `spent`: what the step, and what is inside it, has consumed before, as the history says (History::SpentBelow); the
  // budgets around it know that already. An empty path is the run itself.
  Budget(const tutti::workflow::v1::StepBudget& limits, std::string path, std::shared_ptr<Budget> outer, Spent spent)
      : limits_(limits), path_(std::move(path)), outer_(std::move(outer)), spent_(spent) {}

  // RESOURCE_EXHAUSTED, BUDGET_EXCEEDED: another call would go beyond a bound, here or around.
  absl::Status Check() const;
  // A call begins: counted here and around.
  void Call();
  void Use(const std::vector<tutti::type::v1::ModelUsage>& usage);
  // By a run that was started.
  void Use(const tutti::type::v1::UsageTotals& usage);
  // What is left here and around, as the bounds of a run that is started now. Only after Check was OK.
  tutti::workflow::v1::StepBudget Left() const;
  const Spent& spent() const { return spent_; }

 private:
  void Add(const Spent& spent);

  const tutti::workflow::v1::StepBudget& limits_;
  const std::string path_;
  const std::shared_ptr<Budget> outer_;
  Spent spent_;
};

}  // namespace tutti::engine
