#include "runtime/telemetry/otlp_exporter.h"

#include <map>

#include "opentelemetry/proto/collector/trace/v1/trace_service.pb.h"
#include "runtime/async/sleep.h"
#include "runtime/rpc/local_methods.h"

namespace tutti {
namespace {

namespace otlp = opentelemetry::proto;

std::string BigEndian(std::initializer_list<uint64_t> words) {
  std::string out;
  for (uint64_t word : words) {
    for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(word >> shift));
  }
  return out;
}

void AddAttribute(google::protobuf::RepeatedPtrField<otlp::common::v1::KeyValue>* to, const std::string& key,
                  const std::string& value) {
  auto* attribute = to->Add();
  attribute->set_key(key);
  attribute->mutable_value()->set_string_value(value);
}

void ToProto(const SpanData& span, otlp::trace::v1::Span* out) {
  out->set_trace_id(BigEndian({span.context.trace_high, span.context.trace_low}));
  out->set_span_id(BigEndian({span.context.span}));
  if (span.parent_span != 0) out->set_parent_span_id(BigEndian({span.parent_span}));
  out->set_name(span.name);
  out->set_kind(static_cast<otlp::trace::v1::Span::SpanKind>(span.kind));
  out->set_start_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(span.start)));
  out->set_end_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(span.end)));
  for (const auto& [key, value] : span.attributes) AddAttribute(out->mutable_attributes(), key, value);
  if (!span.error.empty()) {
    out->mutable_status()->set_code(otlp::trace::v1::Status::STATUS_CODE_ERROR);
    out->mutable_status()->set_message(span.error);
  }
}

}  // namespace

OtlpExporter::OtlpExporter(Options options, Executor& executor, TimerService& timers, const Clock& clock, Rng& rng)
    : options_(std::move(options)), executor_(executor), timers_(timers), untraced_("otlp", clock, rng, nullptr, 0) {}

OtlpExporter::~OtlpExporter() { FlushAndStop(); }

void OtlpExporter::Connect(const LocalMethods& local, RpcPeer collector) {
  local_ = &local;
  collector_ = std::move(collector);
  scope_.Spawn(executor_, Loop());
}

void OtlpExporter::Take(SpanData span) {
  MutexLock lock(mutex_);
  if (queue_.size() >= options_.max_queue) {
    ++dropped_;
    return;
  }
  queue_.push_back(std::move(span));
}

int64_t OtlpExporter::dropped() const {
  MutexLock lock(mutex_);
  return dropped_;
}

void OtlpExporter::FlushAndStop() {
  stop_.request_stop();
  if (scope_.CloseAndWaitFor(std::chrono::seconds(2))) return;
  give_up_.request_stop();  // nobody takes them
  scope_.CloseAndWait();
}

std::deque<SpanData> OtlpExporter::NextBatch() {
  MutexLock lock(mutex_);
  std::deque<SpanData> batch;
  while (!queue_.empty() && batch.size() < options_.max_batch) {
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

Task<void> OtlpExporter::Loop() {
  for (;;) {
    bool more = co_await Sleep(timers_, executor_, options_.delay, stop_.get_token());
    for (;;) {
      std::deque<SpanData> batch = NextBatch();
      if (batch.empty() || give_up_.stop_requested()) break;
      co_await SendOnce(std::move(batch));
    }
    if (!more) co_return;
  }
}

Task<void> OtlpExporter::SendOnce(std::deque<SpanData> batch) {
  otlp::collector::trace::v1::ExportTraceServiceRequest request;
  std::map<std::string, otlp::trace::v1::ScopeSpans*> by_service;
  for (const auto& span : batch) {
    auto*& scope = by_service[span.service];
    if (!scope) {
      auto* resource_spans = request.add_resource_spans();
      auto* attributes = resource_spans->mutable_resource()->mutable_attributes();
      AddAttribute(attributes, "service.name", span.service);
      AddAttribute(attributes, "service.namespace", "tutti");
      AddAttribute(attributes, "service.instance.id", options_.instance);
      AddAttribute(attributes, "telemetry.sdk.language", "cpp");
      AddAttribute(attributes, "telemetry.sdk.name", "tutti");
      scope = resource_spans->add_scope_spans();
      scope->mutable_scope()->set_name("tutti");
    }
    ToProto(span, scope->add_spans());
  }
  // UNAVAILABLE is retried by the channel; a batch that still fails is dropped: telemetry must not pile up.
  otlp::collector::trace::v1::ExportTraceServiceResponse response;
  CallContext call(executor_, untraced_);
  call.stop = give_up_.get_token();
  // Not traced by who receives it either: in one process its span would have to be exported in turn.
  call.trace = TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};
  const std::string method = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
  absl::Status status;
  if (collector_) {
    status = co_await CallUnary(call, collector_, method, request, response, options_.timeout);
  } else {
    status =
        co_await CallUnary(*local_, call, collector_, method.c_str(), std::move(request), response, options_.timeout);
  }
  if (!status.ok()) {
    MutexLock lock(mutex_);
    dropped_ += static_cast<int64_t>(batch.size());
  }
}

}  // namespace tutti
