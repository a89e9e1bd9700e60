#include "services/workflow-engine/module.h"

#include "absl/strings/str_cat.h"
#include "runtime/process/service_server.h"
#include "runtime/status/macros.h"
#include "runtime/time/proto_time.h"
#include "services/workflow-engine/domain/retry.h"
#include "services/workflow-engine/loops/scheduler.h"
#include "services/workflow-engine/rpc/schedule_rpc.h"
#include "services/workflow-engine/rpc/services.h"

namespace tutti::engine {
namespace {

expressions::Limits LimitsOf(const tutti::config::v1::WorkflowEngine& options) {
  expressions::Limits limits;
  limits.time = std::clamp(FromProto(options.expression_time()), absl::Milliseconds(10), absl::Seconds(10));
  limits.memory =
      static_cast<size_t>(std::clamp<int64_t>(options.expression_memory_bytes(), int64_t{1} << 20, int64_t{1} << 30));
  return limits;
}

class WorkflowEngine final : public Module {
 public:
  WorkflowEngine(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone)
      : config_(config),
        standalone_(standalone),
        serving_(runtime, "workflow-engine"),
        expression_thread_(runtime.listens ? std::make_unique<EventLoop>("expressions") : nullptr),
        evaluations_(std::make_unique<expressions::EvaluationQueue>(
            expression_thread_ ? static_cast<Executor&>(*expression_thread_) : serving_.loop())),
        evaluator_({.limits = LimitsOf(config.workflow_engine()), .queue = evaluations_.get()}) {}
  ~WorkflowEngine() override { Drain(absl::Now()); }

  absl::Status Start(const Peers& peers) override {
    const auto& options = config_.workflow_engine();
    Runtime& runtime = serving_.runtime();
    state_ = std::make_unique<StateClient>(peers.state_manager, runtime.local_methods);
    agents_ = std::make_unique<GrpcAgents>(peers.agent_manager, runtime.local_methods);
    tools_ = std::make_unique<GrpcTools>(peers.tool_service, runtime.local_methods);
    names_ = std::make_unique<NameDirectory>(*agents_, *tools_, runtime.clock);
    checker_ = std::make_unique<SpecChecker>(*names_, evaluator_, expression_thread_.get());
    host_ = std::make_unique<RunHost>(
        RunHost::Options{
            .instance = config_.process().instance(),
            .max_active_runs = options.max_active_runs(),
            .max_waiting_runs = options.max_waiting_runs(),
            .lease_duration = std::clamp(FromProto(options.lease_duration()), absl::Seconds(1), absl::Seconds(60)),
            .park_after = std::max(FromProto(options.park_after()), absl::Milliseconds(100)),
            .max_strikes = options.max_strikes(),
            .pause_poisoned = options.pause_poisoned(),
            .admission = {.total = options.max_concurrent_steps(),
                          .per_tenant = options.max_concurrent_steps_per_tenant(),
                          .per_workflow = options.max_concurrent_steps_per_workflow(),
                          .per_target = options.max_concurrent_steps_per_target(),
                          .per_run = options.max_concurrent_steps_per_run()}},
        serving_, *state_, *agents_, *tools_, evaluator_,
        [this](const tutti::workflow::v1::WorkflowSpec& spec) {
          return ValidateSpec(spec, names_->known(), evaluator_);
        },
        [this] { return names_->known(); },
        [this](CallContext& call) -> Task<absl::Status> {
          auto names = co_await names_->Get(call);
          co_return names.status();
        },
        peers.state_manager);
    workflow_rpc_ = std::make_unique<WorkflowRpc>(serving_.env(), *state_, *checker_);
    library_ = std::make_unique<SpecLibrary>(*state_);
    run_rpc_ = std::make_unique<RunRpc>(serving_.env(), *state_, *checker_, *host_, *library_, runtime.ids,
                                        options.max_input_bytes());
    run_rpc_->Offer(runtime.local_methods);
    workflow_rpc_->Offer(runtime.local_methods);
    schedules_ = std::make_unique<ScheduleClient>(*state_);
    auto start = [this](CallContext& call, const tutti::workflow::v1::StartRunRequest& request) {
      return run_rpc_->Create(call, request);
    };
    schedule_rpc_ =
        std::make_unique<ScheduleRpc>(serving_.env(), *schedules_, start,
                                      [this](CallContext& call, const tutti::workflow::v1::StartRunRequest& request) {
                                        return run_rpc_->CheckStart(call, request);
                                      });
    schedule_rpc_->Offer(runtime.local_methods);
    scheduler_ =
        std::make_unique<Scheduler>([this] { return host_->instance(); }, serving_, *state_, *schedules_, start);
    RpcServer::Options server;
    if (!standalone_) server.address = absl::StrCat(config_.process().bind_address(), ":", options.grpc_port());
    server.port_flag = "--workflow-engine.grpc-port";
    server.max_message_bytes = static_cast<int>(config_.process().max_message_bytes());
    server.reflected = {"tutti.workflow.v1.WorkflowService", "tutti.workflow.v1.RunService",
                        "tutti.workflow.v1.ScheduleService"};
    TUTTI_RETURN_IF_ERROR(serving_.Serve(std::move(server)));
    host_->Start();
    scheduler_->Start();
    return absl::OkStatus();
  }
  void Drain(absl::Time deadline) override {
    if (scheduler_) scheduler_->Stop();
    serving_.Drain(deadline);
    if (host_) host_->Drain();
  }

 private:
  const tutti::config::v1::Config& config_;
  const bool standalone_;
  ServiceServer serving_;
  // Runs expressions that take long; null where time is simulated.
  std::unique_ptr<EventLoop> expression_thread_;
  std::unique_ptr<expressions::EvaluationQueue> evaluations_;
  Evaluator evaluator_;
  std::unique_ptr<StateClient> state_;
  std::unique_ptr<GrpcAgents> agents_;
  std::unique_ptr<GrpcTools> tools_;
  std::unique_ptr<NameDirectory> names_;
  std::unique_ptr<SpecChecker> checker_;
  std::unique_ptr<RunHost> host_;
  std::unique_ptr<SpecLibrary> library_;
  std::unique_ptr<WorkflowRpc> workflow_rpc_;
  std::unique_ptr<RunRpc> run_rpc_;
  std::unique_ptr<ScheduleClient> schedules_;
  std::unique_ptr<ScheduleRpc> schedule_rpc_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace

std::unique_ptr<Module> NewWorkflowEngine(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return std::make_unique<WorkflowEngine>(runtime, config, standalone);
}

}  // namespace tutti::engine
