// The hot parts, alone. Run: ./dev bench --benchmark_repetitions=3 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <grpcpp/grpcpp.h>
#include <prometheus/registry.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "runtime/async/scope.h"
#include "runtime/async/sync_wait.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/random/random.h"
#include "runtime/rpc/rpc_server.h"
#include "runtime/time/system_time.h"
#include "services/gateway/domain/transcoder.h"
#include "services/workflow-engine/domain/interpreter.h"
#include "tutti/workflow/v1/run_service.pb.h"

namespace tutti {
namespace {

namespace v1 = tutti::state::v1;

// One unary call within one process over gRPC's in-process transport, to the server's health service, from a thread
// that blocks until it is answered.
void BM_OneHopInProcess(benchmark::State& state) {
  SystemClock clock;
  SystemTimers timers;
  Xoshiro rng(1);
  Tracer tracer("bench", clock, rng, nullptr, 0);
  prometheus::Registry registry;
  RpcMetrics metrics(registry);
  RpcLoop loop("bench");
  Scope scope;
  ServerEnv env{loop, scope, tracer, metrics, clock};
  RpcServer::Options options;
  options.name = "bench";
  auto server = *RpcServer::Start(std::move(options), env, loop.rpc(), timers);
  auto stub = grpc::health::v1::Health::NewStub(server->InProcess());
  for (auto _ : state) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    grpc::health::v1::HealthCheckResponse response;
    (void)stub->Check(&context, request, &response);
  }
  server->Shutdown(absl::Now());
  scope.CloseAndWait();
}
BENCHMARK(BM_OneHopInProcess)->UseRealTime();

class NoAgents final : public engine::AgentPort {
  Task<absl::StatusOr<engine::AgentAnswer>> Execute(CallContext&, engine::Attempt, std::string,
                                                    const tutti::agent::v1::Agent*, Json input) override {
    engine::AgentAnswer answer;
    answer.output = std::move(input);
    co_return answer;
  }
};
class NoTools final : public engine::ToolPort {
  Task<absl::StatusOr<Json>> Execute(CallContext&, engine::Attempt, std::string, Json parameters) override {
    co_return parameters;
  }
};
class NoJournal final : public engine::JournalPort {
  void Post(v1::JournalEntry entry) override { benchmark::DoNotOptimize(entry); }
  Task<absl::Status> Commit(v1::JournalEntry entry) override {
    benchmark::DoNotOptimize(entry);
    co_return absl::OkStatus();
  }
  bool Retract(const std::function<bool(const v1::JournalEntry&)>&) override { return false; }
  Task<absl::Status> Barrier() override { co_return absl::OkStatus(); }
};

class NoOthers final : public engine::ChildPort, public engine::LessonPort, public engine::CachePort {
 public:
  Task<absl::StatusOr<std::string>> StartChild(CallContext&, engine::Attempt, Start) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::StatusOr<Look>> LookAtChild(CallContext&, std::string) override { co_return absl::UnimplementedError(""); }
  Task<absl::Status> CancelChild(CallContext&, std::string) override { co_return absl::UnimplementedError(""); }
  Task<absl::StatusOr<std::vector<std::string>>> Recall(CallContext&, std::string, std::string, int) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::Status> Learn(CallContext&, engine::Attempt, std::string, std::string, double) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::StatusOr<std::optional<Json>>> Get(CallContext&, std::string) override {
    co_return absl::UnimplementedError("");
  }
  Task<absl::Status> Put(CallContext&, std::string, Json, absl::Duration) override {
    co_return absl::UnimplementedError("");
  }
};

Task<absl::StatusOr<Json>> RunOnce(engine::Interpreter& interpreter) {
  auto out = co_await interpreter.Run();
  co_return out;
}

// A step of the interpreter: expressions, journal entry, result; agents and disk cost nothing here.
void BM_InterpreterStep(benchmark::State& state) {
  constexpr int kSteps = 100;
  std::string yaml = "name: bench\nsteps:\n";
  for (int i = 0; i < kSteps; ++i) {
    absl::StrAppend(&yaml, "- {id: s", i,
                    ", agent: {agent: a, input: {n: '${ .input.n }', text: 'for ${ .input.name }'}}}\n");
  }
  tutti::workflow::v1::WorkflowSpec spec;
  if (!ParseYaml(yaml, "bench", &spec).ok()) state.SkipWithError("spec");
  EventLoop loop("bench");
  SystemClock clock;
  SystemTimers timers;
  Xoshiro rng(1);
  Tracer tracer("bench", clock, rng, nullptr, 0);
  engine::Evaluator evaluator;
  NoAgents agents;
  NoTools tools;
  NoJournal journal;
  NoOthers others;
  engine::Admission admission(loop, timers, {});
  engine::SpecialistRecords specialists;
  engine::InterpreterDeps deps{loop,   clock,     timers,     rng,
                               tracer, evaluator, admission,  {agents, tools, others, others, others, journal},
                               {},     {},        specialists};
  for (auto _ : state) {
    engine::RunSubject subject;
    subject.run_id = "run";
    subject.input = Json{{"n", 1}, {"name", "x"}};
    engine::Interpreter interpreter(deps, subject, spec, engine::History(), {}, {});
    auto out = SyncWait(RunOnce(interpreter));
    if (!out.ok()) state.SkipWithError("run");
  }
  state.SetItemsProcessed(state.iterations() * kSteps);
}
BENCHMARK(BM_InterpreterStep);

void BM_Expression(benchmark::State& state) {
  engine::Evaluator evaluator;
  engine::Variables variables;
  variables.Set("input", std::make_shared<const Json>(Json{{"list", {1, 2, 3}}, {"deep", {{"er", {{"text", "x"}}}}}}));
  std::string expression = state.range(0) ? "(.input.list | length) >= 3" : ".input.deep.er.text";
  engine::Evaluator::Context context;
  for (auto _ : state) benchmark::DoNotOptimize(SyncWait(evaluator.Evaluate(expression, variables, context)));
}
BENCHMARK(BM_Expression)->Arg(0)->Arg(1)->ArgName("jq");

void BM_TranscodeStartRun(benchmark::State& state) {
  benchmark::DoNotOptimize(tutti::workflow::v1::StartRunRequest::descriptor());
  auto transcoder = *gateway::Transcoder::Create({"tutti.workflow.v1.RunService"});
  gateway::RestRequest request{
      "POST", "/v1/runs", "application/json", "",
      R"({"workflow":"w","input":{"topic":"tides","list":[1,2,3],"deep":{"er":true}},"requestId":"abc"})"};
  for (auto _ : state) {
    auto call = transcoder->ToCall(request);
    benchmark::DoNotOptimize(call);
  }
}
BENCHMARK(BM_TranscodeStartRun);

void BM_TranscodeRunToJson(benchmark::State& state) {
  auto transcoder = *gateway::Transcoder::Create({"tutti.workflow.v1.RunService"});
  auto call = *transcoder->ToCall({"GET", "/v1/runs/abc", "", "", ""});
  tutti::workflow::v1::GetRunResponse response;
  response.mutable_run()->set_run_id("01m7yzz4xzek4g6bw3svj52k4r");
  response.mutable_run()->mutable_create_time()->set_seconds(1700000000);
  for (int i = 0; i < 5; ++i) response.mutable_run()->add_steps()->set_path(absl::StrCat("brief/stage/step", i));
  for (auto _ : state) benchmark::DoNotOptimize(gateway::Transcoder::ToJsonText(*call.route, response));
}
BENCHMARK(BM_TranscodeRunToJson);

}  // namespace
}  // namespace tutti
