// The database's figures as Prometheus metrics, read when they are asked for.
#pragma once

#include <memory>

namespace prometheus {
class Registry;
}

namespace tutti::state_manager {

struct DatabaseMetrics;

// tutti_db_transactions_total, tutti_db_writes_total, tutti_db_pool_connections{state="max|open|in_use"},
// tutti_db_pool_waiters, tutti_db_pool_wait_seconds_total, tutti_db_pool_timeouts_total,
// tutti_db_connection_failures_total, tutti_store_messages_set_aside_total.
class StoreMetrics {
 public:
  // `database` outlives this object, or this object is destroyed first. Refresh copies the figures.
  StoreMetrics(prometheus::Registry& registry, const DatabaseMetrics& database, int shard);
  ~StoreMetrics();
  void Refresh();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti::state_manager
