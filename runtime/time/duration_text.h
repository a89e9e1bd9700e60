// Durations as people write them.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tutti {

// `90s`, `1.5h`, `200ms` as absl::ParseDuration, and before those w (7 d) and d (24 h, also where clocks change):
// `30d`, `1w12h`. Not negative. False: it is none.
bool ParseDurationText(absl::string_view text, absl::Duration* out);

}  // namespace tutti
