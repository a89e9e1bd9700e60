// The command line: what it prints, and what its exit codes tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "tests/support/ports.h"
#include "tests/support/suite_process.h"

namespace tutti::testing {
namespace {

using ::testing::HasSubstr;

TEST(ProcessTest, ConfigurationIsPrintedAndChecked) {
  auto [printed, code] =
      Shell("OPENAI_API_KEY=sk-secret " + BinDir() + "/tutti-gateway --print-config --gateway.http-port=1234");
  EXPECT_EQ(code, 0);
  EXPECT_THAT(printed,
              ::testing::AllOf(HasSubstr("http_port: 1234"), HasSubstr("***"), ::testing::Not(HasSubstr("sk-secret"))));
  auto [wrong, wrong_code] = Shell(BinDir() + "/tutti up --gatway.http-port=1 2>&1");
  EXPECT_EQ(wrong_code, 2);
  EXPECT_THAT(wrong, HasSubstr("did you mean \"gateway.http-port\"?"));
}

TEST(CliTest, WorkflowsAreRehearsedWithoutAServer) {
  std::string dir = NewTempDir("rehearsal");
  const std::string examples = std::string(getenv("TUTTI_SOURCE")) + "/examples/";
  auto [out, code] =
      Shell(BinDir() + "/tutti test " + examples + "approval.test.yaml --junit " + dir + "/report.xml 2>&1");
  EXPECT_EQ(code, 0) << out;
  EXPECT_THAT(out, HasSubstr("silence is a no after thirty days"));
  EXPECT_THAT(out, HasSubstr("coverage 100%"));
  std::ifstream report(dir + "/report.xml");
  const std::string xml((std::istreambuf_iterator<char>(report)), {});
  EXPECT_THAT(xml, HasSubstr("<testsuite"));
  EXPECT_THAT(xml, HasSubstr("failures=\"0\""));
  // What does not hold is said, and coverage that is wanting too.
  std::filesystem::copy(examples + "approval.yaml", dir + "/approval.yaml");
  std::ofstream(dir + "/wrong.test.yaml")
      << "workflow: approval.yaml\nmin_coverage_percent: 100\ntests:\n- name: only this\n  input: {amount: 1}\n"
         "  signals: [{signal: decision, sender: boss, payload: {approved: true}}]\n  expect: {output: {spent: 2}}\n";
  auto [wrong, wrong_code] = Shell(BinDir() + "/tutti test " + dir + "/wrong.test.yaml 2>&1");
  EXPECT_NE(wrong_code, 0);
  EXPECT_THAT(wrong, HasSubstr("spent"));
  EXPECT_THAT(wrong, HasSubstr("not taken: decision: no signal in time at steps[1].wait_for_signal.default"));
  std::filesystem::remove_all(dir);
}

TEST(CliTest, CoverageKnowsEachWayThroughAWorkflow) {
  std::string dir = NewTempDir("coverage");
  std::ofstream(dir + "/ways.yaml") << R"(name: ways
steps:
- id: gated
  agent: {agent: writer, input: x}
  gate: {expression: '.output == "good"', fallback: [{id: instead, transform: {value: plain}}]}
- {id: perhaps, when: .input.perhaps, transform: {value: 1}}
- id: choice
  switch: {cases: [{when: '.input.choice == 1', steps: [{id: one, transform: {value: 1}}]}]}
output: ${ .gated }
)";
  auto coverage = [&](const std::string& tests) {
    std::ofstream(dir + "/ways.test.yaml") << "workflow: ways.yaml\ntests:\n" << tests;
    return Shell(BinDir() + "/tutti test " + dir + "/ways.test.yaml 2>&1").first;
  };
  const std::string straight =
      "- {name: straight, input: {perhaps: true, choice: 1}, agents: {writer: {answers: [{output: good}]}}, expect: "
      "{output: "
      "good}}\n";
  std::string out = coverage(straight);
  EXPECT_THAT(out, HasSubstr("0 failed"));
  for (const char* way : {"instead (transform) at steps[0].gate.fallback[0]",
                          "perhaps: when is not met at steps[1].when", "choice: no case at steps[2].switch"}) {
    EXPECT_THAT(out, HasSubstr(absl::StrCat("not taken: ", way)));
  }
  out = coverage(
      straight +
      "- {name: around, input: {perhaps: false, choice: 2}, agents: {writer: {answers: [{output: bad}]}}, expect: "
      "{output: plain}}\n");
  EXPECT_THAT(out, HasSubstr("0 failed"));
  EXPECT_THAT(out, HasSubstr("coverage 100%"));
  std::filesystem::remove_all(dir);
}

TEST(CliTest, AGatewayWithNothingBehindItIsToldApartFromNoGateway) {
  const std::string dir = NewTempDir("cli");
  const std::vector<int> ports = FreePorts(3);
  ChildProcess gateway({BinDir() + "/tutti-gateway", absl::StrCat("--gateway.http-port=", ports[0]),
                        absl::StrCat("--gateway.grpc-port=", ports[1]), "--telemetry.metrics-port=-1",
                        absl::StrCat("--peers.workflow-engine=127.0.0.1:", ports[2])},
                       dir + "/gateway.log");
  ASSERT_TRUE(Eventually(
      [&] { return Shell(absl::StrCat("curl -sf http://127.0.0.1:", ports[0], "/healthz")).second == 0; }, 20))
      << ReadAll(dir + "/gateway.log");
  auto [text, code] = Shell(absl::StrCat(BinDir(), "/tutti --server 127.0.0.1:", ports[1], " runs list 2>&1"));
  EXPECT_EQ(code, 5);
  EXPECT_THAT(text, HasSubstr("answers, a service behind it does not"));
  std::filesystem::remove_all(dir);
}

TEST(CliTest, WhatAlertsAskForIsMeasured) {
  const std::string dir = NewTempDir("cli");
  const std::string port = absl::StrCat(FreePorts(1)[0]);
  SuiteProcess suite({.data_dir = dir + "/data", .flags = {"--telemetry.metrics-port=" + port}});
  ASSERT_TRUE(suite.Start());
  const std::string metrics = Shell("curl -s http://127.0.0.1:" + port + "/metrics").first;
  const std::string alerts = ReadAll(SourceDir() + "/deploy/prometheus/alerts.yaml");
  const std::regex series(R"((tutti_\w+)(\{\w+="\w+")?)");
  int found = 0;
  for (std::sregex_iterator it(alerts.begin(), alerts.end(), series), end; it != end; ++it, ++found) {
    EXPECT_THAT(metrics, HasSubstr("\n" + it->str())) << "series of an alert, there from the start";
  }
  EXPECT_GE(found, 3);
  std::filesystem::remove_all(dir);
}

TEST(CliTest, ExitCodesTellWhatHappened) {
  std::string dir = NewTempDir("cli");
  SuiteProcess suite({.data_dir = dir + "/data", .flags = {"--tool-service.document-roots=" + dir}});
  ASSERT_TRUE(suite.Start());
  std::string tutti = BinDir() + "/tutti --server " + suite.grpc_address() + " ";
  auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir + "/" + name) << text;
    return dir + "/" + name;
  };
  std::string good = write("good.yaml", "name: good\nsteps: [{id: a, transform: {value: '${ .input.n + 1 }'}}]\n");
  std::string fails =
      write("fails.yaml", "name: fails\nsteps: [{id: a, tool: {tool: calculate, parameters: {expression: '1/0'}}}]\n");
  std::string wrong = write("wrong.yaml", "name: wrong\nsteps:\n  - id: a\n    agent: {agent: nobdy}\n");
  std::string unknown = write("unknown.yaml", "name: wrong\nsteps:\n  - id: a\n    agnt: {}\n");
  auto [out, code] = Shell(tutti + "run " + good + " --input n=41 --watch 2>/dev/null");
  EXPECT_EQ(code, 0);
  EXPECT_THAT(out, ::testing::StartsWith("42\n"));
  EXPECT_EQ(Shell(tutti + "run " + fails + " --watch 2>&1").second, 3);
  auto [wrong_text, wrong_code] = Shell(tutti + "workflows apply " + wrong + " 2>&1");
  EXPECT_EQ(wrong_code, 2);
  EXPECT_THAT(wrong_text, HasSubstr(wrong + ":4: steps[0].agent.agent: no agent \"nobdy\""));
  auto [unknown_text, unknown_code] = Shell(tutti + "workflows apply " + unknown + " 2>&1");
  EXPECT_EQ(unknown_code, 2);
  EXPECT_THAT(unknown_text, HasSubstr(unknown + ":4:5: steps[0].agnt: unknown field; did you mean \"agent\"?"));
  EXPECT_EQ(Shell(tutti + "workflows apply " + good + " 2>&1").first, "workflow good version 1\n");
  EXPECT_THAT(Shell(tutti + "workflows list -o json").first, HasSubstr("\"good\""));
  EXPECT_EQ(Shell(tutti + "run good --input n=1 --watch -o json 2>/dev/null").second, 0);
  EXPECT_EQ(Shell(tutti + "runs get none 2>/dev/null").second, 1);
  EXPECT_EQ(Shell(tutti + "nonsense 2>/dev/null").second, 2);
  // A tenant, a priority, what steps put out, and a fork with another spec.
  auto [id, started] = Shell(tutti + "run good --input n=1 --tenant acme --priority 7 --version 1");
  EXPECT_EQ(started, 0);
  EXPECT_EQ(Shell(tutti + "run good --input n=1 --tenant 'a b' 2>/dev/null").second, 2);
  EXPECT_EQ(Shell(tutti + "run good --input n=1 --priority 700 2>/dev/null").second, 2);
  id = id.substr(0, 26);
  EXPECT_EQ(Shell(tutti + "runs watch " + id + " 2>&1").second, 0);
  EXPECT_THAT(Shell(tutti + "runs list -o json --filter 'tenant = \"acme\"'").first, HasSubstr("\"priority\": 7"));
  EXPECT_THAT(Shell(tutti + "runs list --filter 'tenant = \"other\"'").first, ::testing::Not(HasSubstr(id)));
  EXPECT_THAT(Shell(tutti + "runs history " + id).first, HasSubstr("a (transform) SUCCEEDED\n    2\n"));
  std::string other = write("other.yaml", "name: good\nsteps: [{id: a, transform: {value: '${ .input.n * 10 }'}}]\n");
  auto [forked, fork_code] = Shell(tutti + "runs fork " + id + " --spec " + other + " --request-id f1 -o json");
  EXPECT_EQ(fork_code, 0) << forked;
  EXPECT_EQ(
      Json::parse(forked)["runId"],
      Json::parse(Shell(tutti + "runs fork " + id + " --spec " + other + " --request-id f1 -o json").first)["runId"]);
  EXPECT_EQ(Shell(tutti + "health >/dev/null").second, 0);
  EXPECT_EQ(Shell("bash -c 'source <(" + tutti + "completion bash) && complete -p tutti' 2>&1").second, 0);
  suite.Kill9();
  auto [away, away_code] = Shell(tutti + "runs list 2>&1");
  EXPECT_EQ(away_code, 5);
  EXPECT_THAT(away, HasSubstr("tutti up"));
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace tutti::testing
