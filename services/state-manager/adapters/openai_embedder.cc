#include "services/state-manager/adapters/openai_embedder.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

class OpenAiEmbedder final : public RemoteEmbedder {
 public:
  OpenAiEmbedder(HttpClient& http, std::string base_url, std::string api_key, std::string model)
      : http_(http), base_url_(std::move(base_url)), api_key_(std::move(api_key)), model_(std::move(model)) {}

  std::string name() const override { return model_; }

  Task<absl::StatusOr<std::vector<float>>> Embed(CallContext& call, std::string text) override {
    Json body = {{"model", model_}, {"input", text}, {"encoding_format", "float"}};
    HttpRequest request;
    request.url = absl::StrCat(absl::StripSuffix(base_url_, "/"), "/embeddings");
    request.headers = {"Content-Type: application/json"};
    if (!api_key_.empty()) request.headers.push_back(absl::StrCat("Authorization: Bearer ", api_key_));
    request.body = DumpJson(body);
    auto posted = co_await http_.Send(call, std::move(request));
    if (!posted.ok()) co_return Prefix(posted.status(), "the embedder (--state-manager.memory.embedder): ");
    if (posted->status != 200) {
      absl::Status error = AnswerError("the embedder", *posted);
      bool ours = posted->status < 400 || posted->status >= 500 || posted->status == 429 || posted->status == 408;
      if (ours) co_return error;
      // The embedder's refusal is of this suite's configuration, not of the caller.
      co_return Error(absl::StatusCode::kFailedPrecondition, "EMBEDDER_REFUSES",
                      absl::StrCat(error.message(), " (--state-manager.memory.embedder)"));
    }
    co_return Vector(posted->body);
  }

 private:
  static absl::StatusOr<std::vector<float>> Vector(const std::string& body) {
    auto answer = ParseJson(body);
    absl::Status odd = absl::UnavailableError("the embedder's answer holds no vector at data[0].embedding");
    if (!answer.ok() || !answer->is_object() || !answer->contains("data") || !(*answer)["data"].is_array() ||
        (*answer)["data"].empty() || !(*answer)["data"][0].is_object() || !(*answer)["data"][0].contains("embedding")) {
      return odd;
    }
    const Json& numbers = (*answer)["data"][0]["embedding"];
    if (!numbers.is_array() || numbers.empty()) return odd;
    std::vector<float> out;
    for (const auto& number : numbers) {
      if (!IsNumber(number)) return odd;
      out.push_back(static_cast<float>(*ToDouble(number)));
    }
    return out;
  }

  HttpClient& http_;
  const std::string base_url_, api_key_, model_;
};

}  // namespace

std::unique_ptr<RemoteEmbedder> NewOpenAiEmbedder(HttpClient& http, std::string base_url, std::string api_key,
                                                  std::string model) {
  return std::make_unique<OpenAiEmbedder>(http, std::move(base_url), std::move(api_key), std::move(model));
}

}  // namespace tutti::state_manager
