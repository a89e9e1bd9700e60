// The store on SQLite: one writer thread that commits whatever waits as one transaction, and reader connections beside
// it.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/async/one_shot.h"
#include "runtime/time/clock.h"
#include "services/state-manager/adapters/sqlite_db.h"
#include "services/state-manager/ports/store.h"

namespace tutti::state_manager {

class SqliteStore final : public Store {
 public:
  struct Options {
    std::string data_dir;
    size_t max_batch = 4096;
    size_t max_queue = 65536;
  };
  // Creates the folder and the database when they are missing. FAILED_PRECONDITION: the folder is in use, not writable,
  // or the database is newer than this program. DATA_LOSS: the database is damaged.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(Options options, const Clock& clock,
                                                           StoreObserver& observer);
  ~SqliteStore() override;

  void Append(v1::AppendRequest request, absl::AnyInvocable<void(v1::AppendResponse)> done) override;
  Task<absl::StatusOr<v1::ReadJournalResponse>> ReadJournal(Executor& executor, std::string run_id, int64_t after_seq,
                                                            int limit) override;
  Task<absl::StatusOr<v1::CreateRunResponse>> CreateRun(Executor& executor, v1::CreateRunRequest request) override;
  Task<absl::StatusOr<v1::GetRunResponse>> GetRun(Executor& executor, v1::GetRunRequest request) override;
  Task<absl::StatusOr<v1::ListRunsResponse>> ListRuns(Executor& executor, v1::ListRunsRequest request) override;
  Task<absl::StatusOr<v1::RequestCancelResponse>> RequestCancel(Executor& executor,
                                                                v1::RequestCancelRequest request) override;
  Task<absl::StatusOr<v1::ListUsageResponse>> ListUsage(Executor& executor, v1::ListUsageRequest request) override;
  Task<absl::StatusOr<v1::RegisterInstanceResponse>> RegisterInstance(Executor& executor,
                                                                      v1::RegisterInstanceRequest request) override;
  Task<absl::StatusOr<v1::HeartbeatResponse>> Heartbeat(Executor& executor, v1::HeartbeatRequest request) override;
  Task<absl::StatusOr<v1::ClaimRunsResponse>> ClaimRuns(Executor& executor, v1::ClaimRunsRequest request) override;
  Task<absl::StatusOr<v1::ReleaseInstanceResponse>> ReleaseInstance(Executor& executor,
                                                                    v1::ReleaseInstanceRequest request) override;
  Task<absl::StatusOr<v1::PutWorkflowResponse>> PutWorkflow(Executor& executor,
                                                            v1::PutWorkflowRequest request) override;
  Task<absl::StatusOr<v1::GetWorkflowResponse>> GetWorkflow(Executor& executor,
                                                            v1::GetWorkflowRequest request) override;
  Task<absl::StatusOr<v1::ListWorkflowsResponse>> ListWorkflows(Executor& executor,
                                                                v1::ListWorkflowsRequest request) override;

 private:
  // What the observer is told after the commit.
  struct News {
    std::vector<std::string> appended;
    bool claimable = false;
    std::vector<std::pair<std::string, std::string>> cancels;  // instance, run
  };
  struct WriteOp {
    // Checks, then writes. Must not write anything when its own answer is an error. A status that is not OK is an error
    // of the database and undoes the whole transaction.
    absl::AnyInvocable<absl::Status(SqliteDb&, News&)> apply;
    // After the commit (OK) or the undoing (its error).
    absl::AnyInvocable<void(const absl::Status&)> finish;
  };

  SqliteStore(Options options, const Clock& clock, StoreObserver& observer);
  void WriterLoop();
  void CommitBatch(std::vector<WriteOp>& batch);
  absl::Status ApplyBatch(std::vector<WriteOp>& batch, News& news);
  // RESOURCE_EXHAUSTED at once when the queue is full.
  void Enqueue(WriteOp op);
  template <class Response>
  Task<absl::StatusOr<Response>> Write(
      Executor& executor, absl::AnyInvocable<absl::Status(SqliteDb&, News&, absl::StatusOr<Response>&)> apply);
  template <class Response>
  Task<absl::StatusOr<Response>> Read(Executor& executor,
                                      absl::AnyInvocable<absl::StatusOr<Response>(SqliteDb&)> query);
  absl::Status ApplyAppend(SqliteDb& db, News& news, const v1::AppendRequest& request, v1::AppendResponse& response);
  int64_t NowMicros() const { return absl::ToUnixMicros(clock_.Now()); }

  const Options options_;
  const Clock& clock_;
  StoreObserver& observer_;
  int lock_file_ = -1;
  std::unique_ptr<SqliteDb> writer_;
  Mutex readers_mutex_;
  std::vector<std::unique_ptr<SqliteDb>> readers_ ABSL_GUARDED_BY(readers_mutex_);
  std::unique_ptr<WorkerPool> reader_pool_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<WriteOp> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tutti::state_manager
