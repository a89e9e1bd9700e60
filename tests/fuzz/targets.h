// What is fuzzed: each parser of text from outside, by name. A target returns; it never ends the process, and never
// takes longer than its bounds.
#pragma once

#include <map>
#include <string>

namespace tutti::fuzz {

using Target = void (*)(const std::string& input);
// `json`, `yaml`, `expressions`, `cron`, `filter`, `http`.
const std::map<std::string, Target>& Targets();

}  // namespace tutti::fuzz
