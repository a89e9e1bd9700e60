// Which addresses belong to everybody.
#pragma once

struct sockaddr;

namespace tutti {

// False for private networks, this machine, link-local, shared, multicast and reserved addresses (IANA special-purpose
// registries), also when they stand in an IPv6 address, and for other families.
bool IsPublicAddress(const sockaddr* address);

}  // namespace tutti
