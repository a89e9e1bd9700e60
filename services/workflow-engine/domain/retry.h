// When a failed attempt is worth another, and after how long.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/random/random.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

class RetryDecision {
 public:
  RetryDecision(const tutti::workflow::v1::Step& step, Rng& rng) : step_(step), rng_(rng) {}
  // Whether the step at `path` is tried again after its `attempt`-th failure.
  bool ShouldRetry(const absl::Status& error, const std::string& path, int attempt) const;
  // min(initial × multiplier^(attempt-1), max) × [0.8, 1.2), as gRFC A6; never less than the error's own RetryInfo
  // asks, up to max.
  absl::Duration Backoff(const absl::Status& error, int attempt) const;

 private:
  const tutti::workflow::v1::Step& step_;
  Rng& rng_;
};

}  // namespace tutti::engine
