// The state-manager as a module of a process.
#pragma once

#include <functional>

#include "runtime/process/service_main.h"
#include "services/state-manager/adapters/open_database.h"

namespace tutti::state_manager {

std::unique_ptr<Module> NewStateManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

// Over a database that is given instead of the configured one: a simulator's.
using OpenStore =
    std::function<absl::StatusOr<OpenedDatabase>(const tutti::config::v1::StateManager& config, const Clock& clock,
                                                 NewsListener& listener, DeferringWriter* deferrer)>;
std::unique_ptr<Module> NewStateManagerOver(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone,
                                            OpenStore open);

}  // namespace tutti::state_manager
