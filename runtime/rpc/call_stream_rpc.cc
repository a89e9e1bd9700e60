#include "runtime/rpc/call_stream_rpc.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "runtime/async/when_all.h"
#include "runtime/rpc/call_streams_limits.h"
#include "runtime/rpc/message_queue.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"

namespace tutti {

using tutti::rpc::v1::Answer;
using tutti::rpc::v1::Call;
using tutti::rpc::v1::ExchangeRequest;
using tutti::rpc::v1::ExchangeResponse;

// One stream. All of it runs on the executor; it lives as long as a call that came over it.
class CallStreamRpc::Session : public std::enable_shared_from_this<CallStreamRpc::Session> {
 public:
  explicit Session(CallStreamRpc& rpc)
      : env_(rpc.env_), methods_(rpc.methods_), unsent_(env_.executor, call_streams::kMostBytesTogether) {}

  // Until the caller sends no more.
  Task<bool> ReadCalls(StreamReader<ExchangeRequest>& reader) {
    ExchangeRequest message;
    while (co_await reader.Read(message)) {
      for (Call& call : *message.mutable_calls()) Begin(std::move(call));
      for (int64_t number : message.cancelled_numbers()) {
        if (auto it = running_.find(number); it != running_.end()) it->second.request_stop();
      }
    }
    reading_ = false;
    unsent_.Wake();
    co_return true;
  }

  // Until nothing is left to be answered.
  Task<bool> WriteAnswers(BehindWriter<ExchangeResponse>& writer) {
    while (!broken_) {
      if (!unsent_.empty()) {
        const bool written = co_await unsent_.WriteNext(writer);
        if (!written) Break();
      } else if (reading_ || !running_.empty()) {
        co_await unsent_.AwaitWake();
      } else {
        break;
      }
    }
    (void)co_await writer.Written();
    co_return true;
  }

  void SayDraining() {
    if (broken_) return;
    Room(0).set_draining(true);
    unsent_.Wake();
  }
  // The caller has gone: nobody waits for answers.
  void Break() {
    if (std::exchange(broken_, true)) return;
    for (auto& [number, stop] : running_) stop.request_stop();
    unsent_.Wake();
  }

 private:
  void Begin(Call call) {
    const int64_t number = call.number();
    // Callers hold to their number; what they gave up may still be ending. Reading goes on, for cancels come by it too.
    if (running_.size() >= 2 * call_streams::kMostCalls) {
      grpc::ByteBuffer none;
      End(number, absl::UnavailableError("too many calls are under way on this stream"), none);
      return;
    }
    std::stop_token stop = running_[number].get_token();
    if (!env_.scope.Spawn(env_.executor, Run(shared_from_this(), std::move(call), std::move(stop)))) {
      grpc::ByteBuffer none;
      End(number, rpc_internal::ShuttingDown(), none);
    }
  }

  static Task<void> Run(std::shared_ptr<Session> self, Call call, std::stop_token stop) {
    const ServerEnv& env = self->env_;
    CallContext context(env.executor, env.tracer);
    if (call.has_timeout()) context.deadline = env.clock.Now() + FromProto(call.timeout());
    context.stop = std::move(stop);
    context.trace = TraceContext::FromTraceparent(call.traceparent());
    context.actor = std::move(*call.mutable_actor());
    context.origin = std::move(*call.mutable_origin());
    context.call_id = std::move(*call.mutable_call_id());
    if (call.has_start_within()) context.start_by = env.clock.Now() + FromProto(call.start_within());
    grpc::ByteBuffer response;
    absl::Status status = absl::UnimplementedError(call.method());
    if (auto method = self->methods_.FindRaw(call.method())) {
      grpc::Slice slice(call.request());
      grpc::ByteBuffer request(&slice, 1);
      status = co_await method->CallBytes(context, request, response);
    }
    self->End(call.number(), status, response);
  }

  void End(int64_t number, const absl::Status& status, const grpc::ByteBuffer& response) {
    running_.erase(number);
    if (broken_) return;
    std::vector<grpc::Slice> slices;
    google::rpc::Status error;
    if (status.ok()) {
      (void)response.Dump(&slices);
    } else {
      error = ToRpcStatus(status);
    }
    Answer* answer = Room(error.ByteSizeLong() + response.Length()).add_answers();
    answer->set_number(number);
    if (!status.ok()) *answer->mutable_status() = std::move(error);
    for (const grpc::Slice& slice : slices) {
      const char* rest = reinterpret_cast<const char*>(slice.begin());
      for (size_t left = slice.size(); left > 0;) {
        size_t room = call_streams::kMostBytesTogether - answer->response().size();
        if (room == 0) {
          answer->set_more(true);
          answer = Room(call_streams::kMostBytesTogether).add_answers();
          answer->set_number(number);
          room = call_streams::kMostBytesTogether;
        }
        const size_t part = std::min(room, left);
        answer->mutable_response()->append(rest, part);
        rest += part;
        left -= part;
      }
    }
    unsent_.Wake();
  }

  // The message that an answer of as many bytes goes with.
  ExchangeResponse& Room(size_t bytes) { return unsent_.Room(bytes + call_streams::kEnvelope); }

  ServerEnv& env_;
  const LocalMethods& methods_;
  absl::flat_hash_map<int64_t, std::stop_source> running_;  // by number
  MessageQueue<ExchangeResponse> unsent_;
  bool reading_ = true, broken_ = false;
};

void CallStreamRpc::Offer(LocalMethods& methods) {
  methods.AddBidi(env_, "tutti.rpc.v1.CallStreamService/Exchange", *this, &CallStreamRpc::Serve);
}

Task<absl::Status> CallStreamRpc::Serve(CallContext& call, StreamReader<ExchangeRequest>& reader,
                                        BehindWriter<ExchangeResponse>& writer) {
  ExchangeResponse hello;
  hello.set_process_id(process_id_);
  if (!co_await writer.Write(hello)) co_return absl::CancelledError("the caller has gone");
  auto session = std::make_shared<Session>(*this);
  std::stop_callback on_drain(draining_.get_token(),
                              [session, &loop = env_.executor] { loop.Post([session] { session->SayDraining(); }); });
  std::stop_callback on_cancel(call.stop,
                               [session, &loop = env_.executor] { loop.Post([session] { session->Break(); }); });
  std::vector<Task<bool>> both;
  both.push_back(session->WriteAnswers(writer));
  both.push_back(session->ReadCalls(reader));
  co_await WhenAll(std::move(both));
  co_return absl::OkStatus();
}

}  // namespace tutti
