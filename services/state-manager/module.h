// The state-manager as a module of a process.
#pragma once

#include "runtime/process/service_main.h"

namespace tutti::state_manager {

std::unique_ptr<Module> NewStateManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

}  // namespace tutti::state_manager
