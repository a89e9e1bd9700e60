// Owns runs: registers this engine, keeps its leases, claims runs without an owner, works on them, hands them back.
// run_host.cc has the leases and claims, run_work.cc the work on one run.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "runtime/async/channel.h"
#include "runtime/process/service_server.h"
#include "services/workflow-engine/adapters/grpc_effects.h"
#include "services/workflow-engine/adapters/journal_client.h"
#include "services/workflow-engine/adapters/pattern_metrics.h"
#include "services/workflow-engine/adapters/state_client.h"
#include "services/workflow-engine/domain/descendants.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "services/workflow-engine/domain/trial.h"
#include "services/workflow-engine/domain/waiting_room.h"
#include "tutti/config/v1/config.pb.h"

namespace prometheus {
class Gauge;
class Counter;
}  // namespace prometheus

namespace tutti::engine {

class RunHost {
 public:
  struct Options {
    std::string instance;
    int max_active_runs = 1024;
    int max_waiting_runs = 100000;
    absl::Duration lease_duration = absl::Seconds(3);
    absl::Duration park_after = absl::Seconds(10);
    int max_strikes = 3;
    bool pause_poisoned = false;
    Admission::Limits admission;
  };
  using Validate = std::function<absl::Status(const tutti::workflow::v1::WorkflowSpec&)>;
  // What Validate knows.
  using Known = std::function<KnownNames()>;
  // Called before runs are claimed and with each heartbeat: brings what Validate knows up to date.
  using Refresh = std::function<Task<absl::Status>(CallContext&)>;
  RunHost(Options options, ServiceServer& serving, StateClient& state, AgentPort& agents, ToolPort& tools,
          Evaluator& evaluator, Validate validate, Known known, Refresh refresh, RpcPeer state_manager);
  ~RunHost();

  void Start();
  // This engine, as its leases name it now.
  const state::InstanceRef& instance() const { return instance_; }
  // Stops working, gives the leases back. From a thread of its own; blocks.
  void Drain();

  // Stores a run and, when there is room, begins it here. RESOURCE_EXHAUSTED: too many of the tenant wait. On the
  // service's loop.
  Task<absl::StatusOr<state::CreateRunResponse>> CreateRun(CallContext& call, state::CreateRunRequest request);
  // The entry with which a run that is worked on here ends; null: it is not here (any more), or the time is over.
  Task<std::shared_ptr<const state::JournalEntry>> AwaitEnd(CallContext& call, std::string run_id, absl::Time deadline);
  // Tells a run that waits for another that it has ended. Best effort: the store tells it too, a little later.
  Task<void> AnnounceEnd(std::string run_id, std::string parent_run_id);

 private:
  using End = std::shared_ptr<const state::JournalEntry>;
  struct Active {
    std::stop_source halt;               // a drain, or a lease that is lost: another goes on
    std::stop_source cancel;             // by a caller
    Interpreter* interpreter = nullptr;  // while it is walked
    std::string tenant;
    bool reading_inbox = false, read_again = false;
    std::unique_ptr<Trials::Turn> trial;                  // of a suspect, until it comes to a wait
    std::vector<std::shared_ptr<OneShot<End>>> watchers;  // of its end
  };

  Task<void> LeaseLoop();
  Task<void> EndAll();
  void Cancel(const std::string& run_id);
  Task<void> NewsLoop();
  Task<void> ClaimLoop();
  Task<absl::Status> Claim(CallContext& call);
  void DropAll();
  CallContext NewCall();

  void Begin(state::StoredRun run, std::shared_ptr<const state::ReadJournalResponse> journal);
  Task<void> Work(state::StoredRun run, std::shared_ptr<const state::ReadJournalResponse> journal,
                  std::shared_ptr<Active> active);
  Task<absl::Status> WorkOn(const state::StoredRun& run, std::shared_ptr<const state::ReadJournalResponse> known,
                            Active& active);
  // The walk; of a suspect with its trial, which ends when the walk comes to a wait.
  Task<absl::StatusOr<Json>> Walk(Interpreter& interpreter, RunJournal& journal, Active& active);
  // Tells the journal that the suspect has come to a wait and its engine lives; then others have their trials.
  Task<bool> Settle(const Interpreter& interpreter, RunJournal& journal, Active& active, const bool& ended);
  // Returns the meter of a tenant's results in this engine.
  std::shared_ptr<ResultMeter> ResultsOf(const std::string& tenant);
  // Ends a run that has killed its engines as failed with POISONED, or pauses it.
  Task<absl::Status> SetAside(const state::StoredRun& run);
  Task<absl::Status> FailPoisoned(const state::StoredRun& run, absl::Status why);
  Task<absl::Status> PausePoisoned(const state::StoredRun& run, const absl::Status& why);
  std::string NewIncarnation();
  Task<absl::StatusOr<History>> LoadHistory(CallContext& call, const std::string& run_id);
  // Brings a run that is walked what others wrote to its journal.
  void LookIntoInbox(const std::string& run_id);
  Task<void> ReadInbox(std::string run_id, std::shared_ptr<Active> active);
  Task<absl::StatusOr<History>> ReadHistory(const state::StoredRun& run, const Active& active,
                                            const state::ReadJournalResponse* known);

  const Options options_;
  ServiceServer& serving_;
  StateClient& state_;
  AgentPort& agents_;
  ToolPort& tools_;
  Evaluator& evaluator_;
  const Validate validate_;
  const Known known_;
  const Refresh refresh_;
  JournalClient journal_;
  Admission admission_;
  Trials trials_;
  Descendants descendants_{10'000};
  std::map<std::string, std::weak_ptr<ResultMeter>> results_;  // by tenant, while runs of it are walked
  SpecialistRecords specialists_;
  PatternMetrics patterns_;
  state::InstanceRef instance_;
  bool registered_ = false;
  WaitingRoom claimable_;  // runs that nobody works on: as the store counted them last, and what is known since
  std::map<std::string, std::shared_ptr<Active>> active_;
  std::multiset<std::string> creating_;    // their CreateRun is under way, perhaps twice
  std::set<std::string> cancelled_early_;  // of those, asked to stop before they began
  Channel<bool> claim_wanted_;
  std::stop_source stop_;
  prometheus::Gauge& active_gauge_;
  prometheus::Gauge& waiting_gauge_;
  prometheus::Gauge& queued_gauge_;
  // Runs that ended here. Their series are looked up once, not with each run.
  prometheus::Counter &succeeded_, &failed_, &cancelled_, &poisoned_;
  std::string process_;  // new at every start, the same for all incarnations of this process
  int64_t incarnations_ = 0;
  // End of this engine's leases by its own clock. No call leaves later.
  absl::Time lease_end_ = absl::InfinitePast();
  Scope scope_;
};

}  // namespace tutti::engine
