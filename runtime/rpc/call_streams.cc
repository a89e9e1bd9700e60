#include "runtime/rpc/call_streams.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/rpc/call_streams_limits.h"
#include "runtime/rpc/message_queue.h"
#include "runtime/status/mapping.h"
#include "runtime/time/proto_time.h"
#include "tutti/rpc/v1/call_stream_service.pb.h"

namespace tutti {
namespace {

using tutti::rpc::v1::ExchangeRequest;
using tutti::rpc::v1::ExchangeResponse;

// How long a process may take to say who it is.
constexpr absl::Duration kHello = absl::Seconds(5);
// Balanced channels hand each new stream to some process that is connected: so many in a row that are known already,
// and the others are left for later.
constexpr int kKnownInARow = 3;
constexpr absl::Duration kLookAgain = absl::Seconds(10);
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100), kLongestBackoff = absl::Seconds(2);

absl::Status Broken() { return absl::UnavailableError("the connection broke"); }
absl::Status GaveUp() { return absl::CancelledError("the caller gave up"); }

void CopyTo(const grpc::ByteBuffer& bytes, std::string& out) {
  std::vector<grpc::Slice> slices;
  (void)bytes.Dump(&slices);
  out.clear();
  out.reserve(bytes.Length());
  for (const grpc::Slice& slice : slices) out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

}  // namespace

struct CallStreams::Waiting {
  std::string response;  // as much as has come
  OneShot<absl::Status> done;
};

// To one process.
struct CallStreams::Stream {
  Stream(Executor& loop, Tracer& tracer, std::stop_token stop)
      : call(loop, tracer), unsent(loop, call_streams::kMostBytesTogether) {
    call.stop = std::move(stop);
  }
  CallContext call;
  std::optional<ClientBidiStream<ExchangeRequest, ExchangeResponse>> rpc;
  OneShot<bool> hello;  // false: it ended before
  std::string process_id;
  bool broken = false, draining = false, half_closed = false;
  int64_t last_number = 0;
  absl::flat_hash_map<int64_t, std::shared_ptr<Waiting>> calls;
  MessageQueue<ExchangeRequest> unsent;

  bool TakesCalls() const {
    return !broken && !draining && calls.size() < call_streams::kMostCalls && unsent.size() < call_streams::kMostUnsent;
  }
  // Nobody waits for the call any more: it is not sent, or its callee is told.
  void GiveUp(int64_t number) {
    for (ExchangeRequest& message : unsent.messages()) {
      for (int i = 0; i < message.calls_size(); ++i) {
        if (message.calls(i).number() != number) continue;
        message.mutable_calls()->DeleteSubrange(i, 1);
        return;
      }
    }
    unsent.Room(call_streams::kEnvelope).add_cancelled_numbers(number);
    unsent.Wake();
  }
};

struct CallStreams::Link {
  explicit Link(Peer p) : peer(std::move(p)), prefix(peer.package + ".") {}
  const Peer peer;
  const std::string prefix;
  bool kept = false;
  std::vector<std::shared_ptr<Stream>> streams;  // that have said who answers
  std::stop_source look;                         // for others, without waiting longer

  // Who has the least to do.
  std::shared_ptr<Stream> Pick() const {
    std::shared_ptr<Stream> best;
    for (const auto& stream : streams) {
      if (stream->TakesCalls() && (!best || stream->calls.size() < best->calls.size())) best = stream;
    }
    return best;
  }
};

CallStreams::CallStreams(std::vector<Peer> peers, Executor& loop, const Clock& clock, TimerService& timers, Rng& rng,
                         Tracer& tracer)
    : loop_(loop), clock_(clock), timers_(timers), rng_(rng), tracer_(tracer) {
  for (Peer& peer : peers) links_.push_back(std::make_unique<Link>(std::move(peer)));
}

CallStreams::~CallStreams() { Stop(); }

void CallStreams::Stop() {
  stop_.request_stop();
  scope_.CloseAndWait();
}

CallStreams::Link* CallStreams::LinkTo(absl::string_view method) const {
  for (const auto& link : links_) {
    if (absl::StartsWith(method, link->prefix)) return link.get();
  }
  return nullptr;
}

bool CallStreams::Carries(absl::string_view method) const {
  if (LinkTo(method) == nullptr) return false;
  const auto* found =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(absl::StrReplaceAll(method, {{"/", "."}}));
  return found != nullptr && !found->client_streaming() && !found->server_streaming();
}

Task<absl::Status> CallStreams::Carry(CallContext& call, std::string method, grpc::ByteBuffer& request,
                                      grpc::ByteBuffer& response, absl::Duration timeout) {
  Link* const link = LinkTo(method);
  if (link == nullptr) co_return absl::UnimplementedError(method);
  if (call.stop.stop_requested()) co_return GaveUp();
  const absl::Time now = clock_.Now();
  absl::Time deadline = timeout == absl::InfiniteDuration() ? absl::InfiniteFuture() : now + timeout;
  deadline = std::min(deadline, call.deadline - kDeadlineMargin);
  absl::Status status = Broken();
  if (request.Length() <= call_streams::kLargestRequest) {
    if (call.executor != &loop_) co_await ResumeOn(loop_);
    if (!std::exchange(link->kept, true)) scope_.Spawn(loop_, KeepLinked(*link));
    if (auto stream = link->Pick()) {
      status = co_await OnStream(call, std::move(stream), method, request, response, deadline,
                                 link->peer.max_response_bytes);
    }
    if (call.executor != &loop_) co_await ResumeOn(*call.executor);
  }
  if (absl::IsUnavailable(status) || absl::IsUnimplemented(status)) {
    const absl::Duration left = deadline == absl::InfiniteFuture() ? absl::InfiniteDuration() : deadline - clock_.Now();
    status = co_await rpc_internal::CallBare(call, call.trace, link->peer.process, method, request, response, left);
  }
  co_return status;
}

Task<absl::Status> CallStreams::OnStream(CallContext& call, std::shared_ptr<Stream> stream, std::string method,
                                         const grpc::ByteBuffer& request, grpc::ByteBuffer& response,
                                         absl::Time deadline, size_t max_response_bytes) {
  auto waiting = std::make_shared<Waiting>();
  const int64_t number = ++stream->last_number;
  const absl::Duration left = deadline == absl::InfiniteFuture() ? absl::InfiniteDuration() : deadline - clock_.Now();
  if (left <= absl::ZeroDuration()) co_return absl::DeadlineExceededError("Deadline Exceeded");
  stream->calls.emplace(number, waiting);
  auto& out = *stream->unsent.Room(request.Length() + call_streams::kEnvelope).add_calls();
  out.set_number(number);
  out.set_method(method);
  CopyTo(request, *out.mutable_request());
  if (left != absl::InfiniteDuration()) ToProto(left, out.mutable_timeout());
  if (call.trace.valid()) out.set_traceparent(call.trace.ToTraceparent());
  out.set_actor(call.actor);
  out.set_origin(call.origin);
  out.set_call_id(call.call_id);
  if (call.start_by != absl::InfiniteFuture()) {
    ToProto(std::max(call.start_by - clock_.Now(), absl::ZeroDuration()), out.mutable_start_within());
  }
  stream->unsent.Wake();

  uint64_t timer = 0;
  if (left != absl::InfiniteDuration()) {
    timer = timers_.After(left, [waiting] { waiting->done.Set(absl::DeadlineExceededError("Deadline Exceeded")); });
  }
  std::stop_callback on_stop(call.stop, [waiting] { waiting->done.Set(GaveUp()); });
  absl::Status status = co_await waiting->done.Wait(loop_);
  if (timer != 0) timers_.Cancel(timer);
  if (stream->calls.erase(number) > 0 && !stream->broken) stream->GiveUp(number);
  if (stream->draining) stream->unsent.Wake();
  if (status.ok() && waiting->response.size() > max_response_bytes) {
    co_return absl::ResourceExhaustedError(
        absl::StrCat("Received message larger than max (", waiting->response.size(), " vs. ", max_response_bytes, ")"));
  }
  if (status.ok()) {
    grpc::Slice slice(waiting->response);
    response = grpc::ByteBuffer(&slice, 1);
  }
  co_return status;
}

std::unique_ptr<ReadStream<grpc::ByteBuffer>> CallStreams::CarryStream(CallContext& call, std::string method,
                                                                       const grpc::ByteBuffer&, absl::Duration) {
  auto pipe = std::make_shared<rpc_internal::LocalPipe<grpc::ByteBuffer>>(loop_);
  pipe->End(absl::UnimplementedError(method));
  return std::make_unique<rpc_internal::LocalStream<grpc::ByteBuffer>>(call, std::move(pipe), timers_,
                                                                       absl::InfiniteDuration());
}

Task<void> CallStreams::KeepLinked(Link& link) {
  absl::Duration backoff = kFirstBackoff;
  int known = 0;
  while (!stop_.stop_requested()) {
    link.look = std::stop_source();
    auto stream = std::make_shared<Stream>(loop_, tracer_, stop_.get_token());
    stream->rpc.emplace(stream->call, absl::InfiniteDuration());
    if (!scope_.Spawn(loop_, RunStream(link, stream))) break;
    uint64_t timer = timers_.After(kHello, [stream] { stream->rpc->Cancel(); });
    const bool answered = co_await stream->hello.Wait(loop_);
    timers_.Cancel(timer);
    absl::Duration pause;
    if (!answered) {
      pause = backoff;
      backoff = std::min(backoff * 2, kLongestBackoff);
    } else {
      backoff = kFirstBackoff;
      const bool is_new = std::none_of(link.streams.begin(), link.streams.end(),
                                       [&](const auto& other) { return other->process_id == stream->process_id; });
      if (is_new) {
        link.streams.push_back(stream);
        known = 0;
      } else {
        stream->rpc->Cancel();
        if (++known >= kKnownInARow) pause = link.Pick() ? kLookAgain : kFirstBackoff;
      }
    }
    if (pause == absl::ZeroDuration()) continue;
    std::stop_callback at_end(stop_.get_token(), [look = link.look]() mutable { look.request_stop(); });
    co_await Sleep(timers_, loop_, pause * (0.8 + 0.4 * rng_.Unit()), link.look.get_token());
  }
}

Task<void> CallStreams::RunStream(Link& link, std::shared_ptr<Stream> stream) {
  stream->rpc->Start(link.peer.process, "tutti.rpc.v1.CallStreamService/Exchange");
  std::vector<Task<bool>> both;
  both.push_back(ReadAll(link, *stream));
  both.push_back(WriteAll(*stream));
  co_await WhenAll(std::move(both));
  co_await stream->rpc->Finish();
  stream->hello.Set(false);
  auto end = std::remove(link.streams.begin(), link.streams.end(), stream);
  if (end != link.streams.end()) {
    link.streams.erase(end, link.streams.end());
    link.look.request_stop();
  }
  for (auto& [number, waiting] : std::exchange(stream->calls, {})) waiting->done.Set(Broken());
}

Task<bool> CallStreams::WriteAll(Stream& stream) {
  while (!stream.broken) {
    if (!stream.unsent.empty()) {
      const bool written = co_await stream.unsent.WriteNext(*stream.rpc);
      if (!written) stream.broken = true;
    } else if (stream.draining && stream.calls.empty() && !std::exchange(stream.half_closed, true)) {
      const bool written = co_await stream.rpc->Written();
      if (written) stream.rpc->WritesDone();
    } else {
      co_await stream.unsent.AwaitWake();
    }
  }
  stream.rpc->Cancel();
  (void)co_await stream.rpc->Written();
  co_return true;
}

Task<bool> CallStreams::ReadAll(Link& link, Stream& stream) {
  ExchangeResponse message;
  while (co_await stream.rpc->Read(message)) {
    if (!message.process_id().empty()) {
      stream.process_id = message.process_id();
      stream.hello.Set(true);
    }
    for (auto& answer : *message.mutable_answers()) {
      auto it = stream.calls.find(answer.number());
      if (it == stream.calls.end()) continue;
      Waiting& waiting = *it->second;
      if (waiting.response.empty()) {
        waiting.response.swap(*answer.mutable_response());
      } else if (waiting.response.size() <= link.peer.max_response_bytes) {
        waiting.response += answer.response();
      }
      if (answer.more()) continue;
      auto answered = std::move(it->second);
      stream.calls.erase(it);
      answered->done.Set(answer.has_status() ? FromRpcStatus(answer.status()) : absl::OkStatus());
    }
    if (message.draining() && !std::exchange(stream.draining, true)) {
      link.look.request_stop();
      stream.unsent.Wake();
    }
  }
  stream.broken = true;
  stream.unsent.Wake();
  co_return true;
}

}  // namespace tutti
