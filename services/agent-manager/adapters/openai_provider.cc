#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/text/utf8.h"
#include "services/agent-manager/adapters/model_http.h"
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

// Chat completion chunks: https://platform.openai.com/docs/api-reference/chat-streaming
class Chunks final : public AnswerInPieces {
 public:
  explicit Chunks(const ChatRequest& request) : request_(request) {}

  void Add(absl::string_view data, const Json& chunk) override {
    if (data == "[DONE]") finished_ = true;
    if (!chunk.is_object()) return;
    if (chunk.contains("error") && !chunk["error"].is_null()) {
      error_ = absl::UnavailableError(absl::StrCat(
          "openai: ", chunk["error"].is_object() ? chunk["error"].value("message", "an error") : "an error"));
      return;
    }
    if (chunk.contains("model")) answer_["model"] = chunk["model"];
    if (chunk.contains("usage") && chunk["usage"].is_object()) answer_["usage"] = chunk["usage"];
    if (!chunk.contains("choices") || !chunk["choices"].is_array() || chunk["choices"].empty()) return;
    const Json& choice = chunk["choices"][0];
    if (choice.contains("finish_reason") && choice["finish_reason"].is_string()) finished_ = true;
    const Json delta = choice.contains("delta") && choice["delta"].is_object() ? choice["delta"] : Json::object();
    if (delta.contains("content") && delta["content"].is_string()) {
      const auto& piece = delta["content"].get_ref<const std::string&>();
      text_ += piece;
      if (!piece.empty() && request_.on_text) request_.on_text(piece);
    }
    if (!delta.contains("tool_calls") || !delta["tool_calls"].is_array()) return;
    for (const auto& part : delta["tool_calls"]) {
      const bool named = part.contains("id") && part["id"].is_string() && !part["id"].get<std::string>().empty();
      // Some servers number nothing: what has an id begins a call, what has none goes on with the last.
      size_t index = calls_.empty() ? 0 : calls_.size() - 1;
      if (part.contains("index") && part["index"].is_number_unsigned()) {
        index = part["index"].get<size_t>();
      } else if (named && !calls_.empty() && calls_.back()["id"] != part["id"]) {
        index = calls_.size();
      }
      if (index > kMostCalls) continue;
      while (calls_.size() <= index) {
        calls_.push_back({{"id", ""}, {"type", "function"}, {"function", {{"name", ""}, {"arguments", ""}}}});
      }
      Json& call = calls_[index];
      if (named) call["id"] = part["id"];
      const Json function =
          part.contains("function") && part["function"].is_object() ? part["function"] : Json::object();
      for (const char* key : {"name", "arguments"}) {
        if (function.contains(key) && function[key].is_string()) {
          call["function"][key].get_ref<std::string&>() += function[key].get_ref<const std::string&>();
        }
      }
    }
  }
  absl::StatusOr<Json> Take() override {
    TUTTI_RETURN_IF_ERROR(error_);
    if (!finished_) return absl::UnavailableError("openai: the answer broke off");
    Json message = {{"role", "assistant"}, {"content", text_}};
    if (!calls_.empty()) message["tool_calls"] = calls_;
    answer_["choices"] = Json::array({{{"message", message}}});
    return answer_;
  }

 private:
  static constexpr size_t kMostCalls = 128;
  const ChatRequest& request_;
  Json answer_ = Json::object(), calls_ = Json::array();
  std::string text_;
  bool finished_ = false;
  absl::Status error_;
};

class OpenAiProvider final : public ModelProvider {
 public:
  OpenAiProvider(HttpClient& http, std::string base_url, std::string api_key, std::string model, bool whole_answers)
      : http_(http),
        base_url_(std::move(base_url)),
        api_key_(std::move(api_key)),
        model_(std::move(model)),
        whole_answers_(whole_answers) {
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
    const bool stream = request.on_text && !whole_answers_;
    if (stream) {
      body["stream"] = true;
      body["stream_options"] = {{"include_usage", true}};
    }
    HttpRequest http;
    http.url = absl::StrCat(base_url_, "/chat/completions");
    http.headers = {"Content-Type: application/json",
                    absl::StrCat("Idempotency-Key: ", request.idempotency_key, "/", request.messages.size())};
    if (!api_key_.empty()) http.headers.push_back(absl::StrCat("Authorization: Bearer ", api_key_));
    http.body = DumpJson(body);
    Chunks chunks(request);
    TUTTI_CO_ASSIGN_OR_RETURN(Json answer,
                              co_await AskModel(http_, call, std::move(http), "openai", stream ? &chunks : nullptr));
    try {
      co_return FromJson(answer);
    } catch (const Json::exception& e) {
      co_return absl::UnavailableError(absl::StrCat("openai: unexpected answer: ", e.what()));
    }
  }

 private:
  HttpClient& http_;
  std::string base_url_, api_key_, model_;
  const bool whole_answers_;
};

}  // namespace

std::unique_ptr<ModelProvider> NewOpenAiProvider(HttpClient& http, std::string base_url, std::string api_key,
                                                 std::string model, bool whole_answers) {
  return std::make_unique<OpenAiProvider>(http, std::move(base_url), std::move(api_key), std::move(model),
                                          whole_answers);
}

}  // namespace tutti::agent_manager
