// Tells health checks whether the services of this process can do their work now.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "runtime/async/one_shot.h"
#include "runtime/sync/mutex.h"

namespace tutti {

// Holds one service's readiness, at first OK. Thread-safe.
class Readiness {
 public:
  // Replaces the readiness. An error says why the service cannot do its work.
  void Set(absl::Status status) {
    std::vector<std::shared_ptr<OneShot<bool>>> waiting;
    {
      MutexLock lock(mutex_);
      if (status == status_) return;
      status_ = std::move(status);
      waiting.swap(waiting_);
    }
    for (const auto& waiter : waiting) waiter->Set(true);
  }
  absl::Status Get() const {
    MutexLock lock(mutex_);
    return status_;
  }
  // Sets `changed` at the next change.
  void Await(const std::shared_ptr<OneShot<bool>>& changed) {
    MutexLock lock(mutex_);
    std::erase_if(waiting_, [](const auto& waiter) { return waiter.use_count() == 1; });
    waiting_.push_back(changed);
  }

 private:
  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<OneShot<bool>>> waiting_ ABSL_GUARDED_BY(mutex_);
};

// Maps service names to their readiness. Thread-safe.
class ReadinessBoard {
 public:
  Readiness& Of(const std::string& service) {
    MutexLock lock(mutex_);
    auto& entry = services_[service];
    if (!entry) entry = std::make_unique<Readiness>();
    return *entry;
  }

 private:
  Mutex mutex_;
  std::map<std::string, std::unique_ptr<Readiness>> services_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti
