// What all watches share.
#pragma once

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::state_manager {

inline absl::Status TooManyWatchers(absl::string_view what) {
  return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHERS",
               absl::StrCat("too many callers watch this ", what, "; close some, or poll it"))
      .RetryAfter(absl::Seconds(5));
}

// To a reader that left one message lying for longer than the configuration allows: it comes again with its token and
// has lost nothing.
inline absl::Status TooSlow(absl::string_view field, int64_t token) {
  return Error(absl::StatusCode::kAborted, "WATCHER_TOO_SLOW",
               absl::StrCat("the reader was too slow; watch again with ", field, " = ", token, ", nothing is lost"))
      .Metadata(field, absl::StrCat(token))
      .RetryAfter(absl::Seconds(1));
}

inline absl::Status WatcherGone() { return absl::CancelledError("the watcher has gone"); }

}  // namespace tutti::state_manager
