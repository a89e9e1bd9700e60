// The one total mapping between absl::Status, google.rpc.Status and HTTP; grpc::Status is in grpc_status.h.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace google::rpc {
class Status;
}

namespace tutti {

// Messages longer than this are cut on their way out: they travel in HTTP/2 trailers.
inline constexpr int kMaxPublicMessageBytes = 2048;

google::rpc::Status ToRpcStatus(const absl::Status& status);
absl::Status FromRpcStatus(const google::rpc::Status& status);
// https://cloud.google.com/apis/design/errors#http_mapping, CANCELLED as 499.
int HttpStatusOf(absl::StatusCode code);
// The code that an HTTP answer of another server stands for.
absl::StatusCode CodeFromHttp(int http_status);
// Codes by their names, for example "UNAVAILABLE"; kUnknown for names that are none.
absl::StatusCode CodeFromName(const std::string& name);

}  // namespace tutti
