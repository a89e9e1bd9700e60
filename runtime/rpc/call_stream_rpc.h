// Serves the unary methods of this process to others over streams (docs/adr/0018); call_streams.h is the other end.
#pragma once

#include <memory>
#include <string>

#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "tutti/rpc/v1/call_stream_service.pb.h"

namespace tutti {

class CallStreamRpc final {
 public:
  // `process_id`: the same for all servers of a process, and no other's.
  CallStreamRpc(ServerEnv& env, const LocalMethods& methods, std::string process_id)
      : env_(env), methods_(methods), process_id_(std::move(process_id)) {}

  void Offer(LocalMethods& methods);
  // Asks the callers to go, which they do when they have their answers. From another thread.
  void Drain() { draining_.request_stop(); }

 private:
  class Session;

  Task<absl::Status> Serve(CallContext& call, StreamReader<tutti::rpc::v1::ExchangeRequest>& reader,
                           BehindWriter<tutti::rpc::v1::ExchangeResponse>& writer);

  ServerEnv& env_;
  const LocalMethods& methods_;
  const std::string process_id_;
  std::stop_source draining_;
};

}  // namespace tutti
