// Names the places of a run in its journal. A path is a list of segments with slashes between: step ids, and the words
// below for what the engine adds. Paths are stored for as long as their runs are: never change a word.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace tutti::step_path {

// Words that an index or a number follows.
inline constexpr char kAttempt[] = "attempt-";    // a block's attempts after the first
inline constexpr char kGated[] = "gated-";        // a step's attempts after the first that its gate has sent back
inline constexpr char kVisit[] = "visit-";        // a pipeline stage's visits after the first
inline constexpr char kRound[] = "round-";        // rounds of reflections and supervisors, from 1
inline constexpr char kTask[] = "task-";          // a supervisor's subtask, by its id
inline constexpr char kTry[] = "try-";            // a subtask's tries after the first
inline constexpr char kCase[] = "case-";          // cases of a switch, from 0
inline constexpr char kFallback[] = "fallback-";  // fallbacks of a step, from 0
inline constexpr char kOnError[] = "on-error-";   // error handlers of a step or of the run, from 0

// Words that stand alone.
inline constexpr char kDefault[] = "default";               // of a switch
inline constexpr char kGate[] = "gate";                     // the judgement of a gate
inline constexpr char kGateFallback[] = "gate-fallback";    // steps in place of one that did not pass its gate
inline constexpr char kCompensate[] = "compensate";         // compensations of a step
inline constexpr char kHedgeCopy[] = "hedge-copy";          // the second start of a slow branch
inline constexpr char kHedgeWinner[] = "hedge-winner";      // records the start that ended first
inline constexpr char kFusionDecided[] = "fusion-decided";  // records the branches that are fused
inline constexpr char kFusionAgent[] = "fusion-agent";

// Returns the path of `segment` below `path`. The empty path is the run.
std::string Below(absl::string_view path, absl::string_view segment);
// Returns the path of the segment `word` with `number`, for example `step/attempt-2`.
std::string Below(absl::string_view path, absl::string_view word, int64_t number);
// Returns the path of a loop's item or iteration, from 0.
std::string Item(absl::string_view path, int64_t index);

// Reports a path that is `root` or stands below it. An empty `root` has nothing below it here.
bool IsAtOrBelow(absl::string_view path, absl::string_view root);
// Reports a path that stands below `root`, in a segment that begins with `word`.
bool IsBelow(absl::string_view path, absl::string_view root, absl::string_view word);
// Reports a path with the segment `word` after its first `from` bytes, and something below the segment.
bool PassesThrough(absl::string_view path, absl::string_view word, size_t from = 0);
// Returns the path without its last segment when the segment begins with `word`; null when another one does.
std::optional<std::string> Without(absl::string_view path, absl::string_view word);

// Calls `on_item(loop, index)` for each place in `path` where an index may stand, with the path before it, from the
// outside in. Stops and returns true when a call returns true.
template <class OnItem>
bool AnyItem(const std::string& path, OnItem on_item);

// Parses the digits at the start of `text` up to a slash or its end; null for anything else.
std::optional<int64_t> IndexAt(absl::string_view text);

template <class OnItem>
bool AnyItem(const std::string& path, OnItem on_item) {
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::optional<int64_t> index = IndexAt(absl::string_view(path).substr(slash + 1));
    if (index && on_item(path.substr(0, slash), *index)) return true;
  }
  return false;
}

}  // namespace tutti::step_path
