#include "services/state-manager/module.h"

#include <prometheus/registry.h>

#include <future>

#include "absl/strings/str_cat.h"
#include "runtime/http/curl_http_client.h"
#include "runtime/process/service_server.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/state-manager/adapters/open_database.h"
#include "services/state-manager/adapters/openai_embedder.h"
#include "services/state-manager/loops/courier.h"
#include "services/state-manager/loops/janitor.h"
#include "services/state-manager/loops/pulse.h"
#include "services/state-manager/loops/waker.h"
#include "services/state-manager/rpc/services.h"
#include "services/state-manager/store_metrics.h"

namespace tutti::state_manager {
namespace {

class StateManager final : public Module {
 public:
  StateManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone, OpenStore open)
      : config_(config), standalone_(standalone), open_(std::move(open)), serving_(runtime, "state-manager") {}
  ~StateManager() override { Drain(absl::Now()); }

  absl::Status Start(const Peers&) override {
    const auto& options = config_.state_manager();
    Runtime& runtime = serving_.runtime();
    if (options.memory().at_limit() != "evict" && options.memory().at_limit() != "refuse") {
      return Error(
          absl::StatusCode::kInvalidArgument, "CONFIG",
          absl::StrCat("--state-manager.memory.at-limit is \"", options.memory().at_limit(), "\"; evict or refuse"));
    }
    StateStore::Options store;
    TUTTI_ASSIGN_OR_RETURN(store.keys, ReadKeys());
    store.snapshot_every = std::max(1, options.snapshot_every());
    store.memory.max_per_tenant = std::max<int64_t>(1, options.memory().max_per_tenant());
    store.memory.evict = options.memory().at_limit() == "evict";
    store.memory.runs_here = options.postgres().shard_dsns().empty();
    store.shards = 1 + static_cast<size_t>(options.postgres().shard_dsns_size());
    store_ = std::make_unique<StateStore>(std::move(store), runtime.ids);
    TUTTI_RETURN_IF_ERROR(OpenShards());
    RpcDeps deps{serving_.env(), shards_->home(), *shards_, hub_, store_->audit, FromProto(options.slowest_reader())};
    journal_ = std::make_unique<JournalRpc>(deps, *store_);
    runs_ = std::make_unique<RunStoreRpc>(deps, *store_);
    workflows_ = std::make_unique<WorkflowStoreRpc>(deps, store_->workflows);
    leases_ = std::make_unique<LeaseRpc>(deps, *store_);
    schedules_ = std::make_unique<ScheduleStoreRpc>(deps, store_->schedules);
    cache_ = std::make_unique<CacheRpc>(deps, store_->step_cache);
    contexts_ = std::make_unique<ContextRpc>(deps, store_->contexts);
    if (const auto& embedder = options.memory().embedder(); !embedder.base_url().empty()) {
      if (embedder.model().empty()) {
        return Error(absl::StatusCode::kInvalidArgument, "CONFIG",
                     "--state-manager.memory.embedder.base-url is given, --state-manager.memory.embedder.model is not");
      }
      http_ = NewCurlHttpClient();
      embedder_ = NewOpenAiEmbedder(*http_, embedder.base_url(), embedder.api_key(), embedder.model());
    }
    memories_ = std::make_unique<MemoryRpc>(deps, store_->memories, embedder_.get());
    conversations_ = std::make_unique<ConversationRpc>(deps, store_->conversations);
    sessions_ = std::make_unique<SessionRpc>(deps, store_->sessions);
    audit_ = std::make_unique<AuditRpc>(deps, store_->audit);
    budgets_ = std::make_unique<BudgetRpc>(deps, store_->ledger);
    messages_ = std::make_unique<MessageRpc>(deps, store_->outbox);
    LocalMethods& local = runtime.local_methods;
    journal_->Offer(local);
    runs_->Offer(local);
    workflows_->Offer(local);
    leases_->Offer(local);
    cache_->Offer(local);
    schedules_->Offer(local);
    contexts_->Offer(local);
    memories_->Offer(local);
    conversations_->Offer(local);
    sessions_->Offer(local);
    audit_->Offer(local);
    budgets_->Offer(local);
    messages_->Offer(local);
    RpcServer::Options server;
    if (!standalone_) server.address = absl::StrCat(config_.process().bind_address(), ":", options.grpc_port());
    server.port_flag = "--state-manager.grpc-port";
    // Journals carry what the edge let in, and its envelope: twice the edge's limit.
    server.max_message_bytes = static_cast<int>(2 * config_.process().max_message_bytes());
    for (const char* name : {"JournalService", "RunStoreService", "WorkflowStoreService", "LeaseService",
                             "ContextService", "MemoryService", "ConversationService", "SessionService", "AuditService",
                             "BudgetService", "MessageService", "CacheService", "ScheduleStoreService"}) {
      server.reflected.push_back(absl::StrCat("tutti.state.v1.", name));
    }
    TUTTI_RETURN_IF_ERROR(serving_.Serve(std::move(server)));
    const auto& keep = options.retention();
    Janitor::Options janitor;
    janitor.keep_succeeded = FromProto(keep.succeeded());
    janitor.keep_failed = FromProto(keep.failed());
    janitor.keep_cancelled = FromProto(keep.cancelled());
    janitor.keep_reservations = FromProto(keep.reservations());
    janitor.reencrypt = options.encryption().reencrypt();
    if (!options.encryption().key_dir().empty()) janitor.load_keys = [this] { return ReadKeys(); };
    for (size_t i = 0; i < shards_->size(); ++i) {
      Shard& shard = *databases_[i];
      shard.courier = std::make_unique<Courier>(*shards_, i, *store_, *shard.opened.metrics, hub_, runtime.timers,
                                                serving_.loop(), serving_.log());
      shard.courier->Start();
      janitor.on_tick = [&shard] { shard.metrics->Refresh(); };
      shard.janitor = std::make_unique<Janitor>(janitor, *shards_, i, *store_, hub_, runtime.timers, serving_.loop(),
                                                serving_.log());
      shard.janitor->Start();
      shard.waker =
          std::make_unique<Waker>(*shard.access, store_->leases, runtime.timers, serving_.loop(), serving_.log());
      shard.waker->Start();
    }
    pulse_ = std::make_unique<Pulse>(*shards_, serving_.readiness(), runtime.clock, runtime.timers, serving_.loop(),
                                     serving_.log());
    pulse_->Start();
    serving_.log().Info("store open", {{"database", databases_[0]->opened.description},
                                       {"databases", absl::StrCat(shards_->size())},
                                       {"encrypted", store_->codec.encrypts() ? "true" : "false"}});
    return absl::OkStatus();
  }
  void Drain(absl::Time deadline) override {
    if (pulse_) pulse_->Stop();
    for (auto& shard : databases_) {
      if (shard->janitor) shard->janitor->Stop();
      if (shard->waker) shard->waker->Stop();
      if (shard->courier) shard->courier->Stop();
    }
    serving_.Drain(deadline);
  }

 private:
  absl::StatusOr<Keys> ReadKeys() const {
    const auto& encryption = config_.state_manager().encryption();
    return LoadKeys(encryption.key_dir(), {encryption.keys().begin(), encryption.keys().end()},
                    encryption.active_key());
  }
  // One database of the store, and what works on it.
  struct Shard {
    std::unique_ptr<Access> access;  // outlives the database's last answers
    OpenedDatabase opened;
    std::unique_ptr<StoreMetrics> metrics;
    std::unique_ptr<Courier> courier;
    std::unique_ptr<Janitor> janitor;
    std::unique_ptr<Waker> waker;
  };

  absl::Status OpenShards() {
    Runtime& runtime = serving_.runtime();
    auto configs = ShardConfigs(config_.state_manager());
    std::vector<Access*> all;
    std::string store_id;
    for (size_t i = 0; i < configs.size(); ++i) {
      Shard& shard = *databases_.emplace_back(std::make_unique<Shard>());
      TUTTI_ASSIGN_OR_RETURN(shard.opened, open_(configs[i], runtime.clock, hub_, &store_->journal));
      shard.metrics = std::make_unique<StoreMetrics>(*runtime.metrics, *shard.opened.metrics, static_cast<int>(i));
      shard.access = std::make_unique<Access>(*shard.opened.database, runtime.timers, runtime.clock);
      std::string claimed;
      TUTTI_RETURN_IF_ERROR(Settle(*shard.opened.database, [&](Transaction& tx) {
        claimed = store_id;  // each try begins with what is known for certain
        return ClaimShard(tx, i, configs.size(), runtime.ids.NewUlid(), claimed);
      }));
      store_id = claimed;
      TUTTI_RETURN_IF_ERROR(
          Settle(*shard.opened.database, [this](Transaction& tx) { return CheckKeys(tx, store_->keys); }));
      all.push_back(shard.access.get());
    }
    shards_ = std::make_unique<Shards>(std::move(all));
    return absl::OkStatus();
  }
  // A write, waited for.
  static absl::Status Settle(Database& database, absl::AnyInvocable<absl::Status(Transaction&)> apply) {
    std::promise<absl::Status> done;
    WriteOp op;
    op.apply = std::move(apply);
    op.finish = [&done](const absl::Status& status) { done.set_value(status); };
    database.Write(std::move(op));
    return done.get_future().get();
  }

  const tutti::config::v1::Config& config_;
  const bool standalone_;
  const OpenStore open_;
  // What is used is declared before its users: the database ends before the store that its last writes still use.
  WatchHub hub_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<Shards> shards_;
  std::vector<std::unique_ptr<Shard>> databases_;
  std::unique_ptr<Pulse> pulse_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<RemoteEmbedder> embedder_;
  std::unique_ptr<JournalRpc> journal_;
  std::unique_ptr<RunStoreRpc> runs_;
  std::unique_ptr<WorkflowStoreRpc> workflows_;
  std::unique_ptr<LeaseRpc> leases_;
  std::unique_ptr<CacheRpc> cache_;
  std::unique_ptr<ScheduleStoreRpc> schedules_;
  std::unique_ptr<ContextRpc> contexts_;
  std::unique_ptr<MemoryRpc> memories_;
  std::unique_ptr<ConversationRpc> conversations_;
  std::unique_ptr<SessionRpc> sessions_;
  std::unique_ptr<AuditRpc> audit_;
  std::unique_ptr<BudgetRpc> budgets_;
  std::unique_ptr<MessageRpc> messages_;
  ServiceServer serving_;
};

}  // namespace

std::unique_ptr<Module> NewStateManagerOver(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone,
                                            OpenStore open) {
  return std::make_unique<StateManager>(runtime, config, standalone, std::move(open));
}

std::unique_ptr<Module> NewStateManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return NewStateManagerOver(runtime, config, standalone, OpenDatabase);
}

}  // namespace tutti::state_manager
