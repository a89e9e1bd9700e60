#include "services/state-manager/adapters/postgres_pool.h"

#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/status/error.h"

namespace tutti::state_manager {
namespace {
// A connection that has rested longer is asked before it is trusted: its server may have gone.
constexpr absl::Duration kTrusted = absl::Seconds(1);
}  // namespace

PostgresPool::PostgresPool(std::string dsn, int size, const PostgresOptions& options, DatabaseMetrics& metrics)
    : dsn_(std::move(dsn)), size_(size), options_(options), metrics_(metrics) {
  metrics_.pool_size += size_;
  watchdog_ = std::thread([this] { Watch(); });
}

PostgresPool::~PostgresPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_watchdog_.NotifyAll();
  watchdog_.join();
  metrics_.pool_size -= size_;
}

absl::StatusOr<PostgresPool::Lease> PostgresPool::Acquire() {
  std::unique_ptr<PostgresSession> session;
  bool rested = false;
  absl::Time start = absl::Now();
  {
    MutexLock lock(mutex_);
    ++metrics_.pool_waiters;
    while (idle_.empty() && open_ >= size_) {
      absl::Duration left = start + options_.pool_wait - absl::Now();
      if (left <= absl::ZeroDuration()) break;
      free_.WaitFor(mutex_, absl::ToChronoNanoseconds(left));
    }
    --metrics_.pool_waiters;
    metrics_.pool_wait_micros += absl::ToInt64Microseconds(absl::Now() - start);
    if (!idle_.empty()) {
      session = std::move(idle_.back().session);
      rested = idle_.back().since < start - kTrusted;
      idle_.pop_back();
      lent_.push_back(session.get());
      ++metrics_.pool_in_use;
    } else if (open_ < size_) {
      ++open_;  // this thread's to open
    } else {
      ++metrics_.pool_timeouts;
      return Error(absl::StatusCode::kResourceExhausted, "POOL_EXHAUSTED",
                   absl::StrCat("all ", size_, " database connections are in use and none came free within ",
                                absl::FormatDuration(options_.pool_wait),
                                "; raise --state-manager.postgres.pool-size, or send less at once"))
          .RetryAfter(absl::Seconds(1));
    }
  }
  if (session && rested) {
    bool alive = session->Ping();  // under the watchdog's eyes, as all that is lent
    MutexLock lock(mutex_);
    if (!alive) {
      std::erase(lent_, session.get());
      --metrics_.pool_in_use;
      --metrics_.pool_open;  // the slot stays this thread's
      session.reset();
    }
  }
  if (session) return Lease(*this, std::move(session));
  auto opened = PostgresSession::Connect(dsn_, options_);
  MutexLock lock(mutex_);
  if (!opened.ok()) {
    --open_;
    ++metrics_.connection_failures;
    free_.NotifyOne();
    return opened.status();
  }
  ++metrics_.pool_open;
  session = *std::move(opened);
  lent_.push_back(session.get());
  ++metrics_.pool_in_use;
  return Lease(*this, std::move(session));
}

void PostgresPool::Return(std::unique_ptr<PostgresSession> session) {
  bool broken = session->broken();
  {
    MutexLock lock(mutex_);
    std::erase(lent_, session.get());
    --metrics_.pool_in_use;
    if (!broken) {
      idle_.push_back({std::move(session), absl::Now()});
    } else {
      --open_;
      --metrics_.pool_open;
      // What else is idle has very likely lost its server too.
      open_ -= static_cast<int>(idle_.size());
      metrics_.pool_open -= static_cast<int64_t>(idle_.size());
      idle_.clear();
      free_.NotifyAll();  // more than one slot has come free
    }
    free_.NotifyOne();
  }
}

void PostgresPool::Watch() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    wake_watchdog_.WaitFor(mutex_, std::chrono::milliseconds(500));
    // The server ends its statements at the timeout; one that does not even do that is left to itself.
    int64_t limit = absl::ToUnixMicros(absl::Now() - options_.statement_timeout - absl::Milliseconds(500));
    for (PostgresSession* session : lent_) {
      int64_t since = session->busy_since();
      if (since != 0 && since < limit && session->socket() >= 0) shutdown(session->socket(), SHUT_RDWR);
    }
  }
}

}  // namespace tutti::state_manager
