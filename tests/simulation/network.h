// A network between processes: messages are late, overtake each other, are lost, and arrive twice; connections break.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/async/scope.h"
#include "runtime/rpc/local_methods.h"
#include "tests/simulation/world.h"

namespace tutti::simulation {

// How bad it is. Probabilities for each message.
struct Weather {
  double lost = 0, twice = 0, broken = 0;
  absl::Duration latency = absl::Milliseconds(2);  // the most of the usual
  double slow = 0;                                 // how often it is up to `slowest`
  absl::Duration slowest = absl::Seconds(3);
};

class Network;

// A process's place in the network: what it offers, and how it reaches the others.
class Port final : public MethodCarrier {
 public:
  Port(Network& network, Process& process, std::string kind)
      : network_(network), process_(process), kind_(std::move(kind)) {}

  bool Carries(absl::string_view) const override { return true; }
  Task<absl::Status> Carry(CallContext& call, std::string method, grpc::ByteBuffer& request, grpc::ByteBuffer& response,
                           absl::Duration timeout) override;
  std::unique_ptr<ReadStream<grpc::ByteBuffer>> CarryStream(CallContext& call, std::string method,
                                                            const grpc::ByteBuffer& request,
                                                            absl::Duration timeout) override;
  // From when its methods can be called.
  void Listen(LocalMethods& methods, Tracer& tracer) {
    methods_ = &methods;
    tracer_ = &tracer;
  }
  // All connections break, and no more are made.
  void Cut();
  // After Cut, before what it offered goes. Blocks.
  void Close() { serving_.CloseAndWait(); }

 private:
  friend class Network;
  struct Exchange;
  using Pipe = rpc_internal::LocalPipe<grpc::ByteBuffer>;

  void Send(Port* to, const std::shared_ptr<Exchange>& exchange, const std::string& method,
            const grpc::ByteBuffer& request, const rpc_internal::CallOrigin& origin, absl::Duration left);
  Task<void> Serve(std::shared_ptr<Exchange> exchange, std::string method, grpc::ByteBuffer request,
                   rpc_internal::CallOrigin origin, absl::Duration left);
  Task<void> ServeStream(std::shared_ptr<Pipe> pipe, std::string method, grpc::ByteBuffer request,
                         rpc_internal::CallOrigin origin);
  template <class T>
  static void Keep(std::vector<std::weak_ptr<T>>& all, const std::shared_ptr<T>& one);

  Network& network_;
  Process& process_;
  const std::string kind_;
  bool cut_ = false;
  LocalMethods* methods_ = nullptr;
  Tracer* tracer_ = nullptr;
  std::vector<std::weak_ptr<Exchange>> asked_, asking_;  // by others, and of others
  std::vector<std::weak_ptr<Pipe>> feeding_, reading_;
  Port* favourite_ = nullptr;  // of the state-managers: connections last
  Scope serving_;
};

class Network {
 public:
  explicit Network(World& world) : world_(world) {}
  Port& Join(Process& process, std::string kind) {
    ports_.push_back(std::make_unique<Port>(*this, process, std::move(kind)));
    return *ports_.back();
  }
  Weather weather;
  // Requests for which it returns true are lost, also in fair weather. May be null.
  std::function<bool(const Process& from, const std::string& method, const grpc::ByteBuffer& request)> lost;

 private:
  friend class Port;
  // Who answers a method, as a load balancer would have it; null: nobody lives.
  Port* Route(absl::string_view method, Port*& favourite);
  absl::Duration Latency();

  World& world_;
  std::vector<std::unique_ptr<Port>> ports_;
};

}  // namespace tutti::simulation
