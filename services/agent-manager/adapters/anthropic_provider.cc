#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/agent-manager/adapters/model_http.h"
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

// Events of a streamed message: https://docs.anthropic.com/en/api/messages-streaming
class MessageEvents final : public AnswerInPieces {
 public:
  explicit MessageEvents(const ChatRequest& request) : request_(request) {}

  void Add(absl::string_view, const Json& event) override {
    if (!event.is_object()) return;
    std::string type = event.value("type", "");
    if (type == "message_start") {
      const Json message = event.value("message", Json::object());
      answer_["model"] = message.value("model", "");
      answer_["usage"] = message.value("usage", Json::object());
    } else if (type == "content_block_start") {
      auto index = event.value("index", size_t{0});
      if (index > kMostBlocks) return;
      while (blocks_.size() <= index) blocks_.push_back({Json::object(), ""});
      blocks_[index].content = event.value("content_block", Json::object());
    } else if (type == "content_block_delta") {
      auto index = event.value("index", size_t{0});
      if (index >= blocks_.size()) return;
      const Json delta = event.value("delta", Json::object());
      std::string piece = delta.value("text", "");
      if (!piece.empty()) {
        blocks_[index].text += piece;
        if (request_.on_text) request_.on_text(piece);
      }
      blocks_[index].text += delta.value("partial_json", "");
    } else if (type == "message_delta") {
      const Json usage = event.value("usage", Json::object());
      if (usage.contains("output_tokens")) answer_["usage"]["output_tokens"] = usage["output_tokens"];
    } else if (type == "message_stop") {
      finished_ = true;
    } else if (type == "error") {
      // What it would have been as an answer's status is not said.
      error_ = absl::UnavailableError(
          absl::StrCat("anthropic: ", event.value("error", Json::object()).value("message", "an error")));
    }
  }
  absl::StatusOr<Json> Take() override {
    TUTTI_RETURN_IF_ERROR(error_);
    if (!finished_) return absl::UnavailableError("anthropic: the answer broke off");
    answer_["content"] = Json::array();
    for (auto& block : blocks_) {
      if (block.content.value("type", "") == "text") {
        block.content["text"] = block.content.value("text", "") + block.text;
      } else if (!block.text.empty()) {
        auto input = ParseJson(block.text);
        if (!input.ok()) return absl::UnavailableError("anthropic: a tool's input is no JSON");
        block.content["input"] = *std::move(input);
      }
      answer_["content"].push_back(std::move(block.content));
    }
    return answer_;
  }

 private:
  static constexpr size_t kMostBlocks = 256;
  struct Block {
    Json content;
    std::string text;  // what came in pieces: text, or the JSON of a tool's input
  };
  const ChatRequest& request_;
  Json answer_ = Json::object();
  std::vector<Block> blocks_;
  bool finished_ = false;
  absl::Status error_;
};

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
    const bool stream = static_cast<bool>(request.on_text);
    if (stream) body["stream"] = true;
    HttpRequest http;
    http.url = absl::StrCat(base_url_, "/v1/messages");
    http.headers = {"Content-Type: application/json", "anthropic-version: 2023-06-01",
                    absl::StrCat("x-api-key: ", api_key_)};
    http.body = DumpJson(body);
    MessageEvents events(request);
    TUTTI_CO_ASSIGN_OR_RETURN(Json answer,
                              co_await AskModel(http_, call, std::move(http), "anthropic", stream ? &events : nullptr));
    try {
      co_return FromJson(answer);
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
