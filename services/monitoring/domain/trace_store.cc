#include "services/monitoring/domain/trace_store.h"

#include <algorithm>

namespace tutti::monitoring {

bool TraceStore::Add(const std::string& trace_id, tutti::monitoring::v1::Span span) {
  MutexLock lock(mutex_);
  auto it = by_id_.find(trace_id);
  if (it == by_id_.end()) {
    if (traces_.size() >= max_traces_) {
      by_id_.erase(traces_.back().id);
      traces_.pop_back();
    }
    traces_.push_front({trace_id, {}});
    it = by_id_.emplace(trace_id, traces_.begin()).first;
  }
  if (it->second->spans.size() >= max_spans_) return false;
  it->second->spans.push_back(std::move(span));
  return true;
}

std::vector<tutti::monitoring::v1::Span> TraceStore::Find(const std::string& trace_id) const {
  std::vector<tutti::monitoring::v1::Span> out;
  {
    MutexLock lock(mutex_);
    auto it = by_id_.find(trace_id);
    if (it == by_id_.end()) return out;
    out = it->second->spans;
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return std::make_pair(a.start_time().seconds(), a.start_time().nanos()) <
           std::make_pair(b.start_time().seconds(), b.start_time().nanos());
  });
  return out;
}

}  // namespace tutti::monitoring
