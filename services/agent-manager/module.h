// The agent-manager as a module of a process.
#pragma once

#include "runtime/process/service_main.h"

namespace tutti::agent_manager {

std::unique_ptr<Module> NewAgentManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

}  // namespace tutti::agent_manager
