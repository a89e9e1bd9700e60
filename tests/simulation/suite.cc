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

// Nobody is there: what is not carried by the network fails.
PeerChannels NoPeers() {
  static const std::shared_ptr<grpc::Channel> nobody = ConnectTo("127.0.0.1:1", 1 << 20);
  return {nobody, nobody, nobody, nobody, nobody, nobody};
}

// A reply that is kept.
class Kept final : public gateway::HttpReply {
 public:
  Task<bool> Send(int code, std::string, std::string text, Headers) override {
    status = code;
    body = std::move(text);
    co_return true;
  }
  Task<bool> Begin(int, std::string, Headers) override { co_return false; }
  Task<bool> Write(std::string) override { co_return false; }
  Task<bool> End() override { co_return false; }
  int status = 0;
  std::string body;
};

}  // namespace

Suite::Suite(World& world)
    : world_(world),
      network_(world),
      disk_(world),
      peers_(NoPeers()),
      snapshot_every_(5 + static_cast<int>(world.Pick(60))),
      park_after_(absl::Milliseconds(100) + world.Delay(absl::Seconds(5))),
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
  rest_ = std::make_unique<gateway::RestHandler>(*gateway_serving_, *transcoder_, *public_methods_, absl::Seconds(30));
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
  engine->set_max_concurrent_steps(2 + static_cast<int>(world_.Pick(20)));
  node->config->mutable_state_manager()->set_snapshot_every(snapshot_every_);
  return node;
}

void Suite::Begin(Node& node) {
  // Engines' clocks are what they are; of the store's the database's time counts.
  absl::Duration skew =
      node.kind == "workflow-engine" ? world_.Delay(absl::Seconds(4)) - absl::Seconds(2) : absl::ZeroDuration();
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
  gateway::HttpRequest request;
  request.method = std::move(method);
  request.target = std::move(path);
  request.body = body.is_null() ? "" : DumpJson(body);
  request.header = [](const char* name) { return std::string(name) == "content-type" ? "application/json" : ""; };
  Kept reply;
  co_await rest_->Handle(request, reply);
  Json answer = Json::parse(reply.body, nullptr, false);
  if (reply.status == 200) co_return answer;
  std::string what = absl::StrCat(reply.status, " ", reply.body);
  // Whether it is worth another try is all that a caller wants to know here.
  const bool passing = reply.status == 503 || reply.status == 504 || reply.status == 409 || reply.status == 429 ||
                       reply.status == 499 || reply.status == 500;
  if (passing) co_return absl::UnavailableError(what);
  co_return absl::InvalidArgumentError(what);
}

}  // namespace tutti::simulation
