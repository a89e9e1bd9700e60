#include "tests/simulation/suite.h"

#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "runtime/config/load_config.h"
#include "runtime/rpc/channel.h"
#include "runtime/status/error.h"
#include "services/agent-manager/module.h"
#include "services/state-manager/module.h"
#include "services/tool-service/module.h"
#include "services/workflow-engine/module.h"

namespace tutti::simulation {
namespace {

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "the simulated suite does not start: " << status << "\n";
  std::abort();
}

tutti::config::v1::Config NewConfig(const std::string& instance) {
  auto config = DefaultConfig([](const char*) -> const char* { return nullptr; });
  config.mutable_process()->set_instance(instance);
  config.mutable_telemetry()->set_log_level(getenv("TUTTI_SIM_LOG") ? "info" : "error");
  config.mutable_telemetry()->set_sample_ratio(0);
  config.mutable_tool_service()->add_document_roots("/nonexistent");
  return config;
}

// A reply that is kept, or, when it is a stream, read as it comes.
class ReadReply final : public gateway::HttpReply {
 public:
  explicit ReadReply(std::function<bool(const Json&)> read = nullptr) : read_(std::move(read)) {}
  Task<bool> Send(int code, std::string, std::string text, Headers) override {
    status = code;
    body = std::move(text);
    ended = true;
    co_return true;
  }
  Task<bool> Begin(int code, std::string, Headers) override {
    status = code;
    co_return read_ != nullptr;
  }
  Task<bool> Write(std::string line) override {
    if (line == "\n") co_return true;  // nothing for a while
    Json message = Json::parse(line, nullptr, false);
    if (message.is_object() && message.contains("result")) co_return read_(message["result"]);
    status = message.is_object() && message.contains("error") ? message["error"].value("code", 500) : 500;
    body = std::move(line);
    co_return true;
  }
  Task<bool> End() override {
    ended = true;
    co_return true;
  }
  // Whether it is worth another try is all that a caller wants to know of an error here.
  absl::Status Outcome() const {
    if (status == 200 && ended) return absl::OkStatus();
    std::string what = absl::StrCat(status, " ", body);
    const bool passing = status == 200 || status == 503 || status == 504 || status == 409 || status == 429 ||
                         status == 499 || status == 500;
    return passing ? absl::UnavailableError(what) : absl::InvalidArgumentError(what);
  }
  int status = 0;
  std::string body;
  bool ended = false;

 private:
  const std::function<bool(const Json&)> read_;
};

gateway::HttpRequest NewRequest(std::string method, std::string path) {
  gateway::HttpRequest request;
  request.method = std::move(method);
  request.target = std::move(path);
  request.header = [](const char* name) {
    const std::string header = name;
    return header == "content-type" ? "application/json" : header == "host" ? "localhost" : "";
  };
  return request;
}

}  // namespace

Suite::Suite(World& world)
    : world_(world),
      network_(world),
      disk_(world),
      snapshot_every_(5 + static_cast<int>(world.Pick(60))),
      park_after_(absl::Milliseconds(100) + world.Delay(absl::Seconds(5))),
      skew_(world.Chance(0.3) ? absl::ZeroDuration() : absl::Seconds(4)),
      pauses_poisoned_(world.Chance(0.5)),
      client_(world.Start("client")),
      client_port_(network_.Join(client_, "client")),
      methods_(client_, &client_port_) {
  const size_t stores = 1 + world.Pick(2), engines = 2 + world.Pick(2);
  for (size_t i = 0; i < stores; ++i) nodes_.push_back(NewNode("state-manager", absl::StrCat("store-", i)));
  nodes_.push_back(NewNode("tool-service", "tools"));
  nodes_.push_back(NewNode("agent-manager", "agents"));
  for (size_t i = 0; i < engines; ++i) nodes_.push_back(NewNode("workflow-engine", absl::StrCat("engine-", i)));
  for (auto& node : nodes_) Begin(*node);

  gateway_ = NewNode("gateway", "gateway");
  gateway_->process = &world_.Start("gateway");
  gateway_->port = &network_.Join(*gateway_->process, "gateway");
  gateway_->runtime = std::make_unique<Runtime>(
      *gateway_->config, Runtime::Surroundings{*gateway_->process, *gateway_->process, gateway_->process->rng(),
                                               *gateway_->process, *gateway_->port});
  gateway_serving_ = std::make_unique<ServiceServer>(*gateway_->runtime, "gateway");
  public_methods_ = std::make_unique<gateway::PublicMethods>(peers_);
  auto transcoder = gateway::Transcoder::Create(public_methods_->services());
  Must(transcoder.status());
  transcoder_ = *std::move(transcoder);
  rest_ = std::make_unique<gateway::RestHandler>(*gateway_serving_, *transcoder_, *public_methods_,
                                                 gateway::CallerRules{}, absl::Seconds(30));
  rest_->RunOn(client_);
  tracer_ = gateway_->runtime->NewTracer("client");
}

Suite::~Suite() {
  for (auto& node : nodes_) {
    if (node->module) End(*node);
  }
  gateway_->port->Cut();
  client_port_.Cut();
  world_.Kill(client_, [this] { scope_.CloseAndWait(); });
  world_.Kill(*gateway_->process, [this] {
    rest_.reset();
    gateway_serving_.reset();
    tracer_.reset();
    gateway_->runtime.reset();
  });
}

std::unique_ptr<Node> Suite::NewNode(const std::string& kind, const std::string& instance) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  node->instance = instance;
  node->config = std::make_unique<tutti::config::v1::Config>(NewConfig(instance));
  auto* engine = node->config->mutable_workflow_engine();
  engine->mutable_lease_duration()->set_seconds(2 + static_cast<int64_t>(world_.Pick(3)));
  engine->mutable_park_after()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(park_after_ % absl::Seconds(1))));
  engine->mutable_park_after()->set_seconds(absl::ToInt64Seconds(park_after_));
  engine->set_pause_poisoned(pauses_poisoned_);
  engine->set_max_concurrent_steps(2 + static_cast<int>(world_.Pick(20)));
  node->config->mutable_state_manager()->set_snapshot_every(snapshot_every_);
  return node;
}

void Suite::Begin(Node& node) {
  // Engines' clocks are what they are; of the store's the database's time counts.
  absl::Duration skew = node.kind == "workflow-engine" ? world_.Delay(skew_) - skew_ / 2 : absl::ZeroDuration();
  node.process = &world_.Start(node.instance, skew);
  node.port = &network_.Join(*node.process, node.kind);
  node.runtime = std::make_unique<Runtime>(
      *node.config,
      Runtime::Surroundings{*node.process, *node.process, node.process->rng(), *node.process, *node.port});
  node.tracer = node.runtime->NewTracer(node.kind);
  if (node.kind == "state-manager") {
    node.module = state_manager::NewStateManagerOver(
        *node.runtime, *node.config, /*standalone=*/true,
        [this, process = node.process](const auto&, const Clock&, state_manager::NewsListener& listener,
                                       state_manager::DeferringWriter*) { return disk_.Open(*process, listener); });
  } else if (node.kind == "tool-service") {
    node.module = tool_service::NewToolService(*node.runtime, *node.config, true);
  } else if (node.kind == "agent-manager") {
    node.module = agent_manager::NewAgentManager(*node.runtime, *node.config, true);
  } else {
    node.module = engine::NewWorkflowEngine(*node.runtime, *node.config, true);
  }
  disk_.Starting();
  Must(node.module->Start(peers_));
  disk_.Settle();
  node.port->Listen(node.runtime->local_methods, *node.tracer);
}

void Suite::End(Node& node) {
  node.port->Cut();
  disk_.Drop(*node.process);
  world_.Kill(*node.process, [&node] {
    node.port->Close();
    node.module->Drain(absl::Now());
    node.module.reset();
    node.tracer.reset();
    node.runtime.reset();
  });
}

void Suite::Crash(Node& node, absl::Duration back_after) {
  End(node);
  ++coming_;
  world_.After(back_after, [this, &node] {
    --coming_;
    Begin(node);
  });
}

Task<absl::StatusOr<Json>> Suite::Rest(std::string method, std::string path, Json body) {
  gateway::HttpRequest request = NewRequest(std::move(method), std::move(path));
  request.body = body.is_null() ? "" : DumpJson(body);
  ReadReply reply;
  co_await rest_->Handle(request, reply);
  absl::Status outcome = reply.Outcome();
  if (!outcome.ok()) co_return outcome;
  co_return Json::parse(reply.body, nullptr, false);
}

Task<absl::Status> Suite::Follow(std::string path, std::function<bool(const Json&)> read) {
  gateway::HttpRequest request = NewRequest("GET", std::move(path));
  ReadReply reply(std::move(read));
  co_await rest_->Handle(request, reply);
  co_return reply.Outcome();
}

}  // namespace tutti::simulation
