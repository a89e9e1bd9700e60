// The life of a process: configuration, start, ready, SIGTERM, ordered end.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/process/module.h"
#include "runtime/process/runtime.h"
#include "tutti/config/v1/config.pb.h"

namespace tutti {

inline constexpr char kVersion[] = "0.1.0";

using ModuleFactory =
    std::function<std::unique_ptr<Module>(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone)>;

// The main of a single service. Exit codes: 0 a clean end, 1 a failure, 2 a wrong flag or file.
int ServiceMain(int argc, char** argv, const std::string& name, const ModuleFactory& factory);

// What both kinds of process share, for every thread to come, so before any other is started: signals are blocked, so
// that WaitForSignal gets them; threads run in the background that are no event loop (runtime/async/thread.h).
void PrepareThreads();
// Returns at SIGTERM or SIGINT.
void WaitForSignal();

// The time that `process.shutdown_grace` allows for calls and runs in flight.
absl::Duration GraceOf(const tutti::config::v1::Config& config);
// Time beyond the grace period for commits, goodbyes and the threads' ends.
inline constexpr absl::Duration kAfterGrace = absl::Seconds(10);
// Ends this process with exit code 3 after `limit`, whatever it does then, unless it has ended by itself. What was
// acknowledged is in the store; runs go on with the next start.
void EndProcessAfter(absl::Duration limit);

// Serves /metrics of the registry by HTTP for as long as it lives.
class MetricsEndpoint {
 public:
  // UNAVAILABLE with the flag when the port is taken. Port 0: serves nothing.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& address, int port,
                                                                std::shared_ptr<prometheus::Registry> registry);
  ~MetricsEndpoint();

 private:
  MetricsEndpoint();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti
