// The workflow-engine as a module of a process.
#pragma once

#include "runtime/process/service_main.h"

namespace tutti::engine {

std::unique_ptr<Module> NewWorkflowEngine(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

}  // namespace tutti::engine
