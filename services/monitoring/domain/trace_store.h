// Recent traces, in memory, bounded: the oldest trace goes when a new one needs its place.
#pragma once

#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/sync/mutex.h"
#include "tutti/monitoring/v1/monitoring_service.pb.h"

namespace tutti::monitoring {

// Thread safe.
class TraceStore {
 public:
  TraceStore(size_t max_traces, size_t max_spans_per_trace)
      : max_traces_(max_traces), max_spans_(max_spans_per_trace) {}
  // False: the trace has as many spans as it may.
  bool Add(const std::string& trace_id, tutti::monitoring::v1::Span span);
  // By start; empty when the trace is not known.
  std::vector<tutti::monitoring::v1::Span> Find(const std::string& trace_id) const;

 private:
  struct Trace {
    std::string id;
    std::vector<tutti::monitoring::v1::Span> spans;
  };
  const size_t max_traces_, max_spans_;
  mutable Mutex mutex_;
  std::list<Trace> traces_ ABSL_GUARDED_BY(mutex_);  // front: newest
  std::unordered_map<std::string, std::list<Trace>::iterator> by_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::monitoring
