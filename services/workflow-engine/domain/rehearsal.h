// A workflow rehearsed: walked by the real interpreter against agents, tools, children and signals that a script plays,
// under a clock that jumps over every wait. For users' tests (`tutti test`), and for ours.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "services/workflow-engine/domain/known_names.h"
#include "services/workflow-engine/domain/validator.h"
#include "tutti/state/v1/journal.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// One answer of an agent, a tool or a child workflow.
struct ScriptedAnswer {
  absl::StatusOr<Json> output = Json(nullptr);  // with expressions, which see `.input` and `.call` (from 1)
  absl::Duration takes;                         // on the rehearsal's clock
};

struct Script {
  // By `agent NAME`, `tool NAME` or `workflow NAME`; the last answer repeats. Who has none echoes its input.
  std::map<std::string, std::vector<ScriptedAnswer>> answers;
  // Given when the run waits for a signal of that name, in order; `after` it has begun to wait.
  struct ScriptedSignal {
    std::string name;
    Json payload;
    absl::Duration after;
    std::string sender;
  };
  std::vector<ScriptedSignal> signals;
  // Cancelled when this much time has passed.
  absl::Duration cancel_after = absl::InfiniteDuration();
};

struct Rehearsed {
  absl::StatusOr<Json> output = absl::InternalError("not run");
  std::vector<tutti::state::v1::JournalEntry> history;
  absl::Duration took;             // on the rehearsal's clock
  std::vector<std::string> calls;  // `agent NAME`, `tool NAME`, in order
};

// `spec` must be valid. Ends always: a run that waits for what no script brings fails with DEADLINE_EXCEEDED, saying
// for what.
// `check` says whether a change that an adaptive step proposes would be taken, `known` whom and what its planner is
// told of.
Rehearsed Rehearse(const tutti::workflow::v1::WorkflowSpec& spec, const Json& input, Script script, uint64_t seed,
                   std::function<absl::Status(const tutti::workflow::v1::WorkflowSpec&)> check,
                   const KnownNames& known);

// Which steps and which ways through them were taken, over several rehearsals: cases and none of them, fallbacks,
// handlers, a step's `when` that was not met, a signal that did not come in time.
class Coverage {
 public:
  explicit Coverage(const tutti::workflow::v1::WorkflowSpec& spec);
  void Add(const Rehearsed& rehearsed);
  struct Line {
    std::string path;  // in the spec, as in messages: `steps[1].switch.cases[0]`
    std::string what;  // the step's id and kind
    bool taken = false;
  };
  const std::vector<Line>& lines() const { return lines_; }
  int percent() const;

 private:
  // What an entry of a step says of the way.
  enum class Took { kStep, kSkipped, kDefaulted, kNoCase };
  struct Place {
    std::vector<std::string> parts;  // of paths in a run; `*` is any number
    Took took;
    size_t line;
  };
  void Visit(const google::protobuf::RepeatedPtrField<tutti::workflow::v1::Step>& steps, const std::string& path,
             std::vector<std::string> parts);
  void Way(const std::string& path, const std::string& what, std::vector<std::string> parts, Took took = Took::kStep);

  std::vector<Line> lines_;
  std::vector<Place> places_;
};

}  // namespace tutti::engine
