#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/text/utf8.h"
#include "services/agent-manager/adapters/providers.h"

namespace tutti::agent_manager {
namespace {

Json ToMessages(const ChatRequest& request) {
  Json messages = Json::array();
  if (!request.instructions.empty()) messages.push_back({{"role", "system"}, {"content", request.instructions}});
  for (const auto& message : request.messages) {
    switch (message.role) {
      case ChatMessage::Role::kUser:
        messages.push_back({{"role", "user"}, {"content", message.text}});
        break;
      case ChatMessage::Role::kTool:
        messages.push_back({{"role", "tool"}, {"tool_call_id", message.tool_call_id}, {"content", message.text}});
        break;
      case ChatMessage::Role::kAssistant: {
        Json out = {{"role", "assistant"}, {"content", message.text}};
        for (const auto& call : message.tool_calls) {
          out["tool_calls"].push_back({{"id", call.id},
                                       {"type", "function"},
                                       {"function", {{"name", call.name}, {"arguments", DumpJson(call.arguments)}}}});
        }
        messages.push_back(std::move(out));
      }
    }
  }
  return messages;
}

absl::StatusOr<ChatResponse> FromJson(const Json& answer) {
  if (!answer.is_object() || !answer.contains("choices") || !answer["choices"].is_array() ||
      answer["choices"].empty() || !answer["choices"][0].is_object() || !answer["choices"][0].contains("message")) {
    return absl::UnavailableError("openai: the answer holds no message");
  }
  const Json& message = answer["choices"][0]["message"];
  ChatResponse out;
  if (message.contains("content") && message["content"].is_string()) out.text = message["content"];
  if (message.contains("tool_calls") && message["tool_calls"].is_array()) {
    for (const auto& call : message["tool_calls"]) {
      ToolCall parsed;
      parsed.id = call.value("id", "");
      const Json function = call.value("function", Json::object());
      parsed.name = function.value("name", "");
      auto arguments = ParseJson(function.value("arguments", "{}"));
      // Arguments that are no JSON go to the tool as they are; its schema check tells the model what is wrong.
      parsed.arguments = arguments.ok() ? *arguments : Json(function.value("arguments", ""));
      out.tool_calls.push_back(std::move(parsed));
    }
  }
  out.model = answer.value("model", "");
  if (answer.contains("usage") && answer["usage"].is_object()) {
    out.input_tokens = answer["usage"].value("prompt_tokens", int64_t{0});
    out.output_tokens = answer["usage"].value("completion_tokens", int64_t{0});
  }
  return out;
}

class OpenAiProvider final : public ModelProvider {
 public:
  OpenAiProvider(HttpClient& http, std::string base_url, std::string api_key, std::string model)
      : http_(http), base_url_(std::move(base_url)), api_key_(std::move(api_key)), model_(std::move(model)) {
    while (!base_url_.empty() && base_url_.back() == '/') base_url_.pop_back();
  }
  std::string name() const override { return "openai"; }
  std::string default_model() const override { return model_; }

  Task<absl::StatusOr<ChatResponse>> Chat(CallContext& call, const ChatRequest& request) override {
    Json body = {{"model", request.model},
                 {"messages", ToMessages(request)},
                 {"max_completion_tokens", request.max_output_tokens}};
    if (request.temperature) body["temperature"] = *request.temperature;
    if (request.wants_json && request.tools.empty()) body["response_format"] = {{"type", "json_object"}};
    for (const auto& tool : request.tools) {
      body["tools"].push_back(
          {{"type", "function"},
           {"function",
            {{"name", tool.name}, {"description", tool.description}, {"parameters", tool.parameters_schema}}}});
    }
    HttpRequest http;
    http.url = absl::StrCat(base_url_, "/chat/completions");
    http.headers = {"Content-Type: application/json",
                    absl::StrCat("Idempotency-Key: ", request.idempotency_key, "/", request.messages.size())};
    if (!api_key_.empty()) http.headers.push_back(absl::StrCat("Authorization: Bearer ", api_key_));
    http.body = DumpJson(body);
    TUTTI_CO_ASSIGN_OR_RETURN(HttpResponse response, co_await http_.Send(call, std::move(http)));
    if (response.status != 200) co_return AnswerError("openai", response);
    auto answer = ParseJson(response.body);
    if (!answer.ok()) co_return absl::UnavailableError(absl::StrCat("openai: ", answer.status().message()));
    try {
      co_return FromJson(*answer);
    } catch (const Json::exception& e) {
      co_return absl::UnavailableError(absl::StrCat("openai: unexpected answer: ", e.what()));
    }
  }

 private:
  HttpClient& http_;
  std::string base_url_, api_key_, model_;
};

}  // namespace

std::unique_ptr<ModelProvider> NewOpenAiProvider(HttpClient& http, std::string base_url, std::string api_key,
                                                 std::string model) {
  return std::make_unique<OpenAiProvider>(http, std::move(base_url), std::move(api_key), std::move(model));
}

}  // namespace tutti::agent_manager
