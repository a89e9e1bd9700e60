#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/agent-manager/adapters/providers.h"

namespace tutti::agent_manager {
namespace {

Json ToMessages(const ChatRequest& request) {
  Json messages = Json::array();
  for (const auto& message : request.messages) {
    Json content = Json::array();
    std::string role = message.role == ChatMessage::Role::kAssistant ? "assistant" : "user";
    if (message.role == ChatMessage::Role::kTool) {
      content.push_back({{"type", "tool_result"}, {"tool_use_id", message.tool_call_id}, {"content", message.text}});
    } else if (!message.text.empty()) {
      content.push_back({{"type", "text"}, {"text", message.text}});
    }
    for (const auto& call : message.tool_calls) {
      content.push_back({{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", call.arguments}});
    }
    if (content.empty())
      content.push_back({{"type", "text"}, {"text", "(nothing)"}});  // the API takes no empty content
    // All results of one turn belong into one message.
    if (!messages.empty() && messages.back()["role"] == role) {
      for (auto& part : content) messages.back()["content"].push_back(part);
    } else {
      messages.push_back({{"role", role}, {"content", content}});
    }
  }
  return messages;
}

absl::StatusOr<ChatResponse> FromJson(const Json& answer) {
  if (!answer.is_object() || !answer.contains("content") || !answer["content"].is_array()) {
    return absl::UnavailableError("anthropic: the answer holds no content");
  }
  ChatResponse out;
  for (const auto& part : answer["content"]) {
    std::string type = part.value("type", "");
    if (type == "text") out.text += part.value("text", "");
    if (type == "tool_use") {
      out.tool_calls.push_back({part.value("id", ""), part.value("name", ""), part.value("input", Json::object())});
    }
  }
  out.model = answer.value("model", "");
  if (answer.contains("usage") && answer["usage"].is_object()) {
    out.input_tokens = answer["usage"].value("input_tokens", int64_t{0});
    out.output_tokens = answer["usage"].value("output_tokens", int64_t{0});
  }
  return out;
}

class AnthropicProvider final : public ModelProvider {
 public:
  AnthropicProvider(HttpClient& http, std::string base_url, std::string api_key, std::string model)
      : http_(http), base_url_(std::move(base_url)), api_key_(std::move(api_key)), model_(std::move(model)) {
    while (!base_url_.empty() && base_url_.back() == '/') base_url_.pop_back();
  }
  std::string name() const override { return "anthropic"; }
  std::string default_model() const override { return model_; }

  Task<absl::StatusOr<ChatResponse>> Chat(CallContext& call, const ChatRequest& request) override {
    Json body = {
        {"model", request.model}, {"max_tokens", request.max_output_tokens}, {"messages", ToMessages(request)}};
    if (!request.instructions.empty()) body["system"] = request.instructions;
    if (request.temperature) body["temperature"] = *request.temperature;
    for (const auto& tool : request.tools) {
      body["tools"].push_back(
          {{"name", tool.name}, {"description", tool.description}, {"input_schema", tool.parameters_schema}});
    }
    HttpRequest http;
    http.url = absl::StrCat(base_url_, "/v1/messages");
    http.headers = {"Content-Type: application/json", "anthropic-version: 2023-06-01",
                    absl::StrCat("x-api-key: ", api_key_)};
    http.body = DumpJson(body);
    TUTTI_CO_ASSIGN_OR_RETURN(HttpResponse response, co_await http_.Send(call, std::move(http)));
    if (response.status != 200) co_return AnswerError("anthropic", response);
    auto answer = ParseJson(response.body);
    if (!answer.ok()) co_return absl::UnavailableError(absl::StrCat("anthropic: ", answer.status().message()));
    try {
      co_return FromJson(*answer);
    } catch (const Json::exception& e) {
      co_return absl::UnavailableError(absl::StrCat("anthropic: unexpected answer: ", e.what()));
    }
  }

 private:
  HttpClient& http_;
  std::string base_url_, api_key_, model_;
};

}  // namespace

std::unique_ptr<ModelProvider> NewAnthropicProvider(HttpClient& http, std::string base_url, std::string api_key,
                                                    std::string model) {
  return std::make_unique<AnthropicProvider>(http, std::move(base_url), std::move(api_key), std::move(model));
}

}  // namespace tutti::agent_manager
