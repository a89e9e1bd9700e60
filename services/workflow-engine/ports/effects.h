// What a run can do to the world: ask agents, call tools, start other runs, remember, write its journal.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/task.h"
#include "runtime/json/json.h"
#include "runtime/rpc/call_context.h"
#include "tutti/agent/v1/agent.pb.h"
#include "tutti/state/v1/journal.pb.h"
#include "tutti/type/v1/usage.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// One attempt of a step. The effect happens at least once; `idempotency_key` is the same for every delivery of the
// attempt.
struct Attempt {
  std::string run_id;
  std::string step_path;
  std::string idempotency_key;
};

struct AgentAnswer {
  Json output;
  std::vector<tutti::type::v1::ModelUsage> usage;
};

class AgentPort {
 public:
  virtual ~AgentPort() = default;
  // `definition` when the workflow defines the agent itself, else null and `agent` is a configured one.
  virtual Task<absl::StatusOr<AgentAnswer>> Execute(CallContext& call, Attempt attempt, std::string agent,
                                                    const tutti::agent::v1::Agent* definition, Json input) = 0;
};

class ToolPort {
 public:
  virtual ~ToolPort() = default;
  virtual Task<absl::StatusOr<Json>> Execute(CallContext& call, Attempt attempt, std::string tool, Json parameters) = 0;
};

// Other runs, which a run starts and waits for.
class ChildPort {
 public:
  virtual ~ChildPort() = default;
  struct Start {
    std::string workflow;
    int64_t version = 0;  // 0 is the latest
    Json input;
    int priority = 0;
    tutti::workflow::v1::StepBudget budget;  // bounds it beside its own
  };
  struct Look {
    std::optional<absl::StatusOr<Json>> end;  // its output or its error; nothing while it goes on
    tutti::type::v1::UsageTotals used;        // so far
  };
  // The child's run id; the same for every delivery of the attempt.
  virtual Task<absl::StatusOr<std::string>> StartChild(CallContext& call, Attempt attempt, Start start) = 0;
  virtual Task<absl::StatusOr<Look>> LookAtChild(CallContext& call, std::string run_id) = 0;
  virtual Task<absl::Status> CancelChild(CallContext& call, std::string run_id) = 0;
};

// What agents remember from run to run.
class LessonPort {
 public:
  virtual ~LessonPort() = default;
  virtual Task<absl::StatusOr<std::vector<std::string>>> Recall(CallContext& call, std::string agent, std::string about,
                                                                int limit) = 0;
  // The same attempt learns once.
  virtual Task<absl::Status> Learn(CallContext& call, Attempt attempt, std::string agent, std::string lesson,
                                   double importance) = 0;
};

// Answers from before; what is there may be gone at any time.
class CachePort {
 public:
  virtual ~CachePort() = default;
  virtual Task<absl::StatusOr<std::optional<Json>>> Get(CallContext& call, std::string key) = 0;
  virtual Task<absl::Status> Put(CallContext& call, std::string key, Json value, absl::Duration ttl) = 0;
};

// The journal of one run, as its owner writes it. Entries keep their order.
class JournalPort {
 public:
  virtual ~JournalPort() = default;
  // Written soon, at the latest with the next Commit.
  virtual void Post(tutti::state::v1::JournalEntry entry) = 0;
  // Takes back the first posted entry of that kind that has not been sent yet; false when there is none.
  virtual bool Retract(const std::function<bool(const tutti::state::v1::JournalEntry&)>& which) = 0;
  // OK when this entry and all before it are durable. ABORTED: the lease is lost, stop at once. Other errors are
  // retried inside until the call's stop is requested (CANCELLED).
  virtual Task<absl::Status> Commit(tutti::state::v1::JournalEntry entry) = 0;
  // OK when all that was posted is durable; else as Commit. What has an effect outside waits for it: a result is
  // durable before anything is done that builds on it.
  virtual Task<absl::Status> Barrier() = 0;
};

// How many of the entries must be durable before an effect: all up to the last that is no mere beginning.
size_t EndOfResults(const std::vector<tutti::state::v1::JournalEntry>& entries);

// All of them, as the interpreter is given them.
struct Effects {
  AgentPort& agents;
  ToolPort& tools;
  ChildPort& children;
  LessonPort& lessons;
  CachePort& cache;
  JournalPort& journal;
};

}  // namespace tutti::engine
