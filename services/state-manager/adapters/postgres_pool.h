// A bounded pool of connections. Blocking: used by database threads only.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/sync/mutex.h"
#include "services/state-manager/adapters/database_metrics.h"
#include "services/state-manager/adapters/postgres_session.h"

namespace tutti::state_manager {

class PostgresPool {
 public:
  PostgresPool(std::string dsn, int size, const PostgresOptions& options, DatabaseMetrics& metrics);
  // Everything lent has come back.
  ~PostgresPool();

  class Lease {
   public:
    Lease(PostgresPool& pool, std::unique_ptr<PostgresSession> session) : pool_(&pool), session_(std::move(session)) {}
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&& other) = delete;
    ~Lease() {
      if (session_) pool_->Return(std::move(session_));
    }
    PostgresSession& operator*() const { return *session_; }
    PostgresSession* operator->() const { return session_.get(); }

   private:
    PostgresPool* pool_;
    std::unique_ptr<PostgresSession> session_;
  };

  // RESOURCE_EXHAUSTED with RetryInfo: none came free in time. UNAVAILABLE: no connection can be made.
  absl::StatusOr<Lease> Acquire();

 private:
  struct Idle {
    std::unique_ptr<PostgresSession> session;
    absl::Time since;
  };
  void Return(std::unique_ptr<PostgresSession> session);
  void Watch();

  const std::string dsn_;
  const int size_;
  const PostgresOptions& options_;
  DatabaseMetrics& metrics_;
  Mutex mutex_;
  CondVar free_;
  CondVar wake_watchdog_;
  std::vector<Idle> idle_ ABSL_GUARDED_BY(mutex_);
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<PostgresSession*> lent_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // A server that has stopped to react holds no thread for longer than the statement timeout: its socket is shut.
  std::thread watchdog_;
};

}  // namespace tutti::state_manager
