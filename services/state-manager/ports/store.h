// What the state-manager needs of a database.
#pragma once

#include <functional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "runtime/async/executor.h"
#include "runtime/async/task.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/state/v1/lease_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"
#include "tutti/state/v1/workflow_store_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

// Told after commits. Called on the store's thread: it must only hand over.
class StoreObserver {
 public:
  virtual ~StoreObserver() = default;
  virtual void OnAppended(const std::string& run_id) = 0;
  // Runs wait for an owner.
  virtual void OnClaimable() = 0;
  virtual void OnCancelRequested(const std::string& instance, const std::string& run_id) = 0;
};

// Thread safe. Writes from all callers are committed together (group commit); a write is durable when its answer comes.
// Requests and answers are those of the contract (proto/tutti/state/v1), which also says which error means what. In
// every method `executor` is where the awaiting coroutine goes on.
class Store {
 public:
  virtual ~Store() = default;

  // `done` runs on the store's thread after the commit. Order per caller is kept.
  virtual void Append(v1::AppendRequest request, absl::AnyInvocable<void(v1::AppendResponse)> done) = 0;
  // At most `limit` entries after `after_seq`; fewer only at the end. NOT_FOUND: no such run.
  virtual Task<absl::StatusOr<v1::ReadJournalResponse>> ReadJournal(Executor& executor, std::string run_id,
                                                                    int64_t after_seq, int limit) = 0;
  virtual Task<absl::StatusOr<v1::CreateRunResponse>> CreateRun(Executor& executor, v1::CreateRunRequest request) = 0;
  virtual Task<absl::StatusOr<v1::GetRunResponse>> GetRun(Executor& executor, v1::GetRunRequest request) = 0;
  virtual Task<absl::StatusOr<v1::ListRunsResponse>> ListRuns(Executor& executor, v1::ListRunsRequest request) = 0;
  virtual Task<absl::StatusOr<v1::RequestCancelResponse>> RequestCancel(Executor& executor,
                                                                        v1::RequestCancelRequest request) = 0;
  virtual Task<absl::StatusOr<v1::ListUsageResponse>> ListUsage(Executor& executor, v1::ListUsageRequest request) = 0;
  virtual Task<absl::StatusOr<v1::RegisterInstanceResponse>> RegisterInstance(Executor& executor,
                                                                              v1::RegisterInstanceRequest request) = 0;
  virtual Task<absl::StatusOr<v1::HeartbeatResponse>> Heartbeat(Executor& executor, v1::HeartbeatRequest request) = 0;
  virtual Task<absl::StatusOr<v1::ClaimRunsResponse>> ClaimRuns(Executor& executor, v1::ClaimRunsRequest request) = 0;
  virtual Task<absl::StatusOr<v1::ReleaseInstanceResponse>> ReleaseInstance(Executor& executor,
                                                                            v1::ReleaseInstanceRequest request) = 0;
  virtual Task<absl::StatusOr<v1::PutWorkflowResponse>> PutWorkflow(Executor& executor,
                                                                    v1::PutWorkflowRequest request) = 0;
  virtual Task<absl::StatusOr<v1::GetWorkflowResponse>> GetWorkflow(Executor& executor,
                                                                    v1::GetWorkflowRequest request) = 0;
  virtual Task<absl::StatusOr<v1::ListWorkflowsResponse>> ListWorkflows(Executor& executor,
                                                                        v1::ListWorkflowsRequest request) = 0;
};

}  // namespace tutti::state_manager
