// Embeddings by the API that OpenAI's platform and most model servers offer: POST {base_url}/embeddings.
#pragma once

#include <memory>

#include "runtime/http/http_client.h"
#include "services/state-manager/ports/remote_embedder.h"

namespace tutti::state_manager {

std::unique_ptr<RemoteEmbedder> NewOpenAiEmbedder(HttpClient& http, std::string base_url, std::string api_key,
                                                  std::string model);

}  // namespace tutti::state_manager
