// The model providers.
#pragma once

#include <memory>
#include <string>

#include "runtime/http/http_client.h"
#include "services/agent-manager/ports/model_provider.h"

namespace tutti::agent_manager {

// OpenAI's Chat Completions, and everything that speaks it. `http` must outlive it. `whole_answers`: it is never asked
// to stream.
std::unique_ptr<ModelProvider> NewOpenAiProvider(HttpClient& http, std::string base_url, std::string api_key,
                                                 std::string model, bool whole_answers);
// Anthropic's Messages.
std::unique_ptr<ModelProvider> NewAnthropicProvider(HttpClient& http, std::string base_url, std::string api_key,
                                                    std::string model);
// The embedded default: text algorithms, no language model, no network. Deterministic.
std::unique_ptr<ModelProvider> NewLocalProvider();

}  // namespace tutti::agent_manager
