#include "runtime/status/mapping.h"

#include "absl/strings/cord.h"
#include "google/rpc/status.pb.h"

namespace tutti {

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  std::string message(status.message());
  if (message.size() > kMaxPublicMessageBytes) {
    size_t end = kMaxPublicMessageBytes;
    while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;  // not inside a character
    message.resize(end);
    message += "…";
  }
  out.set_message(message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    auto* any = out.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(payload));
  });
  return out;
}

absl::Status FromRpcStatus(const google::rpc::Status& in) {
  absl::Status status(static_cast<absl::StatusCode>(in.code()), in.message());
  for (const auto& any : in.details()) status.SetPayload(any.type_url(), absl::Cord(any.value()));
  return status;
}

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDataLoss:
    default:
      return 500;
  }
}

absl::StatusCode CodeFromHttp(int http_status) {
  switch (http_status) {
    case 400:
      return absl::StatusCode::kInvalidArgument;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 408:
      return absl::StatusCode::kDeadlineExceeded;
    case 409:
      return absl::StatusCode::kAborted;
    case 413:
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 501:
      return absl::StatusCode::kUnimplemented;
    case 500:
      return absl::StatusCode::kInternal;
    case 502:
    case 503:
    case 529:
      return absl::StatusCode::kUnavailable;  // 529: Anthropic's "overloaded"
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      if (http_status >= 200 && http_status < 300) return absl::StatusCode::kOk;
      return http_status >= 400 && http_status < 500 ? absl::StatusCode::kFailedPrecondition
                                                     : absl::StatusCode::kUnknown;
  }
}

absl::StatusCode CodeFromName(const std::string& name) {
  for (int i = 0; i <= 16; ++i) {
    auto code = static_cast<absl::StatusCode>(i);
    if (absl::StatusCodeToString(code) == name) return code;
  }
  return absl::StatusCode::kUnknown;
}

}  // namespace tutti
