// The configured agents: the built-in ones, and those of the configuration over them.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "tutti/agent/v1/agent.pb.h"

namespace tutti::agent_manager {

class AgentDirectory {
 public:
  // INVALID_ARGUMENT: a configured agent is wrong.
  static absl::StatusOr<AgentDirectory> Create(
      const google::protobuf::RepeatedPtrField<tutti::agent::v1::Agent>& configured);
  const std::map<std::string, tutti::agent::v1::Agent>& agents() const { return agents_; }
  // NOT_FOUND, with the nearest name.
  absl::StatusOr<const tutti::agent::v1::Agent*> Find(const std::string& name) const;

 private:
  std::map<std::string, tutti::agent::v1::Agent> agents_;
};

// The built-in agents as YAML, the same form as in a configuration file.
extern const char kBuiltInAgents[];

}  // namespace tutti::agent_manager
