#include "runtime/rpc/rpc_queue.h"

namespace tutti {

RpcQueue::RpcQueue() : queue_(builder_.AddCompletionQueue()) {}

std::unique_ptr<grpc::Server> RpcQueue::StartServer() {
  auto server = builder_.BuildAndStart();
  no_server_ = server == nullptr;
  return server;
}

RpcQueue::~RpcQueue() {
  if (no_server_) return;  // gRPC would wait for that server, with a message about it
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

EventSource::Event* RpcQueue::Next(bool wait, bool& ok) {
  void* tag = nullptr;
  const gpr_timespec deadline = wait ? gpr_inf_future(GPR_CLOCK_MONOTONIC) : gpr_inf_past(GPR_CLOCK_MONOTONIC);
  if (queue_->AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) return nullptr;
  if (tag != &alarm_) return static_cast<Event*>(tag);
  interrupted_ = false;
  return nullptr;
}

void RpcQueue::Interrupt() {
  // The alarm may be set again when it has gone off.
  if (!interrupted_.exchange(true)) alarm_.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), &alarm_);
}

}  // namespace tutti
