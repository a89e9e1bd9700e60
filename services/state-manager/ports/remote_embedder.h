// An embedder that is reached over a network: asked before a transaction begins, never within one.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/task.h"
#include "runtime/rpc/call_context.h"

namespace tutti::state_manager {

class RemoteEmbedder {
 public:
  virtual ~RemoteEmbedder() = default;
  // Vectors of different names are never compared.
  virtual std::string name() const = 0;
  // UNAVAILABLE, DEADLINE_EXCEEDED, UNAUTHENTICATED …: what the embedder's side said.
  virtual Task<absl::StatusOr<std::vector<float>>> Embed(CallContext& call, std::string text) = 0;
};

}  // namespace tutti::state_manager
