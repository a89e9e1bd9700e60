// The methods of a process as its gRPC server serves them.
#pragma once

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "runtime/rpc/local_methods.h"

namespace tutti {

// Hands on what a server stream sends, to its end.
Task<absl::Status> HandOn(std::unique_ptr<ReadStream<grpc::ByteBuffer>> stream, StreamWriter<grpc::ByteBuffer>& to);

class ServedMethods final : public ByteMethods {
 public:
  // `methods` outlives it.
  explicit ServedMethods(const LocalMethods& methods) : methods_(methods) {}
  ByteMethod* Find(absl::string_view path) override;

 private:
  const LocalMethods& methods_;
  absl::flat_hash_map<std::string, std::shared_ptr<ByteMethod>> known_;  // by path
};

}  // namespace tutti
