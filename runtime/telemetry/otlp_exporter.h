// Sends spans by OTLP/gRPC, in batches, from a bounded queue. OpenTelemetry's C++ SDK is not packaged for Debian 12.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/async/scope.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/telemetry/trace.h"

namespace tutti {

class LocalMethods;

class OtlpExporter final : public SpanSink {
 public:
  // The defaults of the batch span processor (OTEL_BSP_*), but a second's delay instead of five.
  struct Options {
    size_t max_queue = 2048;
    size_t max_batch = 512;
    absl::Duration delay = absl::Seconds(1);
    absl::Duration timeout = absl::Seconds(10);
    std::string instance;  // service.instance.id
  };
  OtlpExporter(Options options, Executor& executor, TimerService& timers, const Clock& clock, Rng& rng);
  ~OtlpExporter() override;

  // Spans wait in the queue until there is a collector: another process, or, without a channel to one, this process's.
  // Once; `local` outlives FlushAndStop.
  void Connect(const LocalMethods& local, RpcPeer collector);
  // A full queue drops the newest, and counts it.
  void Take(SpanData span) override;
  // Sends what is queued, then stops. Blocks for two seconds at most, then what is left is dropped.
  void FlushAndStop();
  int64_t dropped() const;

 private:
  Task<void> Loop();
  Task<void> SendOnce(std::deque<SpanData> batch);
  std::deque<SpanData> NextBatch();

  const Options options_;
  Executor& executor_;
  TimerService& timers_;
  Tracer untraced_;  // exporting is not itself traced
  const LocalMethods* local_ = nullptr;
  RpcPeer collector_;
  std::stop_source stop_;     // flush and end
  std::stop_source give_up_;  // end
  mutable Mutex mutex_;
  std::deque<SpanData> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  Scope scope_;
};

}  // namespace tutti
