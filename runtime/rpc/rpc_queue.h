// Where the ends of gRPC's operations arrive, and the loop that waits for them there: no thread of gRPC's carries them
// to it (docs/adr/0020).
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <memory>
#include <string>

#include "runtime/async/executor.h"
#include "runtime/async/one_shot.h"

namespace tutti {

// Tags in it are EventSource::Event*.
class RpcQueue final : public EventSource {
 public:
  RpcQueue();
  // After all operations have ended, and the server.
  ~RpcQueue() override;

  Event* Next(bool wait, bool& ok) override;
  void Interrupt() override;

  grpc::ServerCompletionQueue& queue() { return *queue_; }
  // For the one server whose calls arrive here; it is then started by StartServer. Null: it could not be.
  grpc::ServerBuilder& builder() { return builder_; }
  std::unique_ptr<grpc::Server> StartServer();

 private:
  grpc::ServerBuilder builder_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  bool no_server_ = false;  // it could not be started
  grpc::Alarm alarm_;
  std::atomic<bool> interrupted_{false};
};

// A loop with such a queue.
class RpcLoop final : public Executor {
 public:
  // As EventLoop.
  explicit RpcLoop(const std::string& name, std::chrono::microseconds linger = {}) : loop_(name, linger, &queue_) {}
  void Post(absl::AnyInvocable<void()> fn) override { loop_.Post(std::move(fn)); }
  RpcQueue& rpc() { return queue_; }

 private:
  RpcQueue queue_;
  EventLoop loop_;
};

// The tag of one operation: sets what somebody waits for.
class RpcEnd final : public EventSource::Event {
 public:
  void* tag() { return static_cast<EventSource::Event*>(this); }
  void Happened(bool ok) override { done_.Set(ok); }
  auto Wait(Executor& executor) { return done_.Wait(executor); }

 private:
  OneShot<bool> done_;
};

}  // namespace tutti
