// Calls of HTTP APIs.
#pragma once

#include <memory>

#include "runtime/http/http_client.h"
#include "services/tool-service/ports/tool.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti::tool_service {

// `client` outlives it.
std::unique_ptr<Tool> NewHttpTool(HttpClient& client, const tutti::config::v1::HttpTool& config);

}  // namespace tutti::tool_service
