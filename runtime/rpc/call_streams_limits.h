// What both ends of a stream of calls hold to.
#pragma once

#include <cstddef>

namespace tutti::call_streams {

// A larger request is a unary call by itself, so that nobody waits behind it.
inline constexpr size_t kLargestRequest = size_t{64} << 10;
// What of several calls shares a message. Longer responses go in parts.
inline constexpr size_t kMostBytesTogether = size_t{256} << 10;
// About what a call or an answer takes besides its request, response or error.
inline constexpr size_t kEnvelope = 256;
// Under way on one stream.
inline constexpr size_t kMostCalls = 1024;
// Messages that wait to be written; a peer that does not read gets no more calls.
inline constexpr size_t kMostUnsent = 8;

}  // namespace tutti::call_streams
