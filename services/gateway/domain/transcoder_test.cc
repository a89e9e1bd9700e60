#include "services/gateway/domain/transcoder.h"

#include <gtest/gtest.h>

#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "tutti/agent/v1/agent_service.pb.h"
#include "tutti/monitoring/v1/monitoring_service.pb.h"
#include "tutti/state/v1/conversation_service.pb.h"
#include "tutti/tool/v1/tool_service.pb.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::gateway {
namespace {

using tutti::testing::HasCode;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

struct Matched {
  int route = -1;
  std::map<std::string, std::string> variables;
};

class PathMatcherTest : public ::testing::Test {
 protected:
  void Add(const std::string& method, const std::string& path, int route) {
    auto parsed = PathTemplate::Parse(path);
    ASSERT_THAT(parsed, IsOk()) << path;
    ASSERT_THAT(matcher_.Add(method, *parsed, route), IsOk());
  }
  Matched Match(const std::string& method, const std::string& path) {
    PathMatch match;
    std::vector<std::string> allowed;
    if (matcher_.Match(method, path, &match, &allowed) != PathMatcher::Outcome::kFound) return {};
    return {match.route, {match.variables.begin(), match.variables.end()}};
  }
  PathMatcher matcher_;
};

TEST_F(PathMatcherTest, LiteralsWinOverWildcards) {
  Add("GET", "/v1/runs/{run_id}", 1);
  Add("GET", "/v1/runs/latest", 2);
  Add("GET", "/v1/{name=runs/*/steps/*}", 3);
  Add("GET", "/v1/{rest=**}", 4);
  EXPECT_EQ(Match("GET", "/v1/runs/abc").route, 1);
  EXPECT_EQ(Match("GET", "/v1/runs/abc").variables.at("run_id"), "abc");
  EXPECT_EQ(Match("GET", "/v1/runs/latest").route, 2);
  EXPECT_EQ(Match("GET", "/v1/runs/a/steps/b").variables.at("name"), "runs/a/steps/b");
  EXPECT_EQ(Match("GET", "/v1/other/deep/path").route, 4);
  EXPECT_EQ(Match("GET", "/v1/other/deep/path").variables.at("rest"), "other/deep/path");
  EXPECT_EQ(Match("GET", "/v2").route, -1);
}

TEST_F(PathMatcherTest, VerbsAreSplitOffOnlyWhenKnown) {
  Add("POST", "/v1/runs/{run_id}:cancel", 1);
  Add("GET", "/v1/runs/{run_id}", 2);
  EXPECT_EQ(Match("POST", "/v1/runs/abc:cancel").variables.at("run_id"), "abc");
  EXPECT_EQ(Match("GET", "/v1/runs/a:b").variables.at("run_id"), "a:b");
  EXPECT_EQ(Match("POST", "/v1/runs/abc").route, -1);
}

TEST_F(PathMatcherTest, DecodesOneSegmentFullyAndSeveralButForTheSlash) {
  Add("GET", "/a/{x}", 1);
  Add("GET", "/b/{x=**}", 2);
  EXPECT_EQ(Match("GET", "/a/p%2Fq%20r").variables.at("x"), "p/q r");
  EXPECT_EQ(Match("GET", "/b/p%2Fq/r%20s").variables.at("x"), "p%2Fq/r s");
  EXPECT_EQ(Match("GET", "/a/%zz").route, -1);
  EXPECT_EQ(Match("GET", "/a/").route, -1) << "a variable is not empty";
}

TEST_F(PathMatcherTest, RefusesBadTemplates) {
  for (const char* bad : {"", "v1", "/v1/{", "/v1/{}", "/**/x", "/v1/{a=x/{b}}", "/v1/:"})
    EXPECT_FALSE(PathTemplate::Parse(bad).ok()) << bad;
}

class TranscoderTest : public ::testing::Test {
 protected:
  TranscoderTest() {
    tutti::workflow::v1::StartRunRequest linked;  // the contracts must be linked to be found
    tutti::agent::v1::InvokeAgentRequest agent;
    tutti::tool::v1::CallToolRequest tool;
    tutti::monitoring::v1::GetHealthRequest health;
    tutti::workflow::v1::GetWorkflowRequest workflow;
    tutti::state::v1::GetConversationRequest conversation;
    auto created = Transcoder::Create({"tutti.workflow.v1.RunService", "tutti.workflow.v1.WorkflowService",
                                       "tutti.state.v1.ConversationService", "tutti.agent.v1.AgentService",
                                       "tutti.tool.v1.ToolService", "tutti.monitoring.v1.MonitoringService"});
    EXPECT_THAT(created, IsOk());
    transcoder_ = *std::move(created);
  }
  absl::StatusOr<Transcoder::Call> Call(const std::string& method, const std::string& target,
                                        const std::string& body = "") {
    return transcoder_->ToCall({method, target, "application/json", "", body});
  }
  std::unique_ptr<Transcoder> transcoder_;
};

TEST_F(TranscoderTest, EveryPathOfTheIssueLeadsToItsMethod) {
  for (const auto& [method, path, grpc] : std::vector<std::tuple<std::string, std::string, std::string>>{
           {"POST", "/v1/workflows", "/tutti.workflow.v1.WorkflowService/CreateWorkflow"},
           {"GET", "/v1/workflows", "/tutti.workflow.v1.WorkflowService/ListWorkflows"},
           {"GET", "/v1/workflows/x", "/tutti.workflow.v1.WorkflowService/GetWorkflow"},
           {"POST", "/v1/runs", "/tutti.workflow.v1.RunService/StartRun"},
           {"GET", "/v1/runs", "/tutti.workflow.v1.RunService/ListRuns"},
           {"GET", "/v1/runs/x", "/tutti.workflow.v1.RunService/GetRun"},
           {"POST", "/v1/runs/x:cancel", "/tutti.workflow.v1.RunService/CancelRun"},
           {"GET", "/v1/runs/x:watch", "/tutti.workflow.v1.RunService/WatchRun"},
           {"GET", "/v1/agents", "/tutti.agent.v1.AgentService/ListAgents"},
           {"POST", "/v1/agents/x:invoke", "/tutti.agent.v1.AgentService/InvokeAgent"},
           {"GET", "/v1/tools", "/tutti.tool.v1.ToolService/ListTools"},
           {"POST", "/v1/tools/x:call", "/tutti.tool.v1.ToolService/CallTool"},
           {"GET", "/v1/health", "/tutti.monitoring.v1.MonitoringService/GetHealth"},
           {"GET", "/v1/runs/x/usage", "/tutti.monitoring.v1.MonitoringService/ListUsage"}}) {
    auto call = Call(method, path);
    ASSERT_THAT(call, IsOk()) << path;
    EXPECT_EQ(call->route->grpc_method, grpc);
  }
}

TEST_F(TranscoderTest, FillsPathQueryAndBody) {
  auto list = Call("GET", "/v1/runs?page_size=5&filter=state%20%3D%20%22RUNNING%22&pageToken=t%2Bx");
  ASSERT_THAT(list, IsOk());
  const auto& request = static_cast<const tutti::workflow::v1::ListRunsRequest&>(*list->request);
  EXPECT_EQ(request.page_size(), 5);
  EXPECT_EQ(request.filter(), "state = \"RUNNING\"");
  EXPECT_EQ(request.page_token(), "t+x");
  auto start = Call("POST", "/v1/runs",
                    R"({"workflow":"w","request_id":"a","input":{"deep":[1,{"x":null}]},"labels":{"k":"v"}})");
  ASSERT_THAT(start, IsOk());
  const auto& run = static_cast<const tutti::workflow::v1::StartRunRequest&>(*start->request);
  EXPECT_EQ(run.request_id(), "a");
  EXPECT_EQ(ToJson(run.input()).dump(), R"({"deep":[1,{"x":null}]})");
  auto cancel = Call("POST", "/v1/runs/abc:cancel", R"({"runId":"other","reason":"r"})");
  ASSERT_THAT(cancel, IsOk());
  EXPECT_EQ(static_cast<const tutti::workflow::v1::CancelRunRequest&>(*cancel->request).run_id(), "abc")
      << "the path wins";
}

TEST_F(TranscoderTest, LastEventIdFillsTheOffset) {
  auto call = transcoder_->ToCall({"GET", "/v1/runs/abc:watch", "", "17", ""});
  ASSERT_THAT(call, IsOk());
  EXPECT_EQ(static_cast<const tutti::workflow::v1::WatchRunRequest&>(*call->request).after_offset(), 17);
  tutti::workflow::v1::WatchRunResponse response;
  response.mutable_event()->set_offset(18);
  EXPECT_EQ(Transcoder::EventId(*call->route, response), "18");
}

TEST_F(TranscoderTest, BadInputNamesItsField) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Call("GET", "/v1/runs?pagesize=5"), HasCodeAndText(kInvalid, "did you mean \"page_size\"?"));
  EXPECT_THAT(Call("GET", "/v1/runs?page_size=many"), HasCodeAndText(kInvalid, "must be a whole number"));
  EXPECT_THAT(Call("GET", "/v1/runs?page_size=1&page_size=2"), HasCodeAndText(kInvalid, "takes one value"));
  EXPECT_THAT(Call("GET", "/v1/runs?filter=%zz"), HasCodeAndText(kInvalid, "badly encoded"));
  EXPECT_THAT(Call("GET", "/v1/runs", "{}"), HasCodeAndText(kInvalid, "takes no body"));
  EXPECT_THAT(Call("POST", "/v1/runs?workflow=x", "{}"), HasCodeAndText(kInvalid, "in the body, not in the query"));
  EXPECT_THAT(Call("POST", "/v1/runs", "{\"workflow\": 5"), HasCode(kInvalid));
  EXPECT_THAT(Call("POST", "/v1/runs", "{\"wrkflow\": \"x\"}"),
              HasCodeAndText(kInvalid, "did you mean \"workflow\"? Known: "));
  EXPECT_THAT(
      Call("POST", "/v1/workflows", R"({"spec": {"steps": [{"agent": {"agnt": "x"}}]}})"),
      HasCodeAndText(kInvalid, "(spec.steps[0].agent) agnt: Cannot find field; did you mean \"agent\"? Known: "));
  EXPECT_THAT(Call("POST", "/v1/conversations/c/messages", R"({"messages": [{"role": "assistant"}]})"),
              HasCodeAndText(kInvalid, "known: ROLE_SYSTEM, ROLE_USER"));
  EXPECT_THAT(Call("POST", "/v1/runs", "{\"workflow\": \"\xff\"}"), HasCodeAndText(kInvalid, "invalid UTF-8"));
  EXPECT_THAT(Call("POST", "/v1/runs", "{\"input\":" + std::string(500, '[') + std::string(500, ']') + "}"),
              HasCode(kInvalid));
  EXPECT_THAT(Call("GET", "/v1/nothing"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Call("DELETE", "/v1/runs"), HasCodeAndText(absl::StatusCode::kUnimplemented, "GET, POST"));
}

TEST_F(TranscoderTest, YamlBodiesAreTakenToo) {
  auto call = transcoder_->ToCall({"POST", "/v1/workflows", "application/yaml", "",
                                   "spec:\n  name: x\n  steps:\n  - id: a\n    transform: {value: 1}\n"});
  ASSERT_THAT(call, IsOk());
  EXPECT_EQ(static_cast<const tutti::workflow::v1::CreateWorkflowRequest&>(*call->request).spec().steps(0).id(), "a");
}

TEST(ErrorJsonTest, CarriesTypedDetails) {
  absl::Status status = Error(absl::StatusCode::kNotFound, "RUN_NOT_FOUND", "no run").Metadata("run_id", "x");
  Json body = Json::parse(ErrorJson(status, 404));
  EXPECT_EQ(body["error"]["code"], 404);
  EXPECT_EQ(body["error"]["status"], "NOT_FOUND");
  EXPECT_EQ(body["error"]["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_EQ(body["error"]["details"][0]["reason"], "RUN_NOT_FOUND");
}

}  // namespace
}  // namespace tutti::gateway
