// Group commit: writes of all callers that wait are applied and committed as one transaction, on one thread a lane.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/async/linger.h"
#include "runtime/sync/mutex.h"
#include "services/state-manager/adapters/database_metrics.h"
#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

// A connection that can write. Begin, then either Commit or Rollback.
class WriteSession {
 public:
  virtual ~WriteSession() = default;
  virtual absl::StatusOr<Transaction*> Begin() = 0;
  virtual absl::Status Commit() = 0;
  virtual void Rollback() = 0;
};

// Nothing that a library throws may end the process: INTERNAL instead.
absl::Status RunGuarded(const std::function<absl::Status()>& body);
absl::Status Busy(absl::string_view what);
// The store cannot be reached now: UNAVAILABLE with RetryInfo.
absl::Status Away(absl::string_view why);

// Applies and commits `batch`, and answers it. An op that fails by itself fails alone; a deadlock or a serialization
// failure (ABORTED) is tried again.
void CommitBatch(WriteSession& session, std::vector<WriteOp>& batch, DatabaseMetrics& metrics,
                 const std::function<void(std::vector<News>)>& announce);

class GroupCommit {
 public:
  struct Options {
    std::string name;
    int lanes = 1;
    size_t max_batch = 4096;   // ops of one transaction
    size_t max_queue = 65536;  // ops that wait, in all lanes
    size_t max_queue_bytes = size_t{256} << 20;
    // Whether a commit of many waits a little for those that it will answer and that come again. Worth it where a
    // commit costs as much as the work between two of them.
    bool gather = true;
    // A lane looks for work for as long before it sleeps, and is then in the foreground (runtime/async/thread.h).
    std::chrono::microseconds linger{0};
    // After as long without an op; never when zero.
    std::chrono::milliseconds idle_after{0};
  };
  // Borrows a session for one batch; its error answers the whole batch.
  using Commit = std::function<void(std::vector<WriteOp>& batch)>;

  // `on_idle` runs on the lane's thread, once after each time of work, and at the end.
  GroupCommit(Options options, Commit commit, std::function<void()> on_idle = nullptr);
  // Commits what waits.
  ~GroupCommit();
  void Enqueue(WriteOp op);

 private:
  struct Lane {
    explicit Lane(std::chrono::microseconds longest) : linger(longest) {}
    Mutex mutex;
    CondVar wake;
    std::vector<WriteOp> queue ABSL_GUARDED_BY(mutex);
    size_t bytes ABSL_GUARDED_BY(mutex) = 0;  // of the queue
    bool stopping ABSL_GUARDED_BY(mutex) = false;
    bool asleep ABSL_GUARDED_BY(mutex) = false;
    Linger linger;
    std::thread thread;
  };
  void Run(Lane& lane);
  // False: the lane ends.
  bool AwaitWork(Lane& lane, bool& worked) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lane.mutex);

  const Options options_;
  const Commit commit_;
  const std::function<void()> on_idle_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

}  // namespace tutti::state_manager
