#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/rpc/client_calls.h"
#include "services/monitoring/rpc/services.h"

namespace tutti::monitoring {
namespace {

namespace common = opentelemetry::proto::common::v1;

std::string ToText(const common::AnyValue& value) {
  switch (value.value_case()) {
    case common::AnyValue::kStringValue:
      return value.string_value();
    case common::AnyValue::kBoolValue:
      return value.bool_value() ? "true" : "false";
    case common::AnyValue::kIntValue:
      return absl::StrCat(value.int_value());
    case common::AnyValue::kDoubleValue:
      return absl::StrCat(value.double_value());
    default:
      return value.ShortDebugString();
  }
}

v1::Span ToSpan(const opentelemetry::proto::trace::v1::Span& in, const std::string& service) {
  v1::Span out;
  out.set_span_id(absl::BytesToHexString(in.span_id()));
  out.set_parent_span_id(absl::BytesToHexString(in.parent_span_id()));
  out.set_service(service);
  out.set_name(in.name());
  std::string kind = opentelemetry::proto::trace::v1::Span::SpanKind_Name(in.kind());
  out.set_kind(kind.substr(kind.rfind('_') + 1));
  out.mutable_start_time()->set_seconds(static_cast<int64_t>(in.start_time_unix_nano() / 1000000000));
  out.mutable_start_time()->set_nanos(static_cast<int32_t>(in.start_time_unix_nano() % 1000000000));
  uint64_t nanos =
      in.end_time_unix_nano() > in.start_time_unix_nano() ? in.end_time_unix_nano() - in.start_time_unix_nano() : 0;
  out.mutable_duration()->set_seconds(static_cast<int64_t>(nanos / 1000000000));
  out.mutable_duration()->set_nanos(static_cast<int32_t>(nanos % 1000000000));
  if (in.status().code() == opentelemetry::proto::trace::v1::Status::STATUS_CODE_ERROR) {
    out.set_error(in.status().message().empty() ? "error" : in.status().message());
  }
  for (const auto& attribute : in.attributes())
    (*out.mutable_attributes())[attribute.key()] = ToText(attribute.value());
  return out;
}

}  // namespace

Task<absl::Status> TraceRpc::HandleExport(CallContext& call, const otlp::ExportTraceServiceRequest& request,
                                          otlp::ExportTraceServiceResponse& response) {
  int64_t rejected = 0;
  for (const auto& resource : request.resource_spans()) {
    std::string service;
    for (const auto& attribute : resource.resource().attributes()) {
      if (attribute.key() == "service.name") service = ToText(attribute.value());
    }
    for (const auto& scope : resource.scope_spans()) {
      for (const auto& span : scope.spans()) {
        bool valid = span.trace_id().size() == 16 && span.span_id().size() == 8;
        if (!valid || !traces_.Add(absl::BytesToHexString(span.trace_id()), ToSpan(span, service))) ++rejected;
      }
    }
  }
  if (rejected > 0) {
    response.mutable_partial_success()->set_rejected_spans(rejected);
    response.mutable_partial_success()->set_error_message(
        "ids of a wrong length, or more spans than a trace may have here");
  }
  if (forward_) {
    // The backend's trouble is not the sender's: what it does not take is lost to it, and kept here.
    otlp::ExportTraceServiceResponse ignored;
    std::string method = kExport;
    absl::Status status = co_await CallUnary(call, forward_, std::move(method), request, ignored, absl::Seconds(5));
    (void)status;
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::monitoring
