// Calls to other processes over long-lived streams, one for each process that answers: what is ready together shares a
// message (docs/adr/0018). What a stream cannot take goes as a unary call by itself, with the channel's retries: large
// requests, more calls than a stream holds, calls while there is no stream, and again those that a stream lost.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/random/random.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/telemetry/trace.h"
#include "runtime/time/clock.h"

namespace tutti {

class CallStreams final : public MethodCarrier {
 public:
  // The services of one contract package, and how their processes are reached.
  struct Peer {
    std::string package;  // "tutti.state.v1"
    RpcPeer process;
    size_t max_response_bytes = 4 << 20;
  };
  // All of it runs on `loop`; calls may come from others.
  CallStreams(std::vector<Peer> peers, Executor& loop, const Clock& clock, TimerService& timers, Rng& rng,
              Tracer& tracer);
  ~CallStreams() override;

  // Breaks the streams; calls under way end as UNAVAILABLE. From another thread; blocks.
  void Stop();

  // The unary methods of the peers' contracts.
  bool Carries(absl::string_view method) const override;
  Task<absl::Status> Carry(CallContext& call, std::string method, grpc::ByteBuffer& request, grpc::ByteBuffer& response,
                           absl::Duration timeout) override;
  // Streams have a transport of their own: UNIMPLEMENTED.
  std::unique_ptr<ReadStream<grpc::ByteBuffer>> CarryStream(CallContext& call, std::string method,
                                                            const grpc::ByteBuffer& request,
                                                            absl::Duration timeout) override;

 private:
  struct Waiting;
  struct Stream;
  struct Link;

  Link* LinkTo(absl::string_view method) const;
  Task<absl::Status> OnStream(CallContext& call, std::shared_ptr<Stream> stream, std::string method,
                              const grpc::ByteBuffer& request, grpc::ByteBuffer& response, absl::Time deadline,
                              size_t max_response_bytes);
  // Looks for processes that answer, for as long as there are calls to be made.
  Task<void> KeepLinked(Link& link);
  Task<void> RunStream(Link& link, std::shared_ptr<Stream> stream);
  Task<bool> WriteAll(Stream& stream);
  Task<bool> ReadAll(Link& link, Stream& stream);

  Executor& loop_;
  const Clock& clock_;
  TimerService& timers_;
  Rng& rng_;
  Tracer& tracer_;
  std::stop_source stop_;
  std::vector<std::unique_ptr<Link>> links_;
  Scope scope_;
};

}  // namespace tutti
