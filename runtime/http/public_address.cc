#include "runtime/http/public_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace tutti {
namespace {

bool IsPublicV4(uint32_t address) {
  struct Range {
    uint32_t network;
    int bits;
  };
  static constexpr Range kNotPublic[] = {
      {0x00000000, 8},   // this network
      {0x0a000000, 8},   // private
      {0x64400000, 10},  // shared
      {0x7f000000, 8},   // loopback
      {0xa9fe0000, 16},  // link-local
      {0xac100000, 12},  // private
      {0xc0000000, 24},  // protocol assignments
      {0xc0000200, 24},  // documentation
      {0xc0a80000, 16},  // private
      {0xc6120000, 15},  // benchmarks
      {0xc6336400, 24},  // documentation
      {0xcb007100, 24},  // documentation
      {0xe0000000, 3},   // multicast, reserved, broadcast
  };
  for (const Range& range : kNotPublic) {
    if ((address >> (32 - range.bits)) == (range.network >> (32 - range.bits))) return false;
  }
  return true;
}

}  // namespace

bool IsPublicAddress(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return IsPublicV4(ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr));
  }
  if (address->sa_family != AF_INET6) return false;
  const auto& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  const uint8_t* bytes = v6.s6_addr;
  static constexpr uint8_t kNat64[12] = {0x00, 0x64, 0xff, 0x9b};
  if (IN6_IS_ADDR_V4MAPPED(&v6) || IN6_IS_ADDR_V4COMPAT(&v6) || memcmp(bytes, kNat64, sizeof(kNat64)) == 0) {
    uint32_t v4;
    memcpy(&v4, bytes + 12, 4);
    return IsPublicV4(ntohl(v4));
  }
  if (bytes[0] == 0x20 && bytes[1] == 0x02) {  // 6to4
    uint32_t v4;
    memcpy(&v4, bytes + 2, 4);
    return IsPublicV4(ntohl(v4));
  }
  // Only global unicast, without documentation (2001:db8::/32) and Teredo (2001::/32).
  if ((bytes[0] & 0xe0) != 0x20) return false;
  bool special = bytes[0] == 0x20 && bytes[1] == 0x01 &&
                 ((bytes[2] == 0x0d && bytes[3] == 0xb8) || (bytes[2] == 0 && bytes[3] == 0));
  return !special;
}

}  // namespace tutti
