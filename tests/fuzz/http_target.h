// Fuzzes the HTTP server with the bytes of one connection.
#pragma once

#include <string>

namespace tutti::fuzz {

// Sends `input` to a server on loopback as one connection's bytes, and reads what the server answers until it closes.
// Ends the process when that takes longer than ten seconds.
void FuzzHttp(const std::string& input);

}  // namespace tutti::fuzz
