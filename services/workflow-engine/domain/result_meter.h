// Bounds the bytes of step results that a run, and all runs of a tenant together, keep in memory and in their journals.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace tutti::engine {

// Counts results, also for the meters around it, which keep the count when this one goes. All calls happen on one
// executor.
class ResultMeter {
 public:
  static constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

  // `whose` names what the meter stands for in errors, for example `the run`.
  ResultMeter(std::shared_ptr<ResultMeter> outer, size_t limit, std::string whose)
      : outer_(std::move(outer)), limit_(limit), whose_(std::move(whose)) {}
  ResultMeter(const ResultMeter&) = delete;
  ResultMeter& operator=(const ResultMeter&) = delete;

  // Counts `bytes` without looking at limits: results that are in the journal already.
  void Add(size_t bytes) {
    for (ResultMeter* meter = this; meter; meter = meter->outer_.get()) meter->bytes_ += bytes;
  }
  // Counts `bytes`. FAILED_PRECONDITION with RESULTS_TOO_LARGE, and nothing is counted, when a limit would be passed:
  // the step's call is not worth another try.
  absl::Status Take(size_t bytes);
  size_t bytes() const { return bytes_; }
  // Takes back what was counted here: the run is walked here no longer, or a loop's checkpoint stands for its results.
  void Forget() {
    const size_t bytes = bytes_;
    for (ResultMeter* meter = this; meter; meter = meter->outer_.get()) meter->bytes_ -= bytes;
  }

 private:
  const std::shared_ptr<ResultMeter> outer_;
  const size_t limit_;
  const std::string whose_;
  size_t bytes_ = 0;
};

}  // namespace tutti::engine
