// REST requests as messages and messages as JSON, driven by the google.api.http annotations of the linked contracts.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/gateway/domain/path_template.h"

namespace tutti::gateway {

struct Route {
  const google::protobuf::MethodDescriptor* method = nullptr;
  std::string grpc_method;             // "/pkg.Service/Method"
  std::string body;                    // "", "*" or a field
  std::string response_body;           // "" or a field
  std::string event_id_request_field;  // what Last-Event-ID fills; empty: nothing
  const google::protobuf::FieldDescriptor* event_parent =
      nullptr;  // message field of the response that holds the id, or null
  const google::protobuf::FieldDescriptor* event_id = nullptr;  // null: events have no ids
};

struct RestRequest {
  std::string method;
  std::string target;  // path and query as sent
  std::string content_type;
  std::string last_event_id;
  std::string body;
};

class Transcoder {
 public:
  // Every annotated method of the services. INVALID_ARGUMENT: an annotation is wrong (a template, a field that is not
  // there).
  static absl::StatusOr<std::unique_ptr<Transcoder>> Create(const std::vector<std::string>& services);

  struct Call {
    const Route* route = nullptr;
    std::unique_ptr<google::protobuf::Message> request;
  };
  // NOT_FOUND: no such path. UNIMPLEMENTED: not with this method. INVALID_ARGUMENT: path, query or body do not fit.
  absl::StatusOr<Call> ToCall(const RestRequest& request) const;

  // A response's JSON. DATA_LOSS: the bytes are no such message.
  static absl::StatusOr<std::string> ToJsonText(const Route& route, const google::protobuf::Message& response);
  static std::unique_ptr<google::protobuf::Message> NewResponse(const Route& route);
  // The event's offset; empty when it has none.
  static std::string EventId(const Route& route, const google::protobuf::Message& response);

  const std::vector<Route>& routes() const { return routes_; }

 private:
  absl::Status AddMethod(const google::protobuf::MethodDescriptor* method);
  std::vector<Route> routes_;
  PathMatcher matcher_;
};

// The body of an error answer (google.rpc.Status in Google's REST envelope).
std::string ErrorJson(const absl::Status& status, int http_status);

}  // namespace tutti::gateway
