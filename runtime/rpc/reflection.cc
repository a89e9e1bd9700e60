#include "runtime/rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include "grpc/reflection/v1/reflection.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace tutti {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

const std::string& Reflection::Serialized(const FileDescriptor* file) {
  auto [it, made] = files_.try_emplace(file);
  if (made) {
    google::protobuf::FileDescriptorProto proto;
    file->CopyTo(&proto);
    it->second = proto.SerializeAsString();
  }
  return it->second;
}

template <class Response>
void Reflection::AddFile(const FileDescriptor* file, std::set<std::string>& seen, Response& response) {
  if (!seen.insert(file->name()).second) return;
  response.mutable_file_descriptor_response()->add_file_descriptor_proto(Serialized(file));
  for (int i = 0; i < file->dependency_count(); ++i) AddFile(file->dependency(i), seen, response);
}

template <class Response>
void Reflection::AnswerFile(const FileDescriptor* file, const std::string& what, Response& response) {
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
void Reflection::Answer(const Request& request, Response& response) {
  const DescriptorPool* pool = DescriptorPool::generated_pool();
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case Request::kListServices:
      for (const auto& name : services_) response.mutable_list_services_response()->add_service()->set_name(name);
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

template <class Request, class Response>
Task<absl::Status> Reflection::Handle(CallContext&, StreamReader<Request>& reader, BehindWriter<Response>& writer) {
  Request request;
  while (co_await reader.Read(request)) {
    Response response;
    Answer(request, response);
    const bool written = co_await writer.Write(response);
    if (!written) co_return absl::CancelledError("the caller has gone");
  }
  co_return absl::OkStatus();
}

void Reflection::Offer(LocalMethods& methods) {
  namespace v1 = grpc::reflection::v1;
  namespace v1alpha = grpc::reflection::v1alpha;
  methods.AddBidi(env_, "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", *this,
                  &Reflection::Handle<v1::ServerReflectionRequest, v1::ServerReflectionResponse>);
  methods.AddBidi(env_, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", *this,
                  &Reflection::Handle<v1alpha::ServerReflectionRequest, v1alpha::ServerReflectionResponse>);
}

}  // namespace tutti
