// Durable appends: one entry each, as an engine writes them.
#pragma once

#include <cstddef>

#include "bench/store/measuring.h"
#include "bench/store/opened_store.h"
#include "tutti/state/v1/journal_service.pb.h"

namespace tutti::state_manager {

constexpr int kWriters = 64;
constexpr int kShortRun = 10;  // entries

// A completed step with a result of some 300 bytes.
v1::AppendRequest OneEntry(const std::string& run, int64_t seq);

// The bytes of one journal row, as the bare loops write them.
size_t RowBytes();

// Appends a second. Writers in a closed loop: each has one append on its way, and begins the next one when it is
// answered. After `entries` a writer goes on with its next run (0 is never), and
// ends early when it has had all of its own.
double AppendLoop(OpenedStore& store, int writers, double seconds, Latencies* latencies = nullptr, int entries = 0);

// The same over one bidirectional gRPC stream.
double StreamLoop(const StoreConfig& config, int writers, double seconds, Latencies* latencies = nullptr);

}  // namespace tutti::state_manager
