// Owns runs: registers this engine, keeps its leases, claims runs without an owner, works on them, hands them back.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "runtime/async/channel.h"
#include "runtime/process/service_server.h"
#include "services/workflow-engine/adapters/grpc_effects.h"
#include "services/workflow-engine/adapters/journal_client.h"
#include "services/workflow-engine/adapters/state_client.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "tutti/config/v1/config.pb.h"

namespace prometheus {
class Gauge;
template <class T>
class Family;
class Counter;
}  // namespace prometheus

namespace tutti::engine {

class RunHost {
 public:
  struct Options {
    std::string instance;
    int max_active_runs = 1024;
    int max_waiting_runs = 100000;
    absl::Duration lease_duration = absl::Seconds(5);
  };
  RunHost(Options options, ServiceServer& serving, StateClient& state, AgentPort& agents, ToolPort& tools,
          Evaluator& evaluator, const std::shared_ptr<grpc::Channel>& state_channel);
  ~RunHost();

  void Start();
  // Stops working, gives the leases back. From a thread of its own; blocks.
  void Drain();

  // Stores a run and, when there is room, begins it here. RESOURCE_EXHAUSTED: too many wait. On the service's loop.
  Task<absl::StatusOr<state::CreateRunResponse>> CreateRun(CallContext& call, state::StoredRun run);

 private:
  struct Active {
    std::stop_source stop;
    bool cancelled = false;  // by a caller; else the stop is a drain or a lost lease
  };

  Task<void> LeaseLoop();
  Task<void> EndAll();
  void Cancel(const std::string& run_id);
  Task<void> NewsLoop();
  Task<void> ClaimLoop();
  Task<absl::Status> Claim(CallContext& call);
  void Begin(state::StoredRun run, bool fresh);
  Task<void> Work(state::StoredRun run, bool fresh, std::shared_ptr<Active> active);
  Task<absl::Status> WorkOn(const state::StoredRun& run, bool fresh, Active& active);
  Task<absl::StatusOr<History>> LoadHistory(CallContext& call, const std::string& run_id);
  void DropAll();
  CallContext NewCall();

  const Options options_;
  ServiceServer& serving_;
  StateClient& state_;
  AgentPort& agents_;
  ToolPort& tools_;
  Evaluator& evaluator_;
  JournalClient journal_;
  state::InstanceRef instance_;
  bool registered_ = false;
  int64_t claimable_ = 0;
  std::map<std::string, std::shared_ptr<Active>> active_;
  std::set<std::string> creating_;         // their CreateRun is under way
  std::set<std::string> cancelled_early_;  // of those, asked to stop before they began
  Channel<bool> claim_wanted_;
  std::stop_source stop_;
  prometheus::Gauge& active_gauge_;
  prometheus::Gauge& waiting_gauge_;
  prometheus::Family<prometheus::Counter>& ended_;
  Scope scope_;
};

}  // namespace tutti::engine
