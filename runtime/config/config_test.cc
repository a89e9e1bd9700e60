#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "runtime/config/load_config.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti {
namespace {

using testing::HasCodeAndText;
using testing::IsOk;
using tutti::workflow::v1::WorkflowSpec;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

Environment Env(std::map<std::string, std::string> values) {
  auto shared = std::make_shared<std::map<std::string, std::string>>(std::move(values));
  return [shared](const char* name) -> const char* {
    auto it = shared->find(name);
    return it == shared->end() ? nullptr : it->second.c_str();
  };
}

TEST(LoadConfigTest, FlagsWinOverEnvironmentOverFileOverDefaults) {
  std::string file = ::testing::TempDir() + "/tutti_config_test.yaml";
  std::ofstream(file) << "gateway: {http_port: 1000, grpc_port: 1001}\nworkflow_engine: {lease_duration: 7s}\n";
  auto env = Env({{"TUTTI_GATEWAY_HTTP_PORT", "2000"}, {"TUTTI_GATEWAY_GRPC_PORT", "2001"}});
  auto loaded = LoadConfig({"--config", file, "--gateway.http-port=3000"}, env,
                           {"TUTTI_GATEWAY_HTTP_PORT", "TUTTI_GATEWAY_GRPC_PORT"});
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->config.gateway().http_port(), 3000);
  EXPECT_EQ(loaded->config.gateway().grpc_port(), 2001);
  EXPECT_EQ(loaded->config.workflow_engine().lease_duration().seconds(), 7);
  EXPECT_EQ(loaded->config.gateway().max_body_bytes(), 4 << 20);
}

TEST(LoadConfigTest, NamesTheNearestKnownName) {
  EXPECT_THAT(LoadConfig({"--gateway.htp-port=1"}, Env({}), {}),
              HasCodeAndText(kInvalid, "did you mean \"gateway.http-port\"?"));
  EXPECT_THAT(LoadConfig({}, Env({{"TUTTI_GATWAY_HTTP_PORT", "1"}}), {"TUTTI_GATWAY_HTTP_PORT"}),
              HasCodeAndText(kInvalid, "did you mean \"TUTTI_GATEWAY_HTTP_PORT\"?"));
  std::string file = ::testing::TempDir() + "/tutti_config_bad.yaml";
  std::ofstream(file) << "gateway:\n  http_prot: 1000\n";
  EXPECT_THAT(LoadConfig({"--config=" + file}, Env({}), {}),
              HasCodeAndText(kInvalid, ":2:3: gateway.http_prot: unknown field"));
}

TEST(LoadConfigTest, SaysWhatAWrongValueShouldBe) {
  EXPECT_THAT(LoadConfig({"--gateway.http-port=many"}, Env({}), {}),
              HasCodeAndText(kInvalid, "must be a whole number"));
  EXPECT_THAT(LoadConfig({"--gateway.http-port"}, Env({}), {}), HasCodeAndText(kInvalid, "needs a value"));
  EXPECT_THAT(LoadConfig({"--gateway.http-port=99999"}, Env({}), {}),
              HasCodeAndText(kInvalid, "--gateway.http-port is 99999; a port is 0 to 65535"));
  EXPECT_THAT(LoadConfig({"--telemetry.metrics-port=-2"}, Env({}), {}), HasCodeAndText(kInvalid, "-1 to 65535"));
  EXPECT_THAT(LoadConfig({"--telemetry.metrics-port=-1"}, Env({}), {}), IsOk());
  EXPECT_THAT(LoadConfig({"stray"}, Env({}), {}), HasCodeAndText(kInvalid, "unexpected argument"));
}

TEST(LoadConfigTest, PrintsSecretsMasked) {
  auto loaded = LoadConfig({}, Env({{"OPENAI_API_KEY", "sk-very-secret"}}), {});
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->config.agent_manager().openai().api_key(), "sk-very-secret");
  std::string printed = ToYaml(loaded->config);
  EXPECT_EQ(printed.find("sk-very-secret"), std::string::npos);
  EXPECT_NE(printed.find("api_key: \"***\""), std::string::npos) << printed;
}

absl::Status Parse(const std::string& text, WorkflowSpec* spec = nullptr) {
  WorkflowSpec local;
  return ParseYaml(text, "flow.yaml", spec ? spec : &local);
}

TEST(ParseYamlTest, ReadsYamlAndJsonAlike) {
  WorkflowSpec from_yaml, from_json;
  ASSERT_THAT(
      Parse("name: a\nsteps:\n- id: s\n  timeout: 1.5s\n  transform: {value: {n: 1, t: \"2\", l: [true, null]}}\n",
            &from_yaml),
      IsOk());
  ASSERT_THAT(
      Parse(
          R"({"name":"a","steps":[{"id":"s","timeout":"1.5s","transform":{"value":{"n":1,"t":"2","l":[true,null]}}}]})",
          &from_json),
      IsOk());
  EXPECT_EQ(from_yaml.SerializeAsString().size(), from_json.SerializeAsString().size());
  EXPECT_EQ(ToJson(from_yaml.steps(0).transform().value()), ToJson(from_json.steps(0).transform().value()));
  EXPECT_EQ(ToJson(from_yaml.steps(0).transform().value()).dump(), R"({"l":[true,null],"n":1,"t":"2"})");
}

TEST(ParseYamlTest, NamesFileLineAndField) {
  EXPECT_THAT(Parse("name: a\nsteps:\n  - id: s\n    agnt: {}\n"),
              HasCodeAndText(kInvalid, "flow.yaml:4:5: steps[0].agnt: unknown field; did you mean \"agent\"?"));
  EXPECT_THAT(Parse("name: a\nsteps: 3\n"),
              HasCodeAndText(kInvalid, "flow.yaml:2:8: steps: must be a list, not \"3\""));
  EXPECT_THAT(Parse("name: [a]\n"), HasCodeAndText(kInvalid, "name: must be text, not a list"));
  EXPECT_THAT(Parse("name: a\nsteps:\n- id: s\n  retry: {max_attempts: lots}\n"),
              HasCodeAndText(kInvalid, "must be a whole number, not \"lots\""));
  EXPECT_THAT(Parse("name: a\nsteps:\n- id: s\n  timeout: 5\n"),
              HasCodeAndText(kInvalid, "must be a duration such as"));
  EXPECT_THAT(Parse("name: a\nname: b\n"), HasCodeAndText(kInvalid, "stands here twice"));
  EXPECT_THAT(Parse("name: a\nsteps:\n- id: s\n  agent: {agent: x}\n  tool: {tool: y}\n"),
              HasCodeAndText(kInvalid, "only one of them"));
  EXPECT_THAT(Parse("name: a\nsteps: [\n"), HasCodeAndText(kInvalid, "flow.yaml:"));
  EXPECT_THAT(Parse("just text"), HasCodeAndText(kInvalid, "must be a mapping"));
  EXPECT_THAT(Parse("name: \"\xff\"\n"), HasCodeAndText(kInvalid, "not UTF-8"));
}

TEST(ParseYamlTest, RefusesDeepNestingAndAliasBombs) {
  std::string deep = "name: a\ndescription: d\noutput: ";
  for (int i = 0; i < 200; ++i) deep += "[";
  EXPECT_THAT(Parse(deep + "1" + std::string(200, ']')), HasCodeAndText(kInvalid, ""));
  std::string bomb = "name: a\noutput:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    bomb += "  a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) bomb += (k ? ", *a" : "*a") + std::to_string(i - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(Parse(bomb), HasCodeAndText(kInvalid, "more than 200000 values"));
}

TEST(JsonTest, RefusesWhatIsNoJsonAndWhatIsTooDeep) {
  EXPECT_THAT(ParseJson("{\"a\":"), HasCodeAndText(kInvalid, "line 1"));
  EXPECT_THAT(ParseJson(std::string(31, '[') + std::string(31, ']')),
              HasCodeAndText(kInvalid, "nested deeper than 30"));
  EXPECT_THAT(ParseJson("\"\xff\""), HasCodeAndText(kInvalid, "invalid UTF-8"));
}

TEST(JsonTest, SchemaViolationsNameTheirPlace) {
  Json schema = {{"type", "object"}, {"required", {"topic"}}, {"properties", {{"n", {{"type", "integer"}}}}}};
  EXPECT_THAT(ValidateJson(schema, {{"topic", "x"}, {"n", 1}}, "input"), IsOk());
  absl::Status status = ValidateJson(schema, {{"topic", "x"}, {"n", "one"}}, "input");
  ASSERT_THAT(status, HasCodeAndText(kInvalid, "input.n"));
  EXPECT_EQ(ViolationsOf(status).at(0).field, "input.n");
  EXPECT_THAT(ValidateJson({{"type", 5}}, nullptr, "input"), HasCodeAndText(kInvalid, "is itself wrong"));
}

}  // namespace
}  // namespace tutti
