#include "runtime/status/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "runtime/text/utf8.h"

namespace tutti {
namespace {

template <class Message>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Message::descriptor()->full_name());
}

template <class Message>
void Attach(absl::Status& status, const Message& detail) {
  status.SetPayload(TypeUrl<Message>(), absl::Cord(detail.SerializeAsString()));
}

// Details travel in HTTP/2 trailers, of which clients take 8 KiB: twenty violations of 200 bytes fit.
std::string Short(const std::string& text) {
  return CleanUtf8(text.size() > 200 ? absl::StrCat(Utf8Prefix(text, 196), "…") : text);
}

template <class Message>
bool Detail(const absl::Status& status, Message& out) {
  auto payload = status.GetPayload(TypeUrl<Message>());
  return payload.has_value() && out.ParseFromString(std::string(*payload));
}

}  // namespace

Error& Error::Metadata(absl::string_view key, absl::string_view value) {
  metadata_[std::string(key)] = std::string(value);
  return *this;
}

Error& Error::Violation(absl::string_view field, absl::string_view description) {
  violations_.push_back({std::string(field), std::string(description)});
  return *this;
}

Error& Error::Violations(std::vector<FieldViolation> violations) {
  violations_ = std::move(violations);
  return *this;
}

Error& Error::Quota(absl::string_view subject, absl::string_view description) {
  quotas_.push_back({std::string(subject), std::string(description)});
  return *this;
}

Error& Error::RetryAfter(absl::Duration delay) {
  retry_after_ = delay;
  return *this;
}

Error::operator absl::Status() const {
  absl::Status status(code_, CleanUtf8(message_));
  google::rpc::ErrorInfo info;
  info.set_reason(reason_);
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata_) (*info.mutable_metadata())[key] = Short(value);
  Attach(status, info);
  if (!violations_.empty()) {
    google::rpc::BadRequest bad;
    for (const auto& violation : violations_) {
      if (bad.ByteSizeLong() > 4096) break;
      auto* out = bad.add_field_violations();
      out->set_field(Short(violation.field));
      out->set_description(Short(violation.description));
    }
    Attach(status, bad);
  }
  if (!quotas_.empty()) {
    google::rpc::QuotaFailure failure;
    for (const auto& quota : quotas_) {
      auto* out = failure.add_violations();
      out->set_subject(Short(quota.field));
      out->set_description(Short(quota.description));
    }
    Attach(status, failure);
  }
  if (retry_after_ > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(retry_after_));
    retry.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(absl::ToInt64Nanoseconds(retry_after_ % absl::Seconds(1))));
    Attach(status, retry);
  }
  return status;
}

absl::Status WithMetadata(const absl::Status& status, absl::string_view key, absl::string_view value) {
  if (status.ok()) return status;
  google::rpc::ErrorInfo info;
  if (!Detail(status, info)) {
    info.set_reason(absl::StatusCodeToString(status.code()));
    info.set_domain(kErrorDomain);
  }
  info.mutable_metadata()->insert({std::string(key), Short(std::string(value))});
  absl::Status out = status;
  Attach(out, info);
  return out;
}

absl::Status SetMetadata(const absl::Status& status, absl::string_view key, absl::string_view value) {
  google::rpc::ErrorInfo info;
  if (status.ok() || !Detail(status, info)) return WithMetadata(status, key, value);
  (*info.mutable_metadata())[std::string(key)] = Short(std::string(value));
  absl::Status out = status;
  Attach(out, info);
  return out;
}

std::string MetadataOf(const absl::Status& status, absl::string_view key) {
  google::rpc::ErrorInfo info;
  if (!Detail(status, info)) return "";
  auto it = info.metadata().find(std::string(key));
  return it == info.metadata().end() ? "" : it->second;
}

std::vector<FieldViolation> ViolationsOf(const absl::Status& status) {
  std::vector<FieldViolation> out;
  google::rpc::BadRequest bad;
  if (Detail(status, bad)) {
    for (const auto& violation : bad.field_violations()) out.push_back({violation.field(), violation.description()});
  }
  return out;
}

absl::Duration RetryDelayOf(const absl::Status& status) {
  google::rpc::RetryInfo retry;
  if (!Detail(status, retry)) return absl::ZeroDuration();
  return absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
}

std::string ReasonOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  return Detail(status, info) ? info.reason() : "";
}

absl::Status Prefix(const absl::Status& status, absl::string_view prefix) {
  absl::Status out(status.code(), absl::StrCat(prefix, status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { out.SetPayload(url, payload); });
  return out;
}

}  // namespace tutti
