// The tool-service as a module of a process.
#pragma once

#include "runtime/process/service_main.h"

namespace tutti::tool_service {

std::unique_ptr<Module> NewToolService(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone);

}  // namespace tutti::tool_service
