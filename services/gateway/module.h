// The gateway as a module of a process.
#pragma once

#include "runtime/process/service_main.h"

namespace tutti::gateway {

std::unique_ptr<Module> NewGateway(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

}  // namespace tutti::gateway
