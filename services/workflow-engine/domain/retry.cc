#include "services/workflow-engine/domain/retry.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/journal/step_path.h"
#include "runtime/status/error.h"
#include "runtime/time/proto_time.h"

namespace tutti::engine {

bool RetryDecision::ShouldRetry(const absl::Status& error, const std::string& path, int attempt) const {
  const auto& retry = step_.retry();
  if (attempt >= std::max(1, retry.max_attempts())) return false;
  // What is spent of a budget that this step stands in does not come back; one inside begins anew with the attempt.
  if (ReasonOf(error) == "BUDGET_EXCEEDED") {
    const std::string budget = MetadataOf(error, "budget");
    const bool around = budget == "run" || step_path::IsAtOrBelow(path, budget);
    if (around) return false;
  }
  if (retry.retryable_codes().empty()) {
    switch (error.code()) {
      case absl::StatusCode::kUnavailable:
      case absl::StatusCode::kDeadlineExceeded:
      case absl::StatusCode::kResourceExhausted:
      case absl::StatusCode::kAborted:
      case absl::StatusCode::kInternal:
        return true;
      default:
        return false;
    }
  }
  const auto& codes = retry.retryable_codes();
  return std::find(codes.begin(), codes.end(), absl::StatusCodeToString(error.code())) != codes.end();
}

absl::Duration RetryDecision::Backoff(const absl::Status& error, int attempt) const {
  const auto& retry = step_.retry();
  absl::Duration initial = retry.has_initial_backoff() ? FromProto(retry.initial_backoff()) : absl::Seconds(1);
  absl::Duration most = retry.has_max_backoff() ? FromProto(retry.max_backoff()) : absl::Seconds(60);
  double multiplier = retry.backoff_multiplier() == 0 ? 2 : retry.backoff_multiplier();
  absl::Duration wait = std::min(most, initial * std::pow(multiplier, std::min(attempt - 1, 60)));
  return std::max(wait * (0.8 + 0.4 * rng_.Unit()), std::min(RetryDelayOf(error), most));
}

}  // namespace tutti::engine
