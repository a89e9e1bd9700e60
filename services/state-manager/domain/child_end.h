// The signal by which a run that waits for another is told of its end: `child/RUN_ID`. Users' signals have no slash.
#pragma once

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tutti::state_manager {

inline std::string ChildEndSignal(absl::string_view run_id) { return absl::StrCat("child/", run_id); }
inline bool IsChildEnd(absl::string_view signal) { return absl::StartsWith(signal, "child/"); }

}  // namespace tutti::state_manager
