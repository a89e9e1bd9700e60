// One run ends every engine that walks it, in the simulated suite: it is set aside, and no other run is.
#include <google/protobuf/util/json_util.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "tests/simulation/seeds.h"
#include "tests/simulation/suite.h"
#include "tutti/state/v1/journal_service.pb.h"

namespace tutti::simulation {
namespace {

namespace state = tutti::state::v1;

constexpr int kRuns = 8;

bool SettlesRun(const state::AppendRequest& request, const std::string& run_id) {
  for (const auto& entry : request.entries()) {
    if (request.run_id() == run_id && entry.has_run_settled()) return true;
  }
  for (const auto& other : request.also()) {
    if (SettlesRun(other, run_id)) return true;
  }
  return false;
}

class Poisoning {
 public:
  explicit Poisoning(uint64_t seed) : world_(seed), suite_(world_) {
    suite_.network().lost = [this](const Process& from, const std::string& method, const grpc::ByteBuffer& request) {
      return poison_.empty() || !absl::EndsWith(method, "/Append") ? false : EndEngine(from, request);
    };
  }
  ~Poisoning() { over_ = true; }

  // The runs' states, the poisoned one's first.
  std::vector<std::string> Play() {
    bool started = false;
    Spawn(Start(started));
    EXPECT_TRUE(world_.Run(absl::Minutes(5), [&] { return started; }));
    // Twice each engine dies of something that no run is to blame for.
    for (int i = 0; i < 2; ++i) {
      Wait(absl::Seconds(15));
      for (auto& node : suite_.nodes()) {
        if (node->kind == "workflow-engine" && node->module) suite_.Crash(*node, absl::Seconds(1));
      }
    }
    Wait(absl::Minutes(2));
    for (auto& node : suite_.nodes()) node->process->set_frozen(false);
    Wait(absl::Minutes(2));
    std::vector<std::string> out = States();
    // The cause has gone, and the run is tried again.
    const std::string poison = std::exchange(poison_, std::string());
    bool retried = false;
    Spawn(Retry(poison, retried));
    Wait(absl::Minutes(2));
    EXPECT_TRUE(retried);
    out.push_back(States()[0]);
    return out;
  }
  int deaths() const { return deaths_; }
  const char* expected() const { return suite_.pauses_poisoned() ? "RUN_STATE_PAUSED" : "RUN_STATE_FAILED POISONED"; }

 private:
  void Spawn(Task<void> task) { suite_.scope().Spawn(suite_.client(), std::move(task)); }
  void Wait(absl::Duration time) {
    world_.Run(time, [] { return false; });
  }

  // The poisoned run's engine dies before the run is known to have come to a wait.
  bool EndEngine(const Process& from, const grpc::ByteBuffer& bytes) {
    grpc::ByteBuffer copy = bytes;
    grpc::ProtoBufferReader reader(&copy);
    state::AppendRequest request;
    if (!request.ParseFromZeroCopyStream(&reader) || !SettlesRun(request, poison_)) return false;
    for (auto& node : suite_.nodes()) {
      if (node->process != &from) continue;
      ++deaths_;
      world_.After(absl::ZeroDuration(), [this, &from, node = node.get()] {
        if (node->process == &from && node->module) suite_.Crash(*node, absl::Seconds(1));
      });
    }
    return true;
  }

  Task<Json> Repeat(std::string method, std::string path, Json body) {
    while (!over_) {
      auto answer = co_await suite_.Rest(method, path, body);
      if (answer.ok() || !absl::IsUnavailable(answer.status())) {
        EXPECT_TRUE(answer.ok()) << answer.status();
        co_return answer.ok() ? *answer : Json();
      }
      co_await Sleep(suite_.client(), suite_.client(), absl::Seconds(1), {});
    }
    co_return Json();
  }

  Task<void> Start(bool& started) {
    Json spec = Json::parse(R"({"name": "asks", "steps": [{"id": "ask", "agent": {"agent": "echo", "input": "x"},
        "timeout": "900s", "retry": {"maxAttempts": 20}}]})");
    Json create = {{"spec", spec}};
    co_await Repeat("POST", "/v1/workflows", create);
    // All runs wait for this service, so that none makes progress while the engines die.
    for (auto& node : suite_.nodes()) node->process->set_frozen(node->kind == "agent-manager");
    for (int i = 0; i < kRuns; ++i) {
      Json body = {{"workflow", "asks"}, {"requestId", absl::StrCat("r", i)}};
      Json answer = co_await Repeat("POST", "/v1/runs", body);
      runs_.push_back(answer["run"].value("runId", ""));
    }
    poison_ = runs_[0];
    started = true;
  }

  Task<void> Retry(std::string run_id, bool& retried) {
    const char* verb = suite_.pauses_poisoned() ? ":resume" : ":retry";
    co_await Repeat("POST", absl::StrCat("/v1/runs/", run_id, verb), Json::object());
    retried = true;
  }

  std::vector<std::string> States() {
    std::vector<std::string> states;
    Spawn(Read(states));
    EXPECT_TRUE(world_.Run(absl::Minutes(5), [&] { return states.size() == runs_.size(); }));
    states.resize(runs_.size());
    return states;
  }

  Task<void> Read(std::vector<std::string>& states) {
    for (const std::string& run_id : runs_) {
      Json answer = co_await Repeat("GET", absl::StrCat("/v1/runs/", run_id), Json());
      const Json& run = answer["run"];
      std::string why;
      if (run.contains("error")) {
        for (const Json& detail : run["error"].value("details", Json::array())) why += detail.value("reason", "");
      }
      states.push_back(absl::StrCat(run.value("state", ""), why.empty() ? "" : " ", why));
    }
  }

  World world_;
  Suite suite_;
  bool over_ = false;
  int deaths_ = 0;
  std::string poison_;
  std::vector<std::string> runs_;
};

TEST(PoisonSimulationTest, TheRunThatEndsItsEnginesIsSetAsideAndNoOther) {
  const Seeds seeds = SeedsFromEnvironment(20);
  for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    Poisoning poisoning(seed);
    const std::vector<std::string> states = poisoning.Play();
    ASSERT_EQ(states.size(), static_cast<size_t>(kRuns) + 1);
    EXPECT_EQ(states[0], poisoning.expected()) << "TUTTI_SIM_SEED=" << seed;
    for (size_t i = 1; i < states.size(); ++i) {
      EXPECT_EQ(states[i], "RUN_STATE_SUCCEEDED") << "TUTTI_SIM_SEED=" << seed << " run " << i;
    }
    EXPECT_EQ(poisoning.deaths(), 1) << "the first death on trial convicts";
  }
}

}  // namespace
}  // namespace tutti::simulation
