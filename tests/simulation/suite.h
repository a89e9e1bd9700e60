// The whole suite as processes of a simulated world: the real modules of engines, state-managers, agent-manager and
// tool-service, and the gateway's REST handler, over a simulated network and database.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/json/json.h"
#include "runtime/process/module.h"
#include "runtime/process/service_server.h"
#include "services/gateway/domain/transcoder.h"
#include "services/gateway/rpc/rest_handler.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/network.h"
#include "tests/simulation/world.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti::simulation {

// A service's process.
struct Node {
  std::string kind, instance;
  Process* process = nullptr;
  Port* port = nullptr;
  std::unique_ptr<tutti::config::v1::Config> config;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Tracer> tracer;
  std::unique_ptr<Module> module;
};

class Suite {
 public:
  // Draws its size and its settings from the world.
  explicit Suite(World& world);
  ~Suite();

  World& world() { return world_; }
  Network& network() { return network_; }
  Disk& disk() { return disk_; }
  std::vector<std::unique_ptr<Node>>& nodes() { return nodes_; }
  // kill -9, and after a while another life of it.
  void Crash(Node& node, absl::Duration back_after);
  // Whether all that crashed has come back.
  bool whole() const { return coming_ == 0; }

  // A caller's side, outside of all that may fail.
  Process& client() { return client_; }
  Tracer& tracer() { return *tracer_; }
  Scope& scope() { return scope_; }
  LocalMethods& methods() { return methods_; }
  // A request by REST, through the gateway; the answer's JSON, or its error.
  Task<absl::StatusOr<Json>> Rest(std::string method, std::string path, Json body);
  // A server stream by REST, a message at a time; `read` returns false when the client goes away. OK: it ended well.
  Task<absl::Status> Follow(std::string path, std::function<bool(const Json&)> read);
  // By how much two engines' clocks differ at most.
  absl::Duration skew() const { return skew_; }
  // A run that ends its engines is paused, not failed.
  bool pauses_poisoned() const { return pauses_poisoned_; }

 private:
  std::unique_ptr<Node> NewNode(const std::string& kind, const std::string& instance);
  void Begin(Node& node);
  void End(Node& node);

  World& world_;
  Network network_;
  Disk disk_;
  const Peers peers_;  // what is not carried by the network fails
  const int snapshot_every_;
  const absl::Duration park_after_, skew_;
  const bool pauses_poisoned_;
  std::vector<std::unique_ptr<Node>> nodes_;
  int coming_ = 0;

  Process& client_;
  Port& client_port_;
  LocalMethods methods_;
  std::unique_ptr<Node> gateway_;
  std::unique_ptr<ServiceServer> gateway_serving_;
  std::unique_ptr<gateway::PublicMethods> public_methods_;
  std::unique_ptr<gateway::Transcoder> transcoder_;
  std::unique_ptr<gateway::RestHandler> rest_;
  std::unique_ptr<Tracer> tracer_;
  Scope scope_;
};

}  // namespace tutti::simulation
