// Names the fuzz targets, one for each parser of text from outside. A target returns: it neither ends the process nor
// takes longer than its bounds.
#pragma once

#include <map>
#include <string>

namespace tutti::fuzz {

using Target = void (*)(const std::string& input);
// `json`, `yaml`, `expressions`, `cron`, `filter`, `http`.
const std::map<std::string, Target>& Targets();

}  // namespace tutti::fuzz
