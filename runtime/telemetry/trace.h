// Traces: W3C context and spans. A span goes to a SpanSink when it ends.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "runtime/random/random.h"
#include "runtime/sync/mutex.h"
#include "runtime/time/clock.h"

namespace tutti {

// https://www.w3.org/TR/trace-context/, version 00.
struct TraceContext {
  uint64_t trace_high = 0, trace_low = 0, span = 0;
  bool sampled = false;

  bool valid() const { return (trace_high | trace_low) != 0 && span != 0; }
  // `00-<32 hex>-<16 hex>-<2 hex>`; empty when not valid.
  std::string ToTraceparent() const;
  std::string TraceIdHex() const;
  // An invalid context for text that is none.
  static TraceContext FromTraceparent(absl::string_view text);
};

enum class SpanKind { kInternal = 1, kServer = 2, kClient = 3 };

struct SpanData {
  TraceContext context;
  uint64_t parent_span = 0;
  SpanKind kind = SpanKind::kInternal;
  std::string service;
  std::string name;
  absl::Time start, end;
  std::string error;  // empty: no error
  std::vector<std::pair<std::string, std::string>> attributes;
};

// Takes ended spans. Never blocks; may drop. Thread safe.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void Take(SpanData span) = 0;
};

// How many new traces are recorded: so many a second on the average, twice as many at once. Thread safe.
class TraceBudget {
 public:
  // 0 is unbounded.
  TraceBudget(const Clock& clock, double per_second) : clock_(clock), per_second_(per_second), left_(2 * per_second) {}
  bool Take();

 private:
  const Clock& clock_;
  const double per_second_;
  Mutex mutex_;
  double left_ ABSL_GUARDED_BY(mutex_);
  absl::Time filled_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

class Tracer;

// A running operation. Ends when End is called or when it goes.
class Span {
 public:
  Span() = default;
  Span(Span&& other) noexcept : tracer_(std::exchange(other.tracer_, nullptr)), data_(std::move(other.data_)) {}
  Span& operator=(Span&& other) noexcept;
  ~Span() { End(); }
  const TraceContext& context() const { return data_.context; }
  void Set(absl::string_view key, absl::string_view value);
  void SetStatus(const absl::Status& status);
  void End();

 private:
  friend class Tracer;
  Tracer* tracer_ = nullptr;  // null: not recorded
  SpanData data_;
};

// Makes spans for one service. Thread safe. Must outlive its spans.
class Tracer {
 public:
  // `sink` may be null: contexts still travel, nothing is recorded.
  // Of new traces the share of `sample_ratio` is recorded, as far as `budget` allows; null: without a bound.
  Tracer(std::string service, const Clock& clock, Rng& rng, SpanSink* sink, double sample_ratio,
         TraceBudget* budget = nullptr)
      : service_(std::move(service)),
        clock_(clock),
        rng_(rng),
        sink_(sink),
        sample_ratio_(sample_ratio),
        budget_(budget) {}
  // A child of `parent`, or a new trace when `parent` is not valid.
  Span Start(absl::string_view name, SpanKind kind, const TraceContext& parent);
  const std::string& service() const { return service_; }

 private:
  friend class Span;
  const std::string service_;
  const Clock& clock_;
  Rng& rng_;
  SpanSink* const sink_;
  const double sample_ratio_;
  TraceBudget* const budget_;
};

}  // namespace tutti
