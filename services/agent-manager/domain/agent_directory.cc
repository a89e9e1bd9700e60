#include "services/agent-manager/domain/agent_directory.h"

#include "absl/strings/str_cat.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/nearest_name.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti::agent_manager {

absl::StatusOr<AgentDirectory> AgentDirectory::Create(
    const google::protobuf::RepeatedPtrField<tutti::agent::v1::Agent>& configured) {
  AgentDirectory out;
  tutti::config::v1::AgentManager built_in;
  TUTTI_RETURN_IF_ERROR(ParseYaml(kBuiltInAgents, "built-in agents", &built_in));
  for (const auto& agent : built_in.agents()) out.agents_[agent.name()] = agent;
  for (const auto& agent : configured) {
    if (agent.name().empty()) {
      return Error(absl::StatusCode::kInvalidArgument, "INVALID_AGENT", "agent_manager.agents: an agent has no name");
    }
    out.agents_[agent.name()] = agent;
  }
  return out;
}

absl::StatusOr<const tutti::agent::v1::Agent*> AgentDirectory::Find(const std::string& name) const {
  auto it = agents_.find(name);
  if (it != agents_.end()) return &it->second;
  std::vector<std::string> names;
  for (const auto& [known, agent] : agents_) names.push_back(known);
  return Error(absl::StatusCode::kNotFound, "AGENT_NOT_FOUND",
               absl::StrCat("no agent \"", name, "\"", DidYouMean(name, names), "; `tutti agents list` shows them"))
      .Metadata("agent", name);
}

}  // namespace tutti::agent_manager
