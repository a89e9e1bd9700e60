// HTTP by libcurl's multi interface, on one thread of its own.
#pragma once

#include <memory>

#include "runtime/http/http_client.h"

namespace tutti {

std::unique_ptr<HttpClient> NewCurlHttpClient();

}  // namespace tutti
