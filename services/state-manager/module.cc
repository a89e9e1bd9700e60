#include "services/state-manager/module.h"

#include "absl/strings/str_cat.h"
#include "runtime/process/service_server.h"
#include "runtime/status/macros.h"
#include "services/state-manager/adapters/sqlite_store.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {
namespace {

class StateManager final : public Module {
 public:
  StateManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone)
      : config_(config), standalone_(standalone), serving_(runtime, "state-manager") {}
  ~StateManager() override { Drain(absl::Now()); }

  absl::Status Start(const PeerChannels&) override {
    const auto& options = config_.state_manager();
    TUTTI_ASSIGN_OR_RETURN(store_, SqliteStore::Open({.data_dir = options.data_dir(),
                                                      .max_batch = static_cast<size_t>(options.max_batch()),
                                                      .max_queue = static_cast<size_t>(options.max_queue())},
                                                     serving_.runtime().clock, hub_));
    journal_ = std::make_unique<JournalRpc>(serving_.env(), *store_, hub_);
    runs_ = std::make_unique<RunStoreRpc>(serving_.env(), *store_);
    workflows_ = std::make_unique<WorkflowStoreRpc>(serving_.env(), *store_);
    leases_ = std::make_unique<LeaseRpc>(serving_.env(), *store_, hub_);
    RpcServer::Options server;
    if (!standalone_) server.address = absl::StrCat(config_.process().bind_address(), ":", options.grpc_port());
    server.port_flag = "--state-manager.grpc-port";
    // Journals carry what the edge let in, and its envelope: twice the edge's limit.
    server.max_message_bytes = static_cast<int>(2 * config_.process().max_message_bytes());
    server.services = {journal_.get(), runs_.get(), workflows_.get(), leases_.get()};
    server.reflected = {"tutti.state.v1.JournalService", "tutti.state.v1.RunStoreService",
                        "tutti.state.v1.WorkflowStoreService", "tutti.state.v1.LeaseService"};
    TUTTI_RETURN_IF_ERROR(serving_.Serve(std::move(server)));
    serving_.log().Info("store open", {{"data_dir", options.data_dir()}});
    return absl::OkStatus();
  }
  std::shared_ptr<grpc::Channel> InProcess() override { return serving_.server().InProcess(); }
  void Drain(absl::Time deadline) override { serving_.Drain(deadline); }

 private:
  const tutti::config::v1::Config& config_;
  const bool standalone_;
  WatchHub hub_;
  std::unique_ptr<SqliteStore> store_;
  std::unique_ptr<JournalRpc> journal_;
  std::unique_ptr<RunStoreRpc> runs_;
  std::unique_ptr<WorkflowStoreRpc> workflows_;
  std::unique_ptr<LeaseRpc> leases_;
  ServiceServer serving_;  // last: ends first
};

}  // namespace

std::unique_ptr<Module> NewStateManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return std::make_unique<StateManager>(runtime, config, standalone);
}

}  // namespace tutti::state_manager
