#include "services/agent-manager/domain/agent_runner.h"

#include <gtest/gtest.h>

#include <deque>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/async/sync_wait.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/time/system_time.h"
#include "services/agent-manager/adapters/providers.h"
#include "services/agent-manager/domain/agent_directory.h"
#include "services/agent-manager/domain/text_analysis.h"

namespace tutti::agent_manager {
namespace {

using tutti::testing::HasCode;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

// Answers what the test put in, in order.
class ScriptedProvider final : public ModelProvider {
 public:
  std::string name() const override { return "scripted"; }
  std::string default_model() const override { return "model-1"; }
  Task<absl::StatusOr<ChatResponse>> Chat(CallContext&, const ChatRequest& request) override {
    requests.push_back(request);
    if (script.empty()) co_return absl::UnavailableError("the script is over");
    ChatResponse out = script.front();
    script.pop_front();
    out.model = "model-1-2026";
    out.input_tokens = 100;
    out.output_tokens = 10;
    co_return out;
  }
  std::deque<ChatResponse> script;
  std::vector<ChatRequest> requests;
};

class FakeAgentTools final : public AgentTools {
 public:
  Task<absl::StatusOr<std::vector<ToolSpec>>> Describe(CallContext&, std::vector<std::string> names) override {
    std::vector<ToolSpec> out;
    for (const auto& name : names) out.push_back({name, "a tool", Json::object()});
    co_return out;
  }
  Task<absl::StatusOr<Json>> Call(CallContext&, std::string tool, Json arguments, std::string key) override {
    calls.push_back(absl::StrCat(tool, " ", arguments.dump()));
    keys.push_back(key);
    if (tool == "broken") co_return absl::NotFoundError("no such thing");
    co_return Json{{"found", arguments}};
  }
  std::vector<std::string> calls, keys;
};

class NoObserver final : public ModelObserver {
 public:
  void OnExchange(const tutti::type::v1::ModelUsage&, absl::Duration, const absl::Status&) override {}
};

class AgentRunnerTest : public ::testing::Test {
 protected:
  AgentRunnerTest() {
    agent_.set_name("a");
    agent_.mutable_model()->set_provider("scripted");
    auto* price = prices_.Add();
    price->set_model("model-*");
    price->set_input_nano_units_per_million(150000000);
    price->set_output_nano_units_per_million(600000000);
  }
  absl::StatusOr<AgentResult> Run(Json input) {
    AgentRunner runner({{"scripted", &provider_}}, "scripted", tools_, PriceList(prices_), semaphore_, clock_,
                       observer_);
    CallContext call(loop_, tracer_);
    return SyncWait(runner.Run(call, agent_, std::move(input), "run/step/1"));
  }
  static ChatResponse Says(const std::string& text) {
    ChatResponse out;
    out.text = text;
    return out;
  }
  static ChatResponse Asks(const std::string& tool, Json arguments) {
    ChatResponse out;
    out.tool_calls.push_back({"id1", tool, std::move(arguments)});
    return out;
  }

  SystemClock clock_;
  Xoshiro rng_{1};
  Tracer tracer_{"test", clock_, rng_, nullptr, 0};
  EventLoop loop_{"test"};
  Semaphore semaphore_{loop_, 4, 16};
  ScriptedProvider provider_;
  FakeAgentTools tools_;
  NoObserver observer_;
  tutti::agent::v1::Agent agent_;
  google::protobuf::RepeatedPtrField<tutti::config::v1::ModelPrice> prices_;
};

TEST_F(AgentRunnerTest, CallsToolsAndGoesOnWithTheirAnswers) {
  agent_.add_tools("search");
  provider_.script = {Asks("search", {{"q", "x"}}), Says("the answer")};
  auto result = Run("question");
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->output, "the answer");
  EXPECT_EQ(tools_.calls, (std::vector<std::string>{"search {\"q\":\"x\"}"}));
  EXPECT_TRUE(absl::StartsWith(tools_.keys[0], "run/step/1/")) << "the key travels on";
  const auto& messages = provider_.requests[1].messages;
  EXPECT_EQ(messages.back().role, ChatMessage::Role::kTool);
  EXPECT_EQ(messages.back().tool_call_id, "id1");
}

TEST_F(AgentRunnerTest, AddsUpUsageAndCost) {
  agent_.add_tools("search");
  provider_.script = {Asks("search", {}), Says("done")};
  auto result = Run("q");
  ASSERT_THAT(result, IsOk());
  ASSERT_EQ(result->usage.size(), 1u);
  EXPECT_EQ(result->usage[0].calls(), 2);
  EXPECT_EQ(result->usage[0].input_tokens(), 200);
  EXPECT_EQ(result->usage[0].model(), "model-1-2026");
  EXPECT_EQ(result->usage[0].cost_nano_units(), 2 * (100 * 150 + 10 * 600)) << "0.15 and 0.60 a million";
}

TEST_F(AgentRunnerTest, OffersAndCallsOnlyTheAgentsOwnTools) {
  agent_.add_tools("search");
  provider_.script = {Asks("delete_everything", {}), Says("ok")};
  ASSERT_THAT(Run("q"), IsOk());
  EXPECT_TRUE(tools_.calls.empty());
  EXPECT_TRUE(absl::StrContains(provider_.requests[1].messages.back().text, "not one of yours"));
}

TEST_F(AgentRunnerTest, AToolsFailureIsAnAnswerToTheModel) {
  agent_.add_tools("broken");
  provider_.script = {Asks("broken", {}), Says("never mind")};
  ASSERT_THAT(Run("q"), IsOk());
  EXPECT_TRUE(absl::StrContains(provider_.requests[1].messages.back().text, "error: no such thing"));
}

TEST_F(AgentRunnerTest, AsksAgainWhenTheAnswerDoesNotFitTheSchema) {
  ToProto(Json{{"type", "object"}, {"required", {"score"}}}, agent_.mutable_output_schema());
  provider_.script = {Says("I think it is fine"), Says("{\"points\": 3}"), Says("Sure:\n```json\n{\"score\": 1}\n```")};
  auto result = Run("q");
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->output["score"], 1);
  EXPECT_TRUE(absl::StrContains(provider_.requests[2].messages.back().text, "does not fit"));
  provider_.script = {Says("no"), Says("no"), Says("no"), Says("no")};
  EXPECT_THAT(Run("q"), HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_F(AgentRunnerTest, EndsAfterItsTurns) {
  agent_.add_tools("search");
  agent_.set_max_turns(3);
  for (int i = 0; i < 10; ++i) provider_.script.push_back(Asks("search", {}));
  EXPECT_THAT(Run("q"), HasCodeAndText(absl::StatusCode::kResourceExhausted, "used all its 3 turns"));
  EXPECT_EQ(provider_.requests.size(), 3u);
}

TEST_F(AgentRunnerTest, AnUnknownProviderIsNamed) {
  agent_.mutable_model()->set_provider("opnai");
  EXPECT_THAT(Run("q"), HasCodeAndText(absl::StatusCode::kInvalidArgument, "\"opnai\""));
}

TEST(AgentDirectoryTest, TheBuiltInAgentsAreValidAndFound) {
  auto directory = AgentDirectory::Create({});
  ASSERT_THAT(directory, IsOk());
  EXPECT_THAT(directory->Find("researcher"), IsOk());
  EXPECT_THAT(directory->Find("reseacher"),
              HasCodeAndText(absl::StatusCode::kNotFound, "did you mean \"researcher\"?"));
}

TEST(TextAnalysisTest, EveryClaimIsAQuotationOfAPassage) {
  Json passages = Json::array();
  for (int i = 1; i <= 8; ++i) {
    passages.push_back(
        {{"document", "d.pdf"},
         {"page", i},
         {"score", 10 - i},
         {"text", absl::StrCat("Tides on page ", i, " rise because the moon pulls the wide sea. Bread number ", i,
                               " has nothing to do with any of this matter.")}});
  }
  Json analysis = AnalyseTask({{"topic", "why tides rise"}, {"research", {{"passages", passages}}}});
  ASSERT_GE(analysis["findings"].size(), 4u);
  for (const auto& finding : analysis["findings"]) {
    const Json& citation = finding["citations"][0];
    std::string page_text = passages[citation["page"].get<size_t>() - 1]["text"];
    EXPECT_TRUE(absl::StrContains(page_text, citation["quote"].get<std::string>()));
  }
  EXPECT_TRUE(absl::StrContains(analysis["findings"][0]["claim"].get<std::string>(), "Tides")) << "on the topic first";
  Json brief = WriteTask({{"topic", "why tides rise"}, {"analysis", analysis}});
  EXPECT_TRUE(absl::StrContains(brief["markdown"].get<std::string>(), "No language model was used"));
  EXPECT_GE(brief["citations"].size(), 4u);
  Json verdict = CritiqueTask({{"topic", "why tides rise"}, {"draft", brief}});
  EXPECT_GT(verdict["score"].get<double>(),
            CritiqueTask({{"topic", "why tides rise"}, {"draft", {{"markdown", "nothing"}}}})["score"].get<double>());
}

TEST(TextAnalysisTest, SurvivesInputOfAnyShape) {
  for (const Json& odd : std::vector<Json>{
           nullptr,
           5,
           "text",
           Json::array(),
           {{"topic", 3}, {"research", "x"}},
           {{"topic", "t"}, {"research", {{"passages", {1, "x", nullptr, {{"text", 5}}}}}}},
           {{"topic", "t"}, {"analysis", {{"findings", {1, {{"citations", "x"}}, {{"citations", {5}}}}}}}},
           {{"topic", "t"}, {"draft", {{"citations", {1, 2}}}}}}) {
    AnalyseTask(odd);
    WriteTask(odd);
    CritiqueTask(odd);
    SummariseTask(odd);
  }
}

TEST(JsonInAnswerTest, FindsJsonAmongWords) {
  EXPECT_EQ(JsonInAnswer("{\"a\":1}")->dump(), "{\"a\":1}");
  EXPECT_EQ(JsonInAnswer("Here:\n```json\n{\"a\":1}\n```\nbye")->dump(), "{\"a\":1}");
  EXPECT_EQ(JsonInAnswer("I say {\"a\": {\"b\": 2}} so")->dump(), "{\"a\":{\"b\":2}}");
  EXPECT_FALSE(JsonInAnswer("nothing here").ok());
}

}  // namespace
}  // namespace tutti::agent_manager
