// The store as its two callers have it: at its own interface, and behind the module's gRPC services.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/config/load_config.h"
#include "runtime/process/runtime.h"
#include "runtime/random/random.h"
#include "runtime/time/system_time.h"
#include "services/state-manager/adapters/open_database.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/module.h"
#include "services/state-manager/store/state_store.h"

namespace tutti::state_manager {

using StoreConfig = tutti::config::v1::StateManager;

// Ends the process if the database cannot be opened.
struct OpenedStore {
  SystemClock clock;
  Xoshiro rng{Xoshiro::SeedFromSystem()};
  IdSource ids{clock, rng};
  WatchHub hub;
  StateStore store{{}, ids};
  OpenedDatabase opened;

  explicit OpenedStore(const StoreConfig& config);
  absl::Status Write(std::function<absl::Status(Transaction&)> body);
  absl::Status Read(std::function<absl::Status(Transaction&)> body);
  // `count` transactions, many on their way at once, in no order; `body(i)` is what the i-th does.
  void WriteMany(int count, const std::function<std::function<absl::Status(Transaction&)>(int)>& body);
  // Leased to one instance.
  std::vector<std::string> NewRuns(int count);
};

// The module in this process, reached over loopback.
struct ServedStore {
  tutti::config::v1::Config config;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Module> module;
  std::shared_ptr<grpc::Channel> channel;

  explicit ServedStore(const StoreConfig& state);
};

}  // namespace tutti::state_manager
