#include "services/state-manager/store_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include "services/state-manager/adapters/database_metrics.h"

namespace tutti::state_manager {

struct StoreMetrics::Impl {
  Impl(prometheus::Registry& registry, const DatabaseMetrics& metrics, int shard) : database(metrics) {
    const std::string number = std::to_string(shard);
    auto counter = [&](const char* name, const char* help) -> prometheus::Counter& {
      return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({{"shard", number}});
    };
    transactions = &counter("tutti_db_transactions_total", "Transactions with writes, of which each is one commit.");
    writes = &counter("tutti_db_writes_total", "Writes that were committed in transactions, together.");
    set_aside = &counter("tutti_store_messages_set_aside_total", "Messages that were refused too often.");
    wait = &counter("tutti_db_pool_wait_seconds_total", "Time spent waiting for a connection.");
    timeouts = &counter("tutti_db_pool_timeouts_total", "Waits for a connection that were given up.");
    failures = &counter("tutti_db_connection_failures_total", "Connections that could not be made.");
    auto& pool =
        prometheus::BuildGauge().Name("tutti_db_pool_connections").Help("Connections of the pool.").Register(registry);
    max = &pool.Add({{"state", "max"}, {"shard", number}});
    open = &pool.Add({{"state", "open"}, {"shard", number}});
    in_use = &pool.Add({{"state", "in_use"}, {"shard", number}});
    waiters = &prometheus::BuildGauge()
                   .Name("tutti_db_pool_waiters")
                   .Help("Calls waiting for a connection.")
                   .Register(registry)
                   .Add({{"shard", number}});
  }
  static void Raise(prometheus::Counter& counter, double total) {
    if (double more = total - counter.Value(); more > 0) counter.Increment(more);
  }

  const DatabaseMetrics& database;
  prometheus::Counter *transactions, *writes, *set_aside, *wait, *timeouts, *failures;
  prometheus::Gauge *max, *open, *in_use, *waiters;
};

StoreMetrics::StoreMetrics(prometheus::Registry& registry, const DatabaseMetrics& database, int shard)
    : impl_(std::make_unique<Impl>(registry, database, shard)) {}
StoreMetrics::~StoreMetrics() = default;

void StoreMetrics::Refresh() {
  const DatabaseMetrics& from = impl_->database;
  Impl::Raise(*impl_->transactions, static_cast<double>(from.transactions));
  Impl::Raise(*impl_->writes, static_cast<double>(from.writes));
  Impl::Raise(*impl_->set_aside, static_cast<double>(from.messages_set_aside));
  Impl::Raise(*impl_->wait, static_cast<double>(from.pool_wait_micros) / 1e6);
  Impl::Raise(*impl_->timeouts, static_cast<double>(from.pool_timeouts));
  Impl::Raise(*impl_->failures, static_cast<double>(from.connection_failures));
  impl_->max->Set(static_cast<double>(from.pool_size));
  impl_->open->Set(static_cast<double>(from.pool_open));
  impl_->in_use->Set(static_cast<double>(from.pool_in_use));
  impl_->waiters->Set(static_cast<double>(from.pool_waiters));
}

}  // namespace tutti::state_manager
