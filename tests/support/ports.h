// Ports for the servers that tests start.
#pragma once

#include <vector>

namespace tutti::testing {

// A TCP port of the loopback that no server listens on and that nothing else will take: it lies below the range from
// which the kernel gives ports to outgoing connections, and while this process lives no other process that asks here
// gets it.
int FreePort();
std::vector<int> FreePorts(int count);

// Whether something accepts connections there now.
bool Accepts(int port);

}  // namespace tutti::testing
