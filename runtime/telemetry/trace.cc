#include "runtime/telemetry/trace.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace tutti {
namespace {

bool ParseHex(absl::string_view text, uint64_t* out) {
  uint64_t value = 0;
  for (char c : text) {
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    value = value << 4 | static_cast<uint64_t>(digit);
  }
  *out = value;
  return true;
}

}  // namespace

std::string TraceContext::ToTraceparent() const {
  if (!valid()) return "";
  return absl::StrFormat("00-%016x%016x-%016x-%02x", trace_high, trace_low, span, sampled ? 1 : 0);
}

std::string TraceContext::TraceIdHex() const {
  return valid() ? absl::StrFormat("%016x%016x", trace_high, trace_low) : "";
}

TraceContext TraceContext::FromTraceparent(absl::string_view text) {
  TraceContext out;
  // Later versions may append fields; the first four keep their meaning.
  if (text.size() < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-' || text.substr(0, 2) == "ff") return {};
  uint64_t flags = 0, version = 0;
  if (!ParseHex(text.substr(0, 2), &version) || !ParseHex(text.substr(3, 16), &out.trace_high) ||
      !ParseHex(text.substr(19, 16), &out.trace_low) || !ParseHex(text.substr(36, 16), &out.span) ||
      !ParseHex(text.substr(53, 2), &flags) || (version == 0 && text.size() != 55)) {
    return {};
  }
  out.sampled = flags & 1;
  return out.valid() ? out : TraceContext{};
}

Span& Span::operator=(Span&& other) noexcept {
  if (this != &other) {
    End();
    tracer_ = std::exchange(other.tracer_, nullptr);
    data_ = std::move(other.data_);
  }
  return *this;
}

void Span::Set(absl::string_view key, absl::string_view value) {
  if (tracer_) data_.attributes.emplace_back(std::string(key), std::string(value));
}

void Span::SetStatus(const absl::Status& status) {
  if (!tracer_ || status.ok()) return;
  data_.error = std::string(status.message());
  if (data_.error.empty()) data_.error = absl::StatusCodeToString(status.code());
  Set("error.type", absl::StatusCodeToString(status.code()));
}

void Span::End() {
  if (!tracer_) return;
  data_.end = tracer_->clock_.Now();
  std::exchange(tracer_, nullptr)->sink_->Take(std::move(data_));
}

bool TraceBudget::Take() {
  if (per_second_ <= 0) return true;
  absl::Time now = clock_.Now();
  MutexLock lock(mutex_);
  if (filled_ != absl::InfinitePast()) {
    double more = per_second_ * absl::ToDoubleSeconds(now - filled_);
    left_ = std::min(2 * per_second_, left_ + std::max(0.0, more));
  }
  filled_ = now;
  if (left_ < 1) return false;
  left_ -= 1;
  return true;
}

Span Tracer::Start(absl::string_view name, SpanKind kind, const TraceContext& parent) {
  Span span;
  span.data_.context = parent;
  if (!parent.valid()) {
    span.data_.context.trace_high = rng_.Next() | 1;
    span.data_.context.trace_low = rng_.Next() | 1;
    span.data_.context.sampled = rng_.Unit() < sample_ratio_ && (!budget_ || budget_->Take());
  } else {
    span.data_.parent_span = parent.span;
  }
  span.data_.context.span = rng_.Next() | 1;
  if (sink_ && span.data_.context.sampled) {
    span.tracer_ = this;
    span.data_.kind = kind;
    span.data_.service = service_;
    span.data_.name = std::string(name);
    span.data_.start = clock_.Now();
  }
  return span;
}

}  // namespace tutti
