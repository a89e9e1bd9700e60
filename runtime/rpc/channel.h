// Channels to the other services.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class Channel;
class ChannelArguments;
}  // namespace grpc

namespace tutti {

// What every channel of the suite has: retries of UNAVAILABLE with jittered backoff for unary calls (gRFC A6), round
// robin over what a name resolves to, keep-alive, and a bound on message size.
grpc::ChannelArguments DefaultChannelArguments(int max_message_bytes);
// A lazy connection to `host:port` without TLS.
std::shared_ptr<grpc::Channel> ConnectTo(const std::string& address, int max_message_bytes);

}  // namespace tutti
