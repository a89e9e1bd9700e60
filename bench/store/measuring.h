// Times and memory, as all of these benchmarks take them.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace tutti::state_manager {

using Steady = std::chrono::steady_clock;
inline double Seconds(Steady::time_point since) { return std::chrono::duration<double>(Steady::now() - since).count(); }

// In milliseconds.
struct Latencies {
  std::vector<double> ms;
  double At(double quantile) {
    if (ms.empty()) return 0;
    std::sort(ms.begin(), ms.end());
    return ms[std::min(ms.size() - 1, static_cast<size_t>(quantile * static_cast<double>(ms.size())))];
  }
};

// Resident memory of this process in MB.
double RssMb();

}  // namespace tutti::state_manager
