#include "runtime/rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>

namespace tutti {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

template <class Response>
void AddFile(const FileDescriptor* file, std::set<std::string>& seen, Response& response) {
  if (!seen.insert(file->name()).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  response.mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) AddFile(file->dependency(i), seen, response);
}

template <class Response>
void AnswerFile(const FileDescriptor* file, const std::string& what, Response& response) {
  if (file == nullptr) {
    response.mutable_error_response()->set_error_code(5);
    response.mutable_error_response()->set_error_message("not known here: " + what);
    return;
  }
  std::set<std::string> seen;
  AddFile(file, seen, response);
}

// The two versions of the protocol have the same messages under two names.
template <class Request, class Response>
void Answer(const std::vector<std::string>& services, const Request& request, Response& response) {
  const DescriptorPool* pool = DescriptorPool::generated_pool();
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case Request::kListServices:
      for (const auto& name : services) response.mutable_list_services_response()->add_service()->set_name(name);
      return;
    case Request::kFileByFilename:
      return AnswerFile(pool->FindFileByName(request.file_by_filename()), request.file_by_filename(), response);
    case Request::kFileContainingSymbol:
      return AnswerFile(pool->FindFileContainingSymbol(request.file_containing_symbol()),
                        request.file_containing_symbol(), response);
    case Request::kFileContainingExtension: {
      const auto& extension = request.file_containing_extension();
      const auto* type = pool->FindMessageTypeByName(extension.containing_type());
      const auto* field = type ? pool->FindExtensionByNumber(type, extension.extension_number()) : nullptr;
      return AnswerFile(field ? field->file() : nullptr, extension.containing_type(), response);
    }
    case Request::kAllExtensionNumbersOfType: {
      const auto* type = pool->FindMessageTypeByName(request.all_extension_numbers_of_type());
      if (type == nullptr) return AnswerFile<Response>(nullptr, request.all_extension_numbers_of_type(), response);
      std::vector<const google::protobuf::FieldDescriptor*> extensions;
      pool->FindAllExtensions(type, &extensions);
      response.mutable_all_extension_numbers_response()->set_base_type_name(type->full_name());
      for (const auto* extension : extensions) {
        response.mutable_all_extension_numbers_response()->add_extension_number(extension->number());
      }
      return;
    }
    default:
      response.mutable_error_response()->set_error_code(3);
      response.mutable_error_response()->set_error_message("the request asks nothing");
  }
}

// Answers inside the reactions: there is nothing to wait for.
template <class Request, class Response>
class ReflectionCall final : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit ReflectionCall(const std::vector<std::string>& services) : services_(services) {
    this->StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return this->Finish(grpc::Status::OK);
    response_.Clear();
    Answer(services_, request_, response_);
    this->StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return this->Finish(grpc::Status::CANCELLED);
    this->StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const std::vector<std::string>& services_;
  Request request_;
  Response response_;
};

}  // namespace

grpc::ServerBidiReactor<grpc::reflection::v1::ServerReflectionRequest, grpc::reflection::v1::ServerReflectionResponse>*
ReflectionV1::ServerReflectionInfo(grpc::CallbackServerContext*) {
  return new ReflectionCall<grpc::reflection::v1::ServerReflectionRequest,
                            grpc::reflection::v1::ServerReflectionResponse>(services_);
}

grpc::ServerBidiReactor<grpc::reflection::v1alpha::ServerReflectionRequest,
                        grpc::reflection::v1alpha::ServerReflectionResponse>*
ReflectionV1Alpha::ServerReflectionInfo(grpc::CallbackServerContext*) {
  return new ReflectionCall<grpc::reflection::v1alpha::ServerReflectionRequest,
                            grpc::reflection::v1alpha::ServerReflectionResponse>(services_);
}

}  // namespace tutti
