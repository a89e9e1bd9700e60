// What both ends of a stream of calls hold to.
#pragma once

#include <cstddef>

namespace tutti::call_streams {

// A larger request is a unary call by itself, so that nobody waits behind it.
inline constexpr size_t kLargestRequest = size_t{64} << 10;
// A message with as much takes no more. Longer responses go in parts.
inline constexpr size_t kMostBytesTogether = size_t{256} << 10;
// Under way on one stream.
inline constexpr size_t kMostCalls = 1024;

}  // namespace tutti::call_streams
