// Stored definitions, kept parsed: a version never changes, so that only which one is the latest must be asked for.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "services/workflow-engine/adapters/state_client.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

struct Definition {
  std::string name;
  int64_t version = 0;
  tutti::workflow::v1::WorkflowSpec spec;
  std::string bytes;  // the spec, serialized
};

// On one executor.
class SpecLibrary {
 public:
  explicit SpecLibrary(StateClient& state) : state_(state) {}

  // The version asked for; 0 is the one that was the latest when it was last looked up, unless `fresh`. NOT_FOUND: no
  // such name or version.
  Task<absl::StatusOr<std::shared_ptr<const Definition>>> Get(CallContext& call, std::string name, int64_t version,
                                                              bool fresh);

 private:
  static constexpr size_t kMostKept = 1000;

  StateClient& state_;
  std::map<std::pair<std::string, int64_t>, std::shared_ptr<const Definition>> kept_;
  std::map<std::string, int64_t> latest_;
};

}  // namespace tutti::engine
