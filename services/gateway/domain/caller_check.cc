#include "services/gateway/domain/caller_check.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/text/utf8.h"

namespace tutti::gateway {
namespace {

// `Name:port` as `name`; `[::1]:port` as `::1`.
std::string NameOf(const std::string& host) {
  std::string name = absl::AsciiStrToLower(host);
  if (!name.empty() && name[0] == '[') {
    size_t end = name.find(']');
    return end == std::string::npos ? name : name.substr(1, end - 1);
  }
  name = name.substr(0, name.find(':'));
  if (absl::EndsWith(name, ".")) name.pop_back();
  return name;
}

bool IsAddress(const std::string& name) {
  char buffer[16];
  return inet_pton(AF_INET, name.c_str(), buffer) == 1 || inet_pton(AF_INET6, name.c_str(), buffer) == 1;
}

bool IsAllowed(const CallerRules& rules, const std::string& name) {
  for (const std::string& allowed : rules.allowed_hosts) {
    const std::string lower = absl::AsciiStrToLower(allowed);
    if (lower == "*" || lower == name) return true;
    if (absl::StartsWith(lower, ".") && absl::EndsWith(name, lower)) return true;
  }
  return false;
}

}  // namespace

absl::Status CheckCaller(const CallerRules& rules, const std::string& host, const std::string& origin) {
  if (host.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "NO_HOST", "the request has no Host header (RFC 9112)");
  }
  const std::string name = NameOf(host);
  const bool loopback = name == "localhost" || absl::EndsWith(name, ".localhost");
  // An address cannot be made to point elsewhere by somebody's DNS; a name can.
  if (!loopback && !IsAddress(name) && !IsAllowed(rules, name)) {
    return Error(absl::StatusCode::kPermissionDenied, "HOST_NOT_ALLOWED",
                 absl::StrCat("the host \"", Utf8Prefix(name, 100),
                              "\" is not one of this gateway's names; allow it with --gateway.allowed-hosts"));
  }
  if (origin.empty()) return absl::OkStatus();
  const auto& origins = rules.allowed_origins;
  if (std::find(origins.begin(), origins.end(), origin) != origins.end()) return absl::OkStatus();
  size_t scheme = origin.find("://");
  if (scheme != std::string::npos && absl::EqualsIgnoreCase(origin.substr(scheme + 3), host)) return absl::OkStatus();
  return Error(absl::StatusCode::kPermissionDenied, "ORIGIN_NOT_ALLOWED",
               absl::StrCat("pages of ", Utf8Prefix(origin, 100),
                            " may not use this gateway; allow them with --gateway.allowed-origins"));
}

}  // namespace tutti::gateway
