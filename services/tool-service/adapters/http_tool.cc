#include "services/tool-service/adapters/http_tool.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/text/utf8.h"

namespace tutti::tool_service {
namespace {

using tutti::config::v1::HttpSecret;

bool Lists(const google::protobuf::RepeatedPtrField<std::string>& hosts, const std::string& host,
           const std::string& host_and_port) {
  return std::any_of(hosts.begin(), hosts.end(), [&](const std::string& allowed) {
    return absl::EqualsIgnoreCase(allowed, host) || absl::EqualsIgnoreCase(allowed, host_and_port);
  });
}

bool IsHeaderName(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return isalnum(c) || absl::StrContains("!#$%&'*+-.^_`|~", std::string(1, static_cast<char>(c)));
  });
}

// What frames and routes the request is not the caller's.
bool IsReserved(const std::string& name) {
  static const std::set<std::string> kReserved = {
      "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"};
  std::string lower = absl::AsciiStrToLower(name);
  return kReserved.count(lower) > 0 || absl::StartsWith(lower, "proxy-");
}

bool IsHeaderValue(const std::string& value) {
  return std::none_of(value.begin(), value.end(), [](unsigned char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

absl::Status Wrong(absl::string_view field, absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_PARAMETERS", absl::StrCat(field, ": ", what))
      .Violation(field, what);
}

class HttpTool final : public Tool {
 public:
  HttpTool(HttpClient& client, const tutti::config::v1::HttpTool& config) : client_(client), config_(config) {}
  std::string name() const override { return "http_request"; }
  std::string description() const override {
    return "Calls an HTTP API and returns {status, headers, body}. Redirects are answers. Private addresses are "
           "refused unless "
           "the configuration allows their host.";
  }
  Json parameters_schema() const override {
    return {{"type", "object"},
            {"properties",
             {{"method", {{"type", "string"}, {"enum", {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}}}},
              {"url", {{"type", "string"}, {"minLength", 8}, {"maxLength", 8000}}},
              {"headers", {{"type", "object"}, {"additionalProperties", {{"type", "string"}}}}},
              {"body", {{"description", "Text is sent as it is, anything else as JSON"}}},
              {"auth",
               {{"type", "object"},
                {"properties", {{"secret", {{"type", "string"}}}, {"header", {{"type", "string"}}}}},
                {"required", {"secret"}},
                {"additionalProperties", false}}},
              {"expected_status", {{"type", "array"}, {"items", {{"type", "integer"}}}}}}},
            {"required", {"url"}},
            {"additionalProperties", false}};
  }
  bool idempotent() const override { return false; }
  bool async() const override { return true; }

  absl::StatusOr<Json> Call(const Json&, const ToolCallInfo&) override {
    return absl::InternalError("http_request is called by CallAsync");
  }

  Task<absl::StatusOr<Json>> CallAsync(CallContext& call, Json parameters, ToolCallInfo info) override {
    HttpRequest request;
    request.start_by = call.start_by;
    request.method = parameters.value("method", "GET");
    request.url = parameters["url"];
    request.max_answer_bytes = static_cast<size_t>(config_.max_response_bytes());
    TUTTI_CO_ASSIGN_OR_RETURN(UrlHost host, HostOf(request.url));
    const std::string host_and_port = absl::StrCat(host.name, ":", host.port);
    bool listed = Lists(config_.allowed_hosts(), host.name, host_and_port);
    if (config_.only_allowed_hosts() && !listed) {
      co_return Error(
          absl::StatusCode::kPermissionDenied, "HOST_NOT_ALLOWED",
          absl::StrCat("calls of ", host_and_port, " are not allowed; see tool_service.http.allowed_hosts"));
    }
    request.public_only = !listed;
    std::string secret;
    TUTTI_CO_RETURN_IF_ERROR(AddHeaders(parameters, host, info, request, secret));
    TUTTI_CO_ASSIGN_OR_RETURN(HttpResponse response, co_await client_.Send(call, std::move(request)));
    if (!secret.empty()) {  // a server that echoes what it is sent must not bring it into a run
      response.body = absl::StrReplaceAll(response.body, {{secret, "********"}});
      for (auto& [name, value] : response.headers) value = absl::StrReplaceAll(value, {{secret, "********"}});
    }
    TUTTI_CO_RETURN_IF_ERROR(CheckStatus(parameters, host_and_port, response));
    Json headers = Json::object();
    for (const auto& [name, value] : response.headers) headers[name] = CleanUtf8(value);
    co_return Json{{"status", response.status}, {"headers", std::move(headers)}, {"body", BodyOf(response)}};
  }

 private:
  // `sent`: the secret that goes along.
  absl::Status AddHeaders(const Json& parameters, const UrlHost& host, const ToolCallInfo& info, HttpRequest& request,
                          std::string& sent) const {
    bool has_type = false, has_key = false;
    const Json headers = parameters.value("headers", Json::object());
    for (const auto& [name, value] : headers.items()) {
      std::string text = value.get<std::string>();
      if (!IsHeaderName(name)) return Wrong("headers", absl::StrCat("\"", name, "\" is no header name"));
      if (IsReserved(name)) return Wrong(absl::StrCat("headers.", name), "is not for callers to set");
      if (!IsHeaderValue(text)) return Wrong(absl::StrCat("headers.", name), "must not have line breaks");
      has_type |= absl::EqualsIgnoreCase(name, "content-type");
      has_key |= absl::EqualsIgnoreCase(name, "idempotency-key");
      request.headers.push_back(absl::StrCat(name, ": ", text));
    }
    if (parameters.contains("body")) {
      const Json& body = parameters["body"];
      request.body = body.is_string() ? body.get<std::string>() : DumpJson(body);
      if (!has_type) {
        request.headers.push_back(body.is_string() ? "Content-Type: text/plain; charset=utf-8"
                                                   : "Content-Type: application/json");
      }
    }
    if (!has_key && !info.idempotency_key.empty() && request.method != "GET" && request.method != "HEAD") {
      request.headers.push_back(absl::StrCat("Idempotency-Key: ", info.idempotency_key));
    }
    if (!parameters.contains("auth")) return absl::OkStatus();
    const std::string name = parameters["auth"].value("secret", ""), header = parameters["auth"].value("header", "");
    auto secret = std::find_if(config_.secrets().begin(), config_.secrets().end(),
                               [&](const HttpSecret& known) { return known.name() == name; });
    if (secret == config_.secrets().end()) {
      return Error(absl::StatusCode::kNotFound, "SECRET_NOT_FOUND",
                   absl::StrCat("no secret \"", name, "\" in tool_service.http.secrets"));
    }
    if (!Lists(secret->hosts(), host.name, absl::StrCat(host.name, ":", host.port))) {
      return Error(absl::StatusCode::kPermissionDenied, "SECRET_NOT_FOR_HOST",
                   absl::StrCat("secret \"", name, "\" may not be sent to ", host.name, ":", host.port));
    }
    bool local = Lists(config_.allowed_hosts(), host.name, absl::StrCat(host.name, ":", host.port));
    if (!local && !absl::StartsWithIgnoreCase(request.url, "https://")) {
      return Error(absl::StatusCode::kPermissionDenied, "SECRET_NEEDS_HTTPS",
                   absl::StrCat("secret \"", name, "\" is sent over https only, or to hosts of allowed_hosts"));
    }
    std::string value = secret->value();
    if (!secret->file().empty()) {
      std::ifstream in(secret->file());
      std::stringstream text;
      text << in.rdbuf();
      if (!in) return absl::UnavailableError(absl::StrCat("the file of secret \"", name, "\" cannot be read"));
      value = std::string(absl::StripAsciiWhitespace(text.str()));
    }
    if (!IsHeaderValue(value) || (!header.empty() && (!IsHeaderName(header) || IsReserved(header))))
      return Wrong("auth", "is no header");
    sent = value;
    request.headers.push_back(header.empty() ? absl::StrCat("Authorization: Bearer ", value)
                                             : absl::StrCat(header, ": ", value));
    return absl::OkStatus();
  }

  static absl::Status CheckStatus(const Json& parameters, const std::string& host, const HttpResponse& response) {
    const Json expected = parameters.value("expected_status", Json::array());
    bool good = expected.empty() ? response.status >= 200 && response.status <= 299
                                 : std::find(expected.begin(), expected.end(), Json(response.status)) != expected.end();
    if (good) return absl::OkStatus();
    bool passing = response.status == 429 || response.status == 502 || response.status == 503 || response.status == 504;
    return Error(
               passing ? absl::StatusCode::kUnavailable : absl::StatusCode::kFailedPrecondition, "HTTP_STATUS",
               absl::StrCat(host, " answered HTTP ", response.status, ": ", Utf8Prefix(CleanUtf8(response.body), 500)))
        .Metadata("status", absl::StrCat(response.status))
        .RetryAfter(absl::Seconds(response.retry_after_seconds));
  }

  // JSON when it says that it is, and is.
  static Json BodyOf(const HttpResponse& response) {
    auto type = response.headers.find("content-type");
    if (type != response.headers.end() && absl::StrContains(type->second, "json")) {
      if (auto json = ParseJson(response.body); json.ok()) return *json;
    }
    return CleanUtf8(response.body);
  }

  HttpClient& client_;
  const tutti::config::v1::HttpTool config_;
};

}  // namespace

std::unique_ptr<Tool> NewHttpTool(HttpClient& client, const tutti::config::v1::HttpTool& config) {
  return std::make_unique<HttpTool>(client, config);
}

}  // namespace tutti::tool_service
