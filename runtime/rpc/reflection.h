// grpc.reflection.v1 and v1alpha over the descriptors linked into the process. Debian's gRPC 1.51 serves v1alpha only
// and lists only what its own server has; a gateway lists what it passes on.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/rpc/local_methods.h"

namespace google::protobuf {
class FileDescriptor;
}

namespace tutti {

class Reflection {
 public:
  Reflection(ServerEnv& env, std::vector<std::string> services) : env_(env), services_(std::move(services)) {}
  void Offer(LocalMethods& methods);

 private:
  template <class Request, class Response>
  Task<absl::Status> Handle(CallContext& call, StreamReader<Request>& reader, BehindWriter<Response>& writer);

  ServerEnv& env_;
  // A file as answers have it. Written once each: they go with those that refer to them, and take long.
  const std::string& Serialized(const google::protobuf::FileDescriptor* file);
  template <class Response>
  void AddFile(const google::protobuf::FileDescriptor* file, std::set<std::string>& seen, Response& response);
  template <class Response>
  void AnswerFile(const google::protobuf::FileDescriptor* file, const std::string& what, Response& response);
  template <class Request, class Response>
  void Answer(const Request& request, Response& response);

  const std::vector<std::string> services_;
  std::map<const google::protobuf::FileDescriptor*, std::string> files_;
};

}  // namespace tutti
