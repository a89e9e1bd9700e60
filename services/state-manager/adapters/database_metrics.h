// What a database's adapter tells of itself; the module turns it into metrics, tests read it as it is.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/time/time.h"

namespace tutti::state_manager {

// Thread safe. Counters are totals since the start.
struct DatabaseMetrics {
  std::atomic<int64_t> transactions{0}, writes{0};
  std::atomic<int64_t> messages_set_aside{0};
  std::atomic<int64_t> pool_size{0}, pool_open{0}, pool_in_use{0}, pool_waiters{0};
  std::atomic<int64_t> pool_wait_micros{0}, pool_timeouts{0}, connection_failures{0};

  void ObserveBatch(size_t size) {
    transactions.fetch_add(1, std::memory_order_relaxed);
    writes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
  }
};

}  // namespace tutti::state_manager
