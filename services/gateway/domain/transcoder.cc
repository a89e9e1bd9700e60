#include "services/gateway/domain/transcoder.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "google/api/annotations.pb.h"
#include "google/rpc/status.pb.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/json/json.h"
#include "runtime/json/proto_json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/text/utf8.h"
#include "tutti/options/v1/options.pb.h"

namespace tutti::gateway {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::pair<std::string, std::string> PatternOf(const google::api::HttpRule& rule) {
  switch (rule.pattern_case()) {
    case google::api::HttpRule::kGet:
      return {"GET", rule.get()};
    case google::api::HttpRule::kPut:
      return {"PUT", rule.put()};
    case google::api::HttpRule::kPost:
      return {"POST", rule.post()};
    case google::api::HttpRule::kDelete:
      return {"DELETE", rule.delete_()};
    case google::api::HttpRule::kPatch:
      return {"PATCH", rule.patch()};
    case google::api::HttpRule::kCustom:
      return {rule.custom().kind(), rule.custom().path()};
    default:
      return {"", ""};
  }
}

const FieldDescriptor* EventIdField(const Descriptor& type) {
  for (int i = 0; i < type.field_count(); ++i) {
    if (type.field(i)->options().GetExtension(tutti::options::v1::event_id)) return type.field(i);
  }
  return nullptr;
}

absl::Status Invalid(absl::string_view field, absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_REQUEST", absl::StrCat(field, ": ", what))
      .Violation(field, what);
}

// The media type without its parameters, in lower case.
std::string MediaType(absl::string_view content_type) {
  return absl::AsciiStrToLower(absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';'))));
}

absl::Status ParseBody(const RestRequest& rest, Message* into) {
  if (rest.body.empty()) return absl::OkStatus();
  const std::string type = MediaType(rest.content_type);
  if (type == "application/yaml" || type == "application/x-yaml" || type == "text/yaml") {
    return ParseYaml(rest.body, "body", into);
  }
  if (type == "application/x-protobuf" || type == "application/protobuf") {
    if (into->ParseFromString(rest.body)) return absl::OkStatus();
    return Invalid("body", absl::StrCat("is no ", into->GetDescriptor()->full_name()));
  }
  // A page of another site can make a browser send the types of forms, and none at all, without asking first.
  if (type != "application/json" && !absl::EndsWith(type, "+json")) {
    return Error(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_MEDIA_TYPE",
                 absl::StrCat("a request with a body needs the header Content-Type: application/json (or "
                              "application/yaml, application/x-protobuf), not ",
                              type.empty() ? "none" : absl::StrCat("\"", Utf8Prefix(type, 100), "\"")))
        .Violation("content-type", "must be application/json, application/yaml or application/x-protobuf");
  }
  if (size_t at = FirstInvalidUtf8(rest.body); at != absl::string_view::npos) {
    return Invalid("body", absl::StrCat("invalid UTF-8 at byte ", at));
  }
  return JsonToProto(rest.body, into);
}

absl::StatusOr<std::map<std::string, std::vector<std::string>>> ParseQuery(absl::string_view query) {
  std::map<std::string, std::vector<std::string>> out;
  for (absl::string_view pair : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(pair, absl::MaxSplits('=', 1));
    std::string name, value;
    if (!PercentDecode(parts.first, false, true, &name) || !PercentDecode(parts.second, false, true, &value) ||
        !IsValidUtf8(name) || !IsValidUtf8(value)) {
      return Invalid("query", absl::StrCat("\"", Utf8Prefix(pair, 100), "\" is badly encoded"));
    }
    out[name].push_back(std::move(value));
  }
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transcoder>> Transcoder::Create(const std::vector<std::string>& services) {
  std::unique_ptr<Transcoder> out(new Transcoder());
  for (const auto& name : services) {
    const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    if (!service) return absl::InvalidArgumentError(absl::StrCat("service ", name, " is not linked"));
    for (int i = 0; i < service->method_count(); ++i) TUTTI_RETURN_IF_ERROR(out->AddMethod(service->method(i)));
  }
  return out;
}

absl::Status Transcoder::AddMethod(const google::protobuf::MethodDescriptor* method) {
  if (!method->options().HasExtension(google::api::http)) return absl::OkStatus();
  const auto& main = method->options().GetExtension(google::api::http);
  std::vector<google::api::HttpRule> rules = {main};
  for (const auto& more : main.additional_bindings()) rules.push_back(more);
  for (const auto& rule : rules) {
    Route route;
    route.method = method;
    route.grpc_method = absl::StrCat("/", method->service()->full_name(), "/", method->name());
    route.body = rule.body();
    route.response_body = rule.response_body();
    if (!route.body.empty() && route.body != "*" && !method->input_type()->FindFieldByName(route.body)) {
      return absl::InvalidArgumentError(absl::StrCat(method->full_name(), ": no field ", route.body));
    }
    if (const auto* field = EventIdField(*method->input_type())) route.event_id_request_field = field->name();
    route.event_id = EventIdField(*method->output_type());
    for (int i = 0; !route.event_id && i < method->output_type()->field_count(); ++i) {
      const auto* child = method->output_type()->field(i);
      if (child->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || child->is_repeated()) continue;
      route.event_id = EventIdField(*child->message_type());
      if (route.event_id) route.event_parent = child;
    }
    auto [verb, text] = PatternOf(rule);
    TUTTI_ASSIGN_OR_RETURN(PathTemplate path, PathTemplate::Parse(text));
    TUTTI_RETURN_IF_ERROR(matcher_.Add(verb, path, static_cast<int>(routes_.size())));
    routes_.push_back(std::move(route));
  }
  return absl::OkStatus();
}

absl::StatusOr<Transcoder::Call> Transcoder::ToCall(const RestRequest& rest) const {
  std::pair<std::string, std::string> target = absl::StrSplit(rest.target, absl::MaxSplits('?', 1));
  if (target.first.size() > 1 && target.first.back() == '/') target.first.pop_back();
  PathMatch match;
  std::vector<std::string> allowed;
  switch (matcher_.Match(rest.method, target.first, &match, &allowed)) {
    case PathMatcher::Outcome::kNoPath:
      return Error(absl::StatusCode::kNotFound, "PATH_NOT_FOUND",
                   absl::StrCat("no such path: ", Utf8Prefix(target.first, 200), "; the API begins at /v1"));
    case PathMatcher::Outcome::kOtherMethod:
      return Error(absl::StatusCode::kUnimplemented, "METHOD_NOT_ALLOWED",
                   absl::StrCat(target.first, " knows ", absl::StrJoin(allowed, ", "), ", not ", rest.method))
          .Metadata("allow", absl::StrJoin(allowed, ", "));
    case PathMatcher::Outcome::kFound:
      break;
  }
  Call call;
  call.route = &routes_[static_cast<size_t>(match.route)];
  const auto* prototype =
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(call.route->method->input_type());
  call.request.reset(prototype->New());
  if (call.route->body == "*") {
    TUTTI_RETURN_IF_ERROR(ParseBody(rest, call.request.get()));
  } else if (!call.route->body.empty()) {
    const auto* field = call.request->GetDescriptor()->FindFieldByName(call.route->body);
    TUTTI_RETURN_IF_ERROR(ParseBody(rest, call.request->GetReflection()->MutableMessage(call.request.get(), field)));
  } else if (!rest.body.empty()) {
    return Invalid("body", "this method takes no body");
  }
  TUTTI_ASSIGN_OR_RETURN(auto query, ParseQuery(target.second));
  if (call.route->body == "*" && !query.empty()) {
    return Invalid(query.begin()->first, "this method takes its fields in the body, not in the query");
  }
  if (!rest.last_event_id.empty() && !call.route->event_id_request_field.empty()) {
    query[call.route->event_id_request_field] = {rest.last_event_id};
  }
  for (const auto& [name, values] : query) {
    absl::Status set = SetFieldFromTexts(call.request.get(), name, values, absl::StrCat("query parameter ", name));
    if (!set.ok())
      return Error(absl::StatusCode::kInvalidArgument, "INVALID_REQUEST", set.message()).Violation(name, set.message());
  }
  for (const auto& [field, value] : match.variables) {  // the path wins over the body
    if (!IsValidUtf8(value)) return Invalid(field, "invalid UTF-8 in the path");
    TUTTI_RETURN_IF_ERROR(SetFieldFromTexts(call.request.get(), field, {value}, absl::StrCat("path variable ", field)));
  }
  return call;
}

std::unique_ptr<Message> Transcoder::NewResponse(const Route& route) {
  const auto* prototype =
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(route.method->output_type());
  return std::unique_ptr<Message>(prototype->New());
}

absl::StatusOr<std::string> Transcoder::ToJsonText(const Route& route, const Message& response) {
  const Message* shown = &response;
  if (!route.response_body.empty()) {
    shown =
        &response.GetReflection()->GetMessage(response, response.GetDescriptor()->FindFieldByName(route.response_body));
  }
  return ProtoToJson(*shown, {.empty_lists = true});
}

std::string Transcoder::EventId(const Route& route, const Message& response) {
  if (!route.event_id) return "";
  const Message* holder = &response;
  if (route.event_parent) holder = &response.GetReflection()->GetMessage(response, route.event_parent);
  return absl::StrCat(holder->GetReflection()->GetInt64(*holder, route.event_id));
}

std::string ErrorJson(const absl::Status& status, int http_status) {
  google::rpc::Status rpc = ToRpcStatus(status);
  Json error = {{"code", http_status}, {"status", absl::StatusCodeToString(status.code())}, {"message", rpc.message()}};
  auto whole = ParseJson(ProtoToJson(rpc), kMaxMessageJsonDepth);
  if (whole.ok() && whole->contains("details")) error["details"] = (*whole)["details"];
  return DumpJson({{"error", error}});
}

}  // namespace tutti::gateway
