// Follows a run: a progress bar in a terminal, plain lines elsewhere.
#pragma once

#include <optional>
#include <string>

#include "cli/client.h"
#include "cli/output.h"
#include "tutti/workflow/v1/run.pb.h"

namespace tutti::cli {

// Returns when the run has ended; reconnects and resumes when the stream breaks. With JSON, events are printed one a
// line. `texts`: also what agents say, as they say it; unless said, in a terminal.
absl::Status WatchRun(Client& client, const std::string& run_id, Format format, std::optional<bool> texts,
                      tutti::workflow::v1::RunState* state);
// What each stage took: time, tokens, cost.
void PrintStages(const tutti::workflow::v1::Run& run);

}  // namespace tutti::cli
