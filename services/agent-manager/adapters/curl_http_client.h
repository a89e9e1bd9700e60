// HTTP by libcurl's multi interface, on one thread of its own.
#pragma once

#include <memory>

#include "services/agent-manager/ports/http_client.h"

namespace tutti::agent_manager {

std::unique_ptr<HttpClient> NewCurlHttpClient();

}  // namespace tutti::agent_manager
