// All six services in one process, joined by in-process channels: `tutti up`.
#pragma once

#include <string>
#include <vector>

namespace tutti {

// `args`: flags as for a single service. Exit codes: 0 a clean end, 1 a failure, 2 a wrong flag or file.
int RunStandalone(const std::vector<std::string>& args);

}  // namespace tutti
