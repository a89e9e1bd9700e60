// rpc_server_call_duration_seconds{rpc_method, rpc_status_code}: OpenTelemetry's rpc.server.call.duration in
// Prometheus' form.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/sync/mutex.h"

namespace prometheus {
class Registry;
class Histogram;
template <class T>
class Family;
}  // namespace prometheus

namespace tutti {

// Thread safe. Methods are the registered ones, so the label set is bounded.
class RpcMetrics {
 public:
  explicit RpcMetrics(prometheus::Registry& registry);
  void Record(const std::string& method, absl::StatusCode code, absl::Duration duration);

 private:
  prometheus::Family<prometheus::Histogram>& family_;
  Mutex mutex_;
  std::map<std::pair<std::string, int>, prometheus::Histogram*> series_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti
