// The configuration of a process: flags over environment over file over defaults.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti {

using Environment = std::function<const char*(const char*)>;  // like getenv

// What every field is when nobody sets it. Keys of model providers come from their usual variables.
tutti::config::v1::Config DefaultConfig(const Environment& env);

struct LoadedConfig {
  tutti::config::v1::Config config;
  bool print = false;    // --print-config
  bool help = false;     // --help
  bool version = false;  // --version
};

// `args` without the program's name. INVALID_ARGUMENT names the source of a wrong value, and the nearest known name of
// an unknown one.
absl::StatusOr<LoadedConfig> LoadConfig(const std::vector<std::string>& args, const Environment& env,
                                        const std::vector<std::string>& env_names);

// Every flag with its comment-free type, for --help.
std::string FlagList();
// The names of the process's environment variables.
std::vector<std::string> EnvironmentNames();

}  // namespace tutti
