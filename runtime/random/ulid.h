// Times in ids of IdSource (random.h).
#pragma once

#include <string>

#include "absl/time/time.h"

namespace tutti {

// The least of all ULIDs of that millisecond; ids of earlier ones are less.
std::string FirstUlidOf(absl::Time time);

}  // namespace tutti
