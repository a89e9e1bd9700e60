// Monitoring as a module of a process.
#pragma once

#include "runtime/process/service_main.h"

namespace tutti::monitoring {

std::unique_ptr<Module> NewMonitoring(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

}  // namespace tutti::monitoring
