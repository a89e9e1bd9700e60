#include "tests/simulation/network.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "runtime/async/sleep.h"
#include "runtime/status/error.h"

namespace tutti::simulation {
namespace {

absl::Status Broken() { return absl::UnavailableError("the connection broke"); }
// For a process that is no more: whatever it had in hand it lets go.
absl::Status Dead() { return Error(absl::StatusCode::kAborted, "LEASE_LOST", "this process is no more"); }

const char* KindOf(absl::string_view method) {
  if (absl::StartsWith(method, "tutti.state.")) return "state-manager";
  if (absl::StartsWith(method, "tutti.agent.")) return "agent-manager";
  if (absl::StartsWith(method, "tutti.tool.")) return "tool-service";
  return "workflow-engine";
}

}  // namespace

// One call on its way; perhaps delivered twice, answered once.
struct Port::Exchange {
  grpc::ByteBuffer response;
  OneShot<absl::Status> done;
  std::stop_source stop;
  bool answered = false;
  void Answer(absl::Status status) {
    answered = true;
    done.Set(std::move(status));
  }
};

absl::Duration Network::Latency() {
  return world_.Delay(world_.Chance(weather.slow) ? weather.slowest : weather.latency);
}

Port* Network::Route(absl::string_view method, Port*& favourite) {
  const char* kind = KindOf(method);
  std::vector<Port*> alive;
  for (auto& port : ports_) {
    if (port->kind_ == kind && !port->cut_ && port->methods_) alive.push_back(port.get());
  }
  if (alive.empty()) return nullptr;
  const bool lasting = absl::StartsWith(method, "tutti.state.");
  if (lasting && std::find(alive.begin(), alive.end(), favourite) != alive.end() && !world_.Chance(0.02)) {
    return favourite;
  }
  Port* chosen = alive[world_.Pick(alive.size())];
  if (lasting) favourite = chosen;
  return chosen;
}

template <class T>
void Port::Keep(std::vector<std::weak_ptr<T>>& all, const std::shared_ptr<T>& one) {
  if (all.size() > 256) {
    all.erase(std::remove_if(all.begin(), all.end(), [](const auto& old) { return old.expired(); }), all.end());
  }
  all.push_back(one);
}

void Port::Cut() {
  cut_ = true;
  for (auto& old : asked_) {
    auto exchange = old.lock();
    if (exchange && !exchange->answered) {
      network_.world_.After(network_.Latency(), [exchange] { exchange->Answer(Broken()); });
    }
  }
  for (auto& old : feeding_) {
    if (auto pipe = old.lock()) pipe->Cancel(Broken());
  }
  for (auto& old : asking_) {
    auto exchange = old.lock();
    if (!exchange || exchange->answered) continue;
    exchange->Answer(Dead());
    exchange->stop.request_stop();
  }
  for (auto& old : reading_) {
    if (auto pipe = old.lock()) pipe->Cancel(Dead());
  }
}

void Port::Send(Port* to, const std::shared_ptr<Exchange>& exchange, const std::string& method,
                const grpc::ByteBuffer& request, const rpc_internal::CallOrigin& origin, absl::Duration left) {
  World& world = network_.world_;
  const bool hit = network_.lost && network_.lost(process_, method, request);
  if (to == nullptr || hit || world.Chance(network_.weather.lost)) {
    world.After(network_.Latency(), [exchange] {
      if (!exchange->answered) exchange->Answer(Broken());
    });
    return;
  }
  world.After(network_.Latency(), [=, this] {
    if (to->cut_) {
      if (!exchange->answered) exchange->Answer(Broken());
      return;
    }
    Keep(to->asked_, exchange);
    to->serving_.Spawn(to->process_, to->Serve(exchange, method, request, origin, left));
  });
}

Task<absl::Status> Port::Carry(CallContext& call, std::string method, grpc::ByteBuffer& request,
                               grpc::ByteBuffer& response, absl::Duration timeout) {
  if (cut_) co_return Dead();
  auto exchange = std::make_shared<Exchange>();
  Keep(asking_, exchange);
  const rpc_internal::CallOrigin origin(call);
  absl::Duration left = std::min(timeout, call.deadline - process_.Now());
  Port* to = network_.Route(method, favourite_);
  Send(to, exchange, method, request, origin, left);
  if (network_.world_.Chance(network_.weather.twice)) Send(to, exchange, method, request, origin, left);
  uint64_t timer = 0;
  if (left < absl::InfiniteDuration()) {
    timer = process_.After(left, [exchange] {
      if (exchange->done.Set(absl::DeadlineExceededError("Deadline Exceeded"))) exchange->stop.request_stop();
    });
  }
  std::stop_callback on_stop(call.stop, [exchange] {
    if (exchange->done.Set(absl::CancelledError("the caller gave up"))) exchange->stop.request_stop();
  });
  absl::Status status = co_await exchange->done.Wait(*call.executor);
  if (timer != 0) process_.Cancel(timer);
  if (status.ok()) response = exchange->response;
  co_return status;
}

Task<void> Port::Serve(std::shared_ptr<Exchange> exchange, std::string method, grpc::ByteBuffer request,
                       rpc_internal::CallOrigin origin, absl::Duration left) {
  absl::Status status = absl::UnimplementedError(method);
  grpc::ByteBuffer response;
  if (auto local = methods_->FindRaw(method)) {
    CallContext call(process_, *tracer_);
    call.deadline = process_.Now() + left;
    call.stop = exchange->stop.get_token();
    call.trace = origin.trace;
    call.actor = origin.actor;
    call.origin = origin.origin;
    call.call_id = origin.call_id;
    call.start_by = origin.start_by;
    status = co_await local->CallBytes(call, request, response);
  }
  if (cut_) co_return;
  if (network_.world_.Chance(network_.weather.lost)) status = Broken();
  network_.world_.After(network_.Latency(), [exchange, status, response] {
    if (exchange->answered) return;
    exchange->response = response;
    exchange->Answer(status);
  });
}

std::unique_ptr<ReadStream<grpc::ByteBuffer>> Port::CarryStream(CallContext& call, std::string method,
                                                                const grpc::ByteBuffer& request,
                                                                absl::Duration timeout) {
  Port* to = cut_ ? nullptr : network_.Route(method, favourite_);
  auto pipe = std::make_shared<Pipe>(to ? to->process_ : process_);
  const absl::Duration left = std::min(timeout, call.deadline - process_.Now());
  if (cut_ || to == nullptr) {
    pipe->End(cut_ ? Dead() : Broken());
  } else {
    Keep(reading_, pipe);
    rpc_internal::CallOrigin origin(call);
    network_.world_.After(network_.Latency(), [=] {
      if (to->cut_) return pipe->End(Broken());
      Keep(to->feeding_, pipe);
      to->serving_.Spawn(to->process_, to->ServeStream(pipe, method, request, origin));
    });
  }
  return std::make_unique<rpc_internal::LocalStream<grpc::ByteBuffer>>(call, std::move(pipe), process_, left);
}

Task<void> Port::ServeStream(std::shared_ptr<Pipe> pipe, std::string method, grpc::ByteBuffer request,
                             rpc_internal::CallOrigin origin) {
  auto local = methods_->FindRawStream(method);
  if (!local) {
    pipe->End(absl::UnimplementedError(method));
    co_return;
  }
  CallContext call(process_, *tracer_);
  call.stop = pipe->stop_token();
  call.trace = origin.trace;
  call.actor = origin.actor;
  call.origin = origin.origin;
  auto stream = local->OpenBytes(call, request);
  grpc::ByteBuffer message;
  absl::Status broken;
  while (co_await stream->Read(message)) {
    if (!cut_) co_await Sleep(process_, process_, network_.Latency(), call.stop);
    if (cut_ || network_.world_.Chance(network_.weather.broken)) {
      broken = Broken();
      stream->Cancel();
      break;
    }
    if (!co_await pipe->Write(message)) stream->Cancel();
  }
  absl::Status status = co_await stream->Finish();
  if (!cut_) pipe->End(broken.ok() ? status : broken);
}

}  // namespace tutti::simulation
