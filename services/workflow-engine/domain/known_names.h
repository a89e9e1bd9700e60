// Whom and what a workflow may use.
#pragma once

#include <map>
#include <string>

namespace tutti::engine {

// By name, with what they are for.
struct KnownNames {
  std::map<std::string, std::string> agents;  // configured ones; those of the spec itself are added
  std::map<std::string, std::string> tools;
};

}  // namespace tutti::engine
