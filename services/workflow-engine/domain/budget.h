// What a step may consume, and what it has consumed: its own bounds and those of the steps around it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tutti/type/v1/usage.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

class Budget {
 public:
  Budget(const tutti::workflow::v1::StepBudget& limits, std::string path, std::shared_ptr<Budget> outer)
      : limits_(limits), path_(std::move(path)), outer_(std::move(outer)) {}

  // RESOURCE_EXHAUSTED, BUDGET_EXCEEDED: another call would go beyond a bound, here or around.
  absl::Status Check() const;
  // A call begins: counted here and around.
  void Call();
  void Use(const std::vector<tutti::type::v1::ModelUsage>& usage);

 private:
  const tutti::workflow::v1::StepBudget& limits_;
  const std::string path_;
  const std::shared_ptr<Budget> outer_;
  int64_t tokens_ = 0, cost_nano_units_ = 0, calls_ = 0;
};

}  // namespace tutti::engine
