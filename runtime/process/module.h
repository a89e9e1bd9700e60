// A service as something that a process can hold: its own program holds one, `tutti up` holds six.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/rpc/client_calls.h"

namespace tutti {

// How the services of one process reach those of others.
struct Peers {
  RpcPeer gateway, workflow_engine, agent_manager, tool_service, state_manager, monitoring;
};

class Module {
 public:
  virtual ~Module() = default;
  // Serves; on return the port, when there is one, is open. Errors name what to change.
  virtual absl::Status Start(const Peers& peers) = 0;
  // Stops accepting, ends or hands back what runs until `deadline`. Blocks.
  virtual void Drain(absl::Time deadline) = 0;
};

}  // namespace tutti
