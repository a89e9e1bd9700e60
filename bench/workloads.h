// The workloads by which durable engines are compared: W1 three steps in sequence, W2 a fan-out of fifty and an
// aggregate, W3 many steps in one run, W4 runs that wait. Steps are calls of the agent `echo`.
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>

namespace tutti::bench {

struct WorkloadOptions {
  std::string workload;  // w1, w2, w3, w4
  int concurrency = 64;
  double seconds = 10;
  int count = 1000;     // of W3: steps; of W4: runs
  std::string between;  // of W4: a shell command between starts and signals
};

// Prints one JSON object. False: something failed.
bool RunWorkload(const std::shared_ptr<grpc::Channel>& channel, const WorkloadOptions& options);

}  // namespace tutti::bench
