// The suite from outside, in both forms: one process and six.
#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/grpc_status.h"
#include "tests/support/postgres_server.h"
#include "tests/support/suite_process.h"
#include "tutti/agent/v1/agent_service.grpc.pb.h"
#include "tutti/monitoring/v1/monitoring_service.grpc.pb.h"
#include "tutti/state/v1/audit_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::testing {
namespace {

namespace v1 = tutti::workflow::v1;
using ::testing::HasSubstr;

std::string Corpus() { return SourceDir() + "/build/demo-corpus"; }

// The forms in which a suite runs, and what its state-manager stands on.
struct Setup {
  Form form;
  int postgres_databases = 0;  // 0 is SQLite; over several, runs are spread
};

class SuiteTest : public ::testing::TestWithParam<Setup> {
 protected:
  static void SetUpTestSuite() { signal(SIGPIPE, SIG_IGN); }
  SuiteTest() : dir_(NewTempDir("e2e")) {
    provider_port_ = FreePorts(1)[0];
    config_ = dir_ + "/config.yaml";
    std::ofstream(config_) << absl::StrCat(R"(
agent_manager:
  openai: {base_url: "http://127.0.0.1:)",
                                           provider_port_, R"(/v1", api_key: test-key, model: gpt-test}
  anthropic: {base_url: "http://127.0.0.1:)",
                                           provider_port_, R"(", api_key: test-key, model: claude-test}
  default_provider: local
  prices:
  - {model: "gpt-*", input_nano_units_per_million: 150000000, output_nano_units_per_million: 600000000}
  agents:
  - {name: open, tools: [calculate], model: {provider: openai}}
  - {name: anthro, tools: [calculate], model: {provider: anthropic}}
  - {name: odd, tools: [calculate], model: {provider: openai, model: odd}}
  - {name: busy, model: {provider: openai, model: overloaded}}
  - {name: slow, model: {provider: openai, model: slow}}
  - {name: slow-anthro, model: {provider: anthropic, model: slow}}
  - {name: cut, model: {provider: anthropic, model: cut}}
)");
    std::vector<std::string> flags = {"--config=" + config_, "--tool-service.document-roots=" + Corpus() + "," + dir_};
    for (int i = 0; i < GetParam().postgres_databases && SharedPostgres() != nullptr; ++i) {
      flags.push_back(absl::StrCat("--state-manager.postgres.", i == 0 ? "dsn=" : "shard-dsns=",
                                   SharedPostgres()->Dsn(*SharedPostgres()->NewDatabase())));
    }
    suite_ = std::make_unique<SuiteProcess>(
        SuiteProcess::Options{.form = GetParam().form, .data_dir = dir_ + "/data", .flags = flags});
  }
  // The suite, and the models that its configuration names.
  bool StartWithProvider() {
    provider_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{"/usr/bin/python3", SourceDir() + "/tests/clients/fake_provider.py",
                                 absl::StrCat(provider_port_), dir_ + "/count"},
        dir_ + "/provider.log");
    return suite_->Start() &&
           Eventually(
               [&] {
                 return Shell(absl::StrCat("curl -s -o /dev/null http://127.0.0.1:", provider_port_, "/")).second == 0;
               },
               10);
  }
  ~SuiteTest() override {
    suite_.reset();
    std::filesystem::remove_all(dir_);
  }
  void Apply(const std::string& file) {
    auto stub = v1::WorkflowService::NewStub(suite_->channel());
    grpc::ClientContext context;
    v1::CreateWorkflowRequest request;
    *request.mutable_spec() = SpecFromYaml(ReadAll(file));
    v1::CreateWorkflowResponse response;
    grpc::Status status = stub->CreateWorkflow(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  absl::StatusOr<v1::Run> StartSpec(const std::string& yaml, Json input = Json::object(),
                                    const std::string& request_id = "") {
    auto stub = suite_->runs();
    grpc::ClientContext context;
    v1::StartRunRequest request;
    *request.mutable_spec() = SpecFromYaml(yaml);
    ToProto(input, request.mutable_input());
    request.set_request_id(request_id);
    v1::StartRunResponse response;
    absl::Status status = FromGrpc(stub->StartRun(&context, request, &response));
    if (!status.ok()) return status;
    return response.run();
  }
  // HTTP status, a space, the body.
  std::string Curl(const std::string& arguments) {
    return Shell("curl -sS --max-time 20 -o '" + dir_ + "/answer' -w '%{http_code} ' " + arguments + " && cat '" +
                 dir_ + "/answer'")
        .first;
  }
  std::string Post(const std::string& path, const std::string& body) {
    std::ofstream(dir_ + "/body", std::ios::binary) << body;
    return Curl("-X POST -H 'Content-Type: application/json' --data-binary @'" + dir_ + "/body' '" +
                suite_->http_url() + path + "'");
  }
  std::string Get(const std::string& path) { return Curl("-g '" + suite_->http_url() + path + "'"); }

  const std::string dir_;
  std::string config_;
  int provider_port_ = 0;
  std::unique_ptr<ChildProcess> provider_;
  std::unique_ptr<SuiteProcess> suite_;
};

INSTANTIATE_TEST_SUITE_P(Forms, SuiteTest,
                         ::testing::Values(Setup{Form::kOneProcess}, Setup{Form::kSixProcesses},
                                           Setup{Form::kSixProcesses, 2}),
                         [](const auto& info) {
                           std::string name = info.param.form == Form::kOneProcess ? "OneProcess" : "SixProcesses";
                           return name + (info.param.postgres_databases > 0 ? "OnPostgres" : "");
                         });

TEST_P(SuiteTest, DoesTheMainJobForClientsInThreeLanguages) {
  ASSERT_TRUE(suite_->Start());
  Apply(SourceDir() + "/examples/research-brief.yaml");
  std::string generated = dir_ + "/py";
  std::filesystem::create_directories(generated);
  auto protoc = Shell("cd '" + SourceDir() + "/proto' && protoc -I. --python_out='" + generated +
                      "' $(find . -name '*.proto' -not -path './grpc/*') 2>&1");
  ASSERT_EQ(protoc.second, 0) << protoc.first;
  std::string clients = SourceDir() + "/tests/clients/";
  for (const std::string& command : {"/usr/bin/python3 " + clients + "main_job.py " + suite_->grpc_address() + " " +
                                         Corpus() + " " + generated + " 2>&1",
                                     clients + "main_job_curl.sh " + suite_->http_url() + " " + Corpus() + " 2>&1",
                                     clients + "main_job_buf.sh " + SourceDir() + "/node_modules/.bin/buf " +
                                         suite_->grpc_address() + " " + Corpus()}) {
    auto [text, code] = Shell(command);
    ASSERT_EQ(code, 0) << command << "\n" << text << suite_->logs();
    Json output = Json::parse(text, nullptr, false);
    ASSERT_TRUE(output.is_object()) << text;
    EXPECT_THAT(output["markdown"].get<std::string>(), HasSubstr("## Abstract"));
    EXPECT_THAT(output["markdown"].get<std::string>(), HasSubstr("debian-policy.pdf, page "));
    EXPECT_GE(output["citations"].size(), 5u);
  }
  // What it consumed is known by step and by agent, and the trace crosses the services.
  Json runs = Json::parse(Get("/v1/runs?filter="
                              "state%20%3D%20%22SUCCEEDED%22")
                              .substr(4));
  ASSERT_EQ(runs["runs"].size(), 3u);
  std::string run_id = runs["runs"][0]["runId"];
  Json usage = Json::parse(Get("/v1/runs/" + run_id + "/usage?group_by=agent").substr(4));
  EXPECT_EQ(usage["rows"].size(), 4u) << "researcher, analyst, writer, critic";
  std::set<std::string> services;
  std::string trace_id = runs["runs"][0]["traceId"];
  EXPECT_TRUE(Eventually(
      [&] {
        std::string answer = Get("/v1/traces/" + trace_id);
        if (!absl::StartsWith(answer, "200")) return false;
        Json trace = Json::parse(answer.substr(4));
        for (const auto& span : trace["spans"]) services.insert(span["service"].get<std::string>());
        return services.size() >= 5;
      },
      15))
      << services.size() << " of trace " << trace_id << ": " << Get("/v1/traces/" + trace_id).substr(0, 300);
}

TEST_P(SuiteTest, RefusesBadInputBeforeAnythingIsStored) {
  ASSERT_TRUE(suite_->Start());
  std::string step = R"({"id":"a","transform":{"value":1}})";
  struct Case {
    std::string body, code, text;
  };
  for (const Case& c : std::vector<Case>{
           {"{\"spec\": {", "400", "INVALID_JSON"},
           {"not json", "400", "INVALID_JSON"},
           {"{\"workflow\": 7}", "400", "workflow"},
           {"{\"workflw\": \"x\"}", "400", "workflw"},
           {"{}", "400", "one of workflow"},
           {"{\"workflow\": \"none\"}", "404", "WORKFLOW_NOT_FOUND"},
           {"{\"spec\":{\"name\":\"x\",\"steps\":[{\"id\":\"a\",\"agent\":{\"agent\":\"resercher\"}}]}}", "400",
            "did you mean \\\"researcher\\\"?"},
           {"{\"spec\":{\"name\":\"x\",\"steps\":[{\"id\":\"a\",\"when\":\"1 +\",\"transform\":{\"value\":1}}]}}",
            "400", "spec.steps[0].when"},
           {"{\"spec\":{\"name\":\"x\",\"inputSchema\":{\"type\":\"object\",\"required\":[\"topic\"]},\"steps\":[" +
                step + "]}}",
            "400", "topic"},
           {"{\"workflow\": \"\xff\xfe\"}", "400", "UTF-8"},
           {"{\"input\": " + std::string(2000, '[') + std::string(2000, ']') + "}", "400", ""},
           {"{\"workflow\":\"x\",\"requestId\":\"" + std::string(40, 'a') + "\"}", "400", "request_id"},
           {"{\"spec\":{\"name\":\"x\",\"steps\":[" + step + "]},\"input\":\"" + std::string(5 << 20, 'x') + "\"}",
            "413", "4194304"}}) {
    std::string answer = Post("/v1/runs", c.body);
    EXPECT_EQ(answer.substr(0, 3), c.code) << c.body.substr(0, 100) << "\n" << answer.substr(0, 400);
    EXPECT_THAT(answer, HasSubstr(c.text)) << c.body.substr(0, 100);
  }
  EXPECT_THAT(Get("/v1/runs/none"), ::testing::AllOf(::testing::StartsWith("404"), HasSubstr("RUN_NOT_FOUND")));
  EXPECT_THAT(Get("/v1/runs?page_token=rubbish"), ::testing::StartsWith("400"));
  EXPECT_THAT(Get("/v1/runs?page_size=-1"), ::testing::StartsWith("400"));
  EXPECT_THAT(Get("/v1/runs/none:watch"), ::testing::StartsWith("404"));
  EXPECT_THAT(Post("/v1/agents/nobody:invoke", "{\"input\":1}"),
              ::testing::AllOf(::testing::StartsWith("404"), HasSubstr("AGENT_NOT_FOUND")));
  EXPECT_THAT(Post("/v1/tools/nothing:call", "{}"), ::testing::StartsWith("404"));
  EXPECT_THAT(Post("/v1/tools/calculate:call", "{\"parameters\":{\"expression\":5}}"),
              ::testing::AllOf(::testing::StartsWith("400"), HasSubstr("parameters.expression")));
  EXPECT_THAT(Post("/v1/tools/documents_list:call", "{\"parameters\":{\"folder\":\"/etc\"}}"),
              ::testing::StartsWith("403"));
  EXPECT_THAT(Post("/v1/tools/documents_list:call", "{\"parameters\":{\"folder\":\"" + dir_ + "/none\"}}"),
              ::testing::StartsWith("404"));
  EXPECT_THAT(Get("/v1/runs"), HasSubstr("200 {\"runs\":[]}")) << "nothing was stored";
  // What a page of another site can make a browser send, and a name that was made to point here.
  const std::string runs = "'" + suite_->http_url() + "/v1/runs' ";
  EXPECT_THAT(Curl("-H 'Host: evil.example' " + runs), HasSubstr("HOST_NOT_ALLOWED"));
  EXPECT_THAT(Curl("-H 'Origin: http://evil.example' " + runs), HasSubstr("ORIGIN_NOT_ALLOWED"));
  EXPECT_THAT(Curl("-X POST -H 'Content-Type: text/plain' -d '{\"workflow\":\"hello\"}' " + runs),
              HasSubstr("UNSUPPORTED_MEDIA_TYPE"));
  // A body that once held the gateway for ten minutes.
  EXPECT_THAT(Post("/v1/runs", "{\"workflow\":\"hello\",\"input\":{\"text\":" + std::string(100'000, '[')),
              ::testing::AllOf(::testing::StartsWith("400"), HasSubstr("nested deeper than")));
  // A folder in which nothing can be read ends the run with a reason, and the suite goes on.
  std::filesystem::create_directories(dir_ + "/bad");
  std::ofstream(dir_ + "/bad/x.pdf") << "no pdf";
  auto run = StartSpec("name: x\nsteps: [{id: a, tool: {tool: documents_list, parameters: {folder: '${ .input.f }'}}}]",
                       {{"f", dir_ + "/bad"}});
  ASSERT_TRUE(run.ok()) << run.status();
  v1::Run ended = WaitForEnd(*suite_, run->run_id(), 20);
  EXPECT_EQ(ended.state(), v1::RUN_STATE_FAILED);
  EXPECT_THAT(ended.error().message(), HasSubstr("x.pdf (damaged"));
}

TEST_P(SuiteTest, AnInputOverTheLimitIsRefusedOverGrpcToo) {
  ASSERT_TRUE(suite_->Start());
  auto run = StartSpec("name: x\nsteps: [{id: a, transform: {value: 1}}]", {{"x", std::string((4 << 20) + 100, 'x')}});
  EXPECT_EQ(run.status().code(), absl::StatusCode::kResourceExhausted) << run.status();
  EXPECT_THAT(std::string(run.status().message()), HasSubstr("4194304"));
}

TEST_P(SuiteTest, TheSameRequestIdStartsOneRunAndListsPageByPage) {
  ASSERT_TRUE(suite_->Start());
  std::string spec = "name: x\nsteps: [{id: a, transform: {value: '${ .input }'}}]";
  auto first = StartSpec(spec, {{"n", 1}}, "same");
  auto second = StartSpec(spec, {{"n", 2}}, "same");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->run_id(), second->run_id());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(StartSpec(spec).ok());
  std::set<std::string> seen;
  std::string token;
  int pages = 0;
  do {
    Json page = Json::parse(Get("/v1/runs?page_size=2" + (token.empty() ? "" : "&page_token=" + token)).substr(4));
    for (const auto& run : page["runs"]) EXPECT_TRUE(seen.insert(run["runId"].get<std::string>()).second);
    token = page.value("nextPageToken", "");
    ++pages;
  } while (!token.empty());
  EXPECT_EQ(seen.size(), 5u);
  EXPECT_EQ(pages, 3);
  // By time: who came after the second, and until then. Ids are in the order of creation.
  auto listed = [&](const std::string& filter) {
    grpc::ClientContext context;
    v1::ListRunsRequest request;
    request.set_filter(filter);
    v1::ListRunsResponse response;
    const grpc::Status status = suite_->runs()->ListRuns(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<v1::Run> runs(response.runs().begin(), response.runs().end());
    std::reverse(runs.begin(), runs.end());
    return runs;
  };
  const auto all = listed("");
  ASSERT_EQ(all.size(), 5u);
  const std::string time = google::protobuf::util::TimeUtil::ToString(all[1].create_time());
  const auto after = listed("create_time > \"" + time + "\""), until = listed("create_time <= \"" + time + "\"");
  ASSERT_EQ(after.size(), 3u);
  ASSERT_EQ(until.size(), 2u);
  EXPECT_EQ(after[0].run_id(), all[2].run_id());
  EXPECT_EQ(until[1].run_id(), all[1].run_id());
  EXPECT_THAT(Get("/v1/runs?filter=create_time%3E%22yesterday%22"), ::testing::StartsWith("400"));
}

// Money is counted from what the provider says it took, and what it has bought stays bought.
TEST_P(SuiteTest, ABudgetOfMoneyEndsWhatSpendsIt) {
  ASSERT_TRUE(StartWithProvider());
  auto run = StartSpec(R"(
name: spender
steps:
- id: bounded
  budget: {cost_nano_units: 500000}
  pipeline:
    stages:
    - {id: all, steps: [{id: a, agent: {agent: open, input: hello}}, {id: b, agent: {agent: open, input: hello}}, {id: c, agent: {agent: open, input: hello}}]}
)");
  ASSERT_TRUE(run.ok()) << run.status();
  v1::Run ended = WaitForEnd(*suite_, run->run_id(), 20);
  ASSERT_EQ(ended.state(), v1::RUN_STATE_FAILED);
  EXPECT_THAT(ended.error().message(), ::testing::AllOf(HasSubstr("budget"), HasSubstr("500000")));
  // `a` and `b` ask the model twice each, for 150,000 that go in and 60,000 that come out; `b` goes beyond, `c` never
  // begins.
  EXPECT_EQ(ended.usage().calls(), 4);
  EXPECT_EQ(ended.usage().cost_nano_units(), 4 * (1000 * 150 + 100 * 600));
  const std::string asked = ReadAll(dir_ + "/count");
  EXPECT_EQ(std::count(asked.begin(), asked.end(), '\n'), 4);
}

TEST_P(SuiteTest, CancelsARunThatWaits) {
  ASSERT_TRUE(suite_->Start());
  auto run = StartSpec(
      "name: x\nsteps: [{id: a, tool: {tool: calculate, parameters: {expression: '1/0'}}, retry: {max_attempts: 2, "
      "initial_backoff: 3600s, max_backoff: 3600s, retryable_codes: [INVALID_ARGUMENT]}}]");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_TRUE(
      Eventually([&] { return absl::StrContains(Get("/v1/runs/" + run->run_id()), "STEP_STATE_RETRYING"); }, 10));
  EXPECT_THAT(Post("/v1/runs/" + run->run_id() + ":cancel", "{\"reason\":\"enough\"}"), ::testing::StartsWith("200"));
  EXPECT_EQ(WaitForEnd(*suite_, run->run_id(), 10).state(), v1::RUN_STATE_CANCELLED);
  EXPECT_THAT(Post("/v1/runs/" + run->run_id() + ":cancel", "{}"), ::testing::StartsWith("200")) << "idempotent";
}

TEST_P(SuiteTest, TalksToOpenAiAndAnthropicWithTools) {
  ASSERT_TRUE(StartWithProvider());
  auto run = StartSpec(
      "name: x\nsteps: [{id: o, agent: {agent: open, input: hello}}, {id: a, agent: {agent: anthro, input: "
      "hello}}, {id: d, agent: {agent: odd, input: hello}}]\noutput: ['${ .o }', '${ .a }', '${ .d }']");
  ASSERT_TRUE(run.ok()) << run.status();
  v1::Run ended = WaitForEnd(*suite_, run->run_id(), 20);
  ASSERT_EQ(ended.state(), v1::RUN_STATE_SUCCEEDED) << ended.error().message() << ReadAll(dir_ + "/provider.log");
  Json output = ToJson(ended.output());
  EXPECT_THAT(output[0].get<std::string>(), HasSubstr("\"value\":\"0.3\""))
      << "the tool's answer went to the model and back";
  EXPECT_THAT(output[1].get<std::string>(), HasSubstr("\"value\":\"0.3\""));
  EXPECT_THAT(output[2].get<std::string>(), HasSubstr("\"value\":\"0.3\""));
  EXPECT_EQ(ended.usage().calls(), 6);
  EXPECT_EQ(ended.usage().input_tokens(), 6000);
  EXPECT_EQ(ended.usage().cost_nano_units(), 2 * (1000 * 150 + 100 * 600)) << "only the OpenAI model has a price";
  EXPECT_THAT(ReadAll(dir_ + "/count"), HasSubstr(run->run_id() + "/o/1"));
  std::string answer = Post("/v1/agents/busy:invoke", "{\"input\":\"x\"}");
  EXPECT_THAT(answer, ::testing::AllOf(::testing::StartsWith("503"), HasSubstr("try later"), HasSubstr("7s")));
}

// Channels deliver a call again when its answer was lost: what it makes is made once, also without a request_id.
TEST_P(SuiteTest, ACallThatIsDeliveredTwiceActsOnce) {
  if (GetParam().form == Form::kOneProcess) GTEST_SKIP() << "nothing is delivered twice in one process";
  ASSERT_TRUE(suite_->Start());
  auto engine = grpc::CreateChannel(suite_->address(1), grpc::InsecureChannelCredentials());
  const std::string id = "01j00000000000000000000000", other = "01j00000000000000000000001";
  auto start = [](const std::shared_ptr<grpc::Channel>& to, const std::string& call_id) {
    grpc::ClientContext context;
    context.AddMetadata("tutti-call-id", call_id);
    v1::StartRunRequest request;
    *request.mutable_spec() = SpecFromYaml(
        "name: x\nsteps: [{id: w, wait_for_signal: {signal: go}}, {id: v, wait_for_signal: {signal: go}}]");
    v1::StartRunResponse response;
    grpc::Status status = v1::RunService::NewStub(to)->StartRun(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.run().run_id();
  };
  // A service that has just begun may not have found all others yet; who calls it by itself waits for that.
  ASSERT_TRUE(Eventually(
      [&] {
        grpc::ClientContext context;
        v1::StartRunRequest request;
        *request.mutable_spec() = SpecFromYaml("name: y\nsteps: [{id: a, transform: {value: 1}}]");
        v1::StartRunResponse response;
        return v1::RunService::NewStub(engine)->StartRun(&context, request, &response).ok();
      },
      20));
  std::string run_id = start(engine, id);
  EXPECT_EQ(start(engine, id), run_id);
  EXPECT_NE(start(engine, other), run_id);
  EXPECT_NE(start(suite_->channel(), id), run_id) << "who calls from outside does not choose";
  EXPECT_NE(start(engine, "not an id"), "not an id");
  auto signal = [&](const std::string& call_id) {
    grpc::ClientContext context;
    context.AddMetadata("tutti-call-id", call_id);
    v1::SignalRunRequest request;
    request.set_run_id(run_id);
    request.set_signal("go");
    v1::SignalRunResponse response;
    grpc::Status status = v1::RunService::NewStub(engine)->SignalRun(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.offset();
  };
  int64_t offset = signal(other);
  EXPECT_EQ(signal(other), offset);
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Get("/v1/runs/" + run_id), R"("path":"v")"); }, 10));
  EXPECT_FALSE(absl::StrContains(Get("/v1/runs/" + run_id), "RUN_STATE_SUCCEEDED")) << "one signal, one wait";
  EXPECT_GT(signal(id), offset);
  EXPECT_EQ(WaitForEnd(*suite_, run_id, 10).state(), v1::RUN_STATE_SUCCEEDED);
}

TEST_P(SuiteTest, WhatAgentsSayIsSeenAsTheySayIt) {
  ASSERT_TRUE(StartWithProvider());
  auto run = StartSpec(
      "name: x\nsteps: [{id: p, parallel: {branches: [{id: b, steps: [{id: o, agent: {agent: slow, input: 'Grüße, 漢字 "
      "and "
      "so on'}}]}, {id: c, steps: [{id: a, agent: {agent: slow-anthro, input: 'a tale'}}]}]}}]\noutput: '${ .p }'");
  ASSERT_TRUE(run.ok()) << run.status();
  v1::WatchRunRequest request;
  request.set_run_id(run->run_id());
  request.set_texts(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  auto stream = v1::RunService::NewStub(suite_->channel())->WatchRun(&context, request);
  std::map<std::string, std::string> said;
  std::set<std::string> ended;
  bool listening = false, half = false;  // the models begin when the watch has: what comes before it is missed
  int64_t offset = 0;
  int32_t progress = 0;
  v1::WatchRunResponse response;
  while (stream->Read(&response)) {
    if (!std::exchange(listening, true)) std::ofstream(dir_ + "/count.listen") << "go";
    const v1::RunEvent& event = response.event();
    EXPECT_GE(event.progress_percent(), progress) << "only grows";
    progress = event.progress_percent();
    if (event.has_step() && event.step().state() == v1::STEP_STATE_SUCCEEDED) ended.insert(event.step().path());
    if (!event.has_text()) {
      EXPECT_GT(event.offset(), offset);
      offset = event.offset();
      continue;
    }
    const v1::AgentText& text = event.text();
    EXPECT_EQ(event.offset(), offset) << "a text has no place of its own";
    EXPECT_EQ(ended.count(text.path()), 0u) << "what is said comes before the step's end";
    EXPECT_EQ(text.turn(), 1);
    // Nothing is doubled, and no gap is silent.
    std::string& so_far = said[text.path()];
    EXPECT_GE(text.offset(), static_cast<int64_t>(so_far.size()));
    so_far.resize(static_cast<size_t>(text.offset()), '?');
    so_far += text.text();
    if (said.size() == 2 && !std::exchange(half, true)) {
      EXPECT_TRUE(ended.empty()) << "both models are still speaking";
      std::ofstream(dir_ + "/count.go") << "go";
    }
  }
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(half);
  v1::Run done = WaitForEnd(*suite_, run->run_id(), 20);
  ASSERT_EQ(done.state(), v1::RUN_STATE_SUCCEEDED) << done.error().message() << ReadAll(dir_ + "/provider.log");
  for (const auto& [path, text] : said) {
    std::string whole = path == "p/b/o" ? "the answer: Grüße, 漢字 and so on" : "the answer: a tale";
    ASSERT_EQ(text.size(), whole.size()) << path << ": " << text;
    EXPECT_EQ(text.substr(text.rfind('?') + 1), whole.substr(text.rfind('?') + 1)) << path;
  }
  EXPECT_EQ(done.usage().output_tokens(), 200);
  EXPECT_THAT(Get("/v1/runs/" + run->run_id() + ":watch?texts=true"), HasSubstr("STEP_STATE_SUCCEEDED"));
  auto broken = StartSpec("name: x\nsteps: [{id: a, agent: {agent: cut, input: hello}, retry: {max_attempts: 1}}]");
  ASSERT_TRUE(broken.ok()) << broken.status();
  v1::Run failed = WaitForEnd(*suite_, broken->run_id(), 20);
  EXPECT_EQ(failed.state(), v1::RUN_STATE_FAILED);
  EXPECT_THAT(failed.error().message(), HasSubstr("the answer broke off"));
}

TEST_P(SuiteTest, EndsCleanlyOnSigtermAndGoesOnAfterRestart) {
  ASSERT_TRUE(suite_->Start());
  auto run = StartSpec(
      "name: x\nsteps: [{id: a, tool: {tool: calculate, parameters: {expression: '1/0'}}, retry: {max_attempts: 2, "
      "initial_backoff: 3s, retryable_codes: [INVALID_ARGUMENT]}}]");
  ASSERT_TRUE(run.ok());
  EXPECT_TRUE(
      Eventually([&] { return absl::StrContains(Get("/v1/runs/" + run->run_id()), "STEP_STATE_RETRYING"); }, 10));
  for (int code : suite_->Terminate()) EXPECT_EQ(code, 0);
  ASSERT_TRUE(suite_->Start());
  v1::Run ended = WaitForEnd(*suite_, run->run_id(), 20);
  EXPECT_EQ(ended.state(), v1::RUN_STATE_FAILED);
  ASSERT_EQ(ended.steps_size(), 1);
  EXPECT_EQ(ended.steps(0).attempt(), 2) << "the second attempt came, the first was not repeated";
}

// What does not depend on the form.
TEST_P(SuiteTest, ContextsMemoriesConversationsAndBudgetsWorkOverRest) {
  ASSERT_TRUE(suite_->Start());
  auto has = [](const std::string& text) { return ::testing::HasSubstr(text); };
  EXPECT_THAT(Post("/v1/contexts", R"({"context_id":"c","document":{"a":1},"author":"ann"})"), has("200 {\"context\""));
  EXPECT_THAT(Post("/v1/contexts/c:update", R"({"document":{"b":2},"etag":"v1"})"), has(R"("version":"2")"));
  EXPECT_THAT(Post("/v1/contexts/c:update", R"({"document":{"b":3},"etag":"v1"})"), has("409 "));
  EXPECT_THAT(Get("/v1/contexts/c:diff?from_version=1"), has(R"("path":"/b")"));
  const std::string watched = Curl("-N --max-time 1 -H 'Accept: text/event-stream' '" + suite_->http_url() +
                                   "/v1/contexts/c:watch?after_version=1' || true; echo");
  EXPECT_THAT(watched, has(R"("version":"2")"));
  EXPECT_THAT(watched, ::testing::Not(has(R"("version":"1")")));
  EXPECT_THAT(Get("/v1/contexts/c:watch?after_version=3"), has("watch it from 0"));
  EXPECT_THAT(Post("/v1/memories", R"({"memory_id":"m","content":"Berlin wants invoices in German","agent":"a"})"),
              has("200 "));
  EXPECT_THAT(Post("/v1/memories:search", R"({"query":"german invoices","filter":{"agent":"a"}})"),
              has(R"("textRelevance":1)"));
  EXPECT_THAT(Post("/v1/memories:forget", R"({"filter":{"agent":"a"}})"), has(R"("forgotten":"1")"));
  EXPECT_THAT(Get("/v1/memories/m"), has("404 "));
  EXPECT_THAT(Post("/v1/conversations", R"({"conversation_id":"k"})"), has("200 "));
  EXPECT_THAT(Post("/v1/conversations/k/messages", R"({"messages":[{"role":"ROLE_USER","parts":[{"text":"hello"}]}]})"),
              has(R"("seq":"1")"));
  EXPECT_THAT(Get("/v1/conversations/k:window?max_tokens=10"), has("hello"));
  EXPECT_THAT(Post("/v1/budgets", R"({"scope":"tenants/acme","limit_nano_units":"100"})"), has("200 "));
  EXPECT_THAT(Post("/v1/reservations",
                   R"({"reservation_id":"x","scope":"tenants/acme/projects/p","amount":{"nano_units":"101"}})"),
              has("429 "));
  EXPECT_THAT(Post("/v1/reservations",
                   R"({"reservation_id":"x","scope":"tenants/acme/projects/p","amount":{"nano_units":"90"}})"),
              has("RESERVATION_STATE_HELD"));
  EXPECT_THAT(Post("/v1/reservations:settle", R"({"reservation_id":"x","spent":{"nano_units":"70"}})"),
              has("RESERVATION_STATE_SETTLED"));
  EXPECT_THAT(Get("/v1/budgets/tenants/acme"), has(R"("spent":{"nanoUnits":"70"})"));
  // What was administered is on record, with where it came from; the log itself cannot be written from outside.
  EXPECT_THAT(Get("/v1/audit/records?action=memories.forget"), has(R"("origin":"127.0.0.1:)"));
  EXPECT_THAT(Get("/v1/audit/records?tenant=acme"), has(R"("action":"budgets.set")"));
  EXPECT_EQ(Get("/v1/audit/records?tenant=other").find("budgets.set"), std::string::npos);
  EXPECT_THAT(Get("/v1/audit:verify"), has(R"("records":"2")"));
  EXPECT_THAT(Get("/v1/audit:verify"), has(R"("findings":[])"));
  EXPECT_THAT(Post("/v1/runs/none:cancel", "{}"), has("404 "));
  EXPECT_THAT(Get("/v1/audit/records?action=runs.cancel"), has(R"("outcome":"NOT_FOUND")"));
  const std::string tutti = BinDir() + "/tutti --server " + suite_->grpc_address() + " ";
  auto [verified, code] = Shell(tutti + "audit verify 2>&1");
  EXPECT_EQ(code, 0) << verified;
  EXPECT_THAT(verified, has("3 records, whole"));
  EXPECT_THAT(Shell(tutti + "audit export 2>&1").first, has(R"("action":"memories.forget")"));
  auto stub = tutti::state::v1::AuditService::NewStub(suite_->channel());
  grpc::ClientContext context;
  tutti::state::v1::AppendAuditRecordRequest forged;
  tutti::state::v1::AppendAuditRecordResponse none;
  EXPECT_EQ(stub->AppendAuditRecord(&context, forged, &none).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST(ProcessTest, ATakenPortIsNamedWithItsFlag) {
  std::string dir = NewTempDir("port");
  SuiteProcess first({.data_dir = dir + "/a"});
  ASSERT_TRUE(first.Start());
  std::string grpc_port = first.grpc_address().substr(10), http_port = first.http_url().substr(17);
  auto ports = FreePorts(1);
  std::string common = BinDir() + "/tutti up --telemetry.metrics-port=-1 --state-manager.data-dir=" + dir + "/b ";
  auto [grpc_text, grpc_code] =
      Shell(common + "--gateway.grpc-port=" + grpc_port + " --gateway.http-port=" + absl::StrCat(ports[0]) + " 2>&1");
  EXPECT_EQ(grpc_code, 1);
  EXPECT_THAT(grpc_text, ::testing::AllOf(HasSubstr(grpc_port), HasSubstr("--gateway.grpc-port")));
  auto [http_text, http_code] =
      Shell(common + "--gateway.http-port=" + http_port + " --gateway.grpc-port=" + absl::StrCat(ports[0]) + " 2>&1");
  EXPECT_EQ(http_code, 1);
  EXPECT_THAT(http_text, ::testing::AllOf(HasSubstr(http_port), HasSubstr("--gateway.http-port")));
  auto [same_dir, code] =
      Shell(BinDir() + "/tutti up --telemetry.metrics-port=-1 --state-manager.data-dir=" + dir + "/a 2>&1");
  EXPECT_EQ(code, 1);
  EXPECT_THAT(same_dir, HasSubstr("another state-manager works on"));
  first.Kill9();
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace tutti::testing
