// Bounds the attempts at work that fails again and again (docs/adr/0023): each attempt comes later than the one before;
// after the last one the work is set aside until somebody has it tried again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace tutti::state_manager {

inline constexpr int64_t kMostAttempts = 10;

// Returns the pause after `attempts` failures, 1 s to 5 min; nullopt when the work is set aside.
inline std::optional<absl::Duration> PauseAfter(int64_t attempts) {
  if (attempts >= kMostAttempts) return std::nullopt;
  const int64_t doublings = std::clamp<int64_t>(attempts - 1, 0, 9);
  return std::min(absl::Seconds(int64_t{1} << doublings), absl::Minutes(5));
}

}  // namespace tutti::state_manager
