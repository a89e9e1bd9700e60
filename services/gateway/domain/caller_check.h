// Checks the Host and Origin of requests: neither a page of another site nor a foreign name that points at this machine
// may use the gateway.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace tutti::gateway {

struct CallerRules {
  std::vector<std::string> allowed_hosts;    // `name`, `.name` for those below it, or `*`
  std::vector<std::string> allowed_origins;  // `https://name[:port]`
};

// `host` and `origin` are the headers' values; empty: not sent. INVALID_ARGUMENT: no host. PERMISSION_DENIED: a host
// that is neither an address, a loopback name nor allowed (HOST_NOT_ALLOWED), or an origin that is neither the host's
// own nor allowed (ORIGIN_NOT_ALLOWED).
absl::Status CheckCaller(const CallerRules& rules, const std::string& host, const std::string& origin);

}  // namespace tutti::gateway
