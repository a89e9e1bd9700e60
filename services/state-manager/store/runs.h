// The runs' rows, and the usage table.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/column_rows.h"
#include "services/state-manager/store/outbox.h"
#include "services/state-manager/store/payloads.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Runs {
 public:
  Runs(const Payloads& payloads, const Outbox& outbox) : payloads_(payloads), outbox_(outbox) {}

  absl::Status CreateRun(Transaction& tx, const v1::CreateRunRequest& request, v1::CreateRunResponse& response) const;
  // CreateRun of several, each with an answer of its own.
  struct ToCreate {
    const v1::CreateRunRequest* request;
    v1::CreateRunResponse* response;
    absl::Status* answer;
  };
  // Not OK: an error of the database.
  absl::Status CreateAll(Transaction& tx, const std::vector<ToCreate>& all) const;
  // The same as a part of a statement of PostgreSQL's.
  struct NewRows {
    // `WITH` parts `clock` and `created`, of which the latter gives run_id and create_time of those that were created.
    // Parameters $first to $(first + kParameters - 1).
    static constexpr int kParameters = 18;
    static std::string Parts(int first);
    // A statement of that alone.
    static const std::string& Sql();
    void BindTo(Statement& statement) const;

    int64_t clock_shift;
    std::deque<std::string> cells;  // that columns point to
    ColumnRows columns;
  };
  absl::StatusOr<NewRows> RowsOf(Transaction& tx, const std::vector<ToCreate>& all) const;
  // After the statement, of which `created` is what it gave: answers all.
  absl::Status AnswerAll(Transaction& tx, const std::vector<ToCreate>& all,
                         absl::flat_hash_map<std::string, int64_t> created) const;
  // Whether CreateRun would create it now.
  absl::StatusOr<bool> MayCreate(Transaction& tx, const v1::CreateRunRequest& request) const;
  // Stores a run that may be created.
  absl::Status Insert(Transaction& tx, const v1::CreateRunRequest& request, int64_t create_time) const;
  // What CreateRun answers for it.
  static void AnswerCreated(const v1::CreateRunRequest& request, int64_t create_time, v1::CreateRunResponse& response);
  absl::Status GetRun(Transaction& tx, const v1::GetRunRequest& request, v1::GetRunResponse& response) const;
  absl::Status ListRuns(Transaction& tx, const v1::ListRunsRequest& request, v1::ListRunsResponse& response) const;
  absl::Status ListUsage(Transaction& tx, const v1::ListUsageRequest& request, v1::ListUsageResponse& response) const;

  // NOT_FOUND: no such run.
  absl::StatusOr<bool> HasEnded(Transaction& tx, const std::string& run_id) const;
  // Removes up to `limit` runs that ended with `status` before `before`, and all that belongs to them; how many.
  // `shards`: over how many databases runs are spread.
  absl::StatusOr<int64_t> RemoveEnded(Transaction& tx, absl::string_view status, int64_t before, int64_t limit,
                                      size_t shards = 1) const;
  // Those of `run_ids` that are here and have not ended.
  absl::StatusOr<std::vector<std::string>> WhichOpen(Transaction& tx, const std::vector<std::string>& run_ids) const;

  // Where runs are spread, a request id is claimed for a run before the run is created, in the database of its
  // RequestKey: the answer is the run it belongs to from then on.
  static std::string RequestKey(const v1::StoredRun& run);
  absl::StatusOr<std::string> ClaimRequest(Transaction& tx, const v1::StoredRun& run) const;

  // The columns of FromRow, in its order.
  static const char* Columns();
  absl::StatusOr<v1::StoredRun> FromRow(Transaction& tx, const Statement& row, bool with_payloads) const;

  // NOT_FOUND: no such run.
  absl::StatusOr<v1::StoredRun> Load(Transaction& tx, const std::string& run_id) const;

 private:
  // False: it may not be created.
  absl::StatusOr<bool> InsertIf(Transaction& tx, const v1::CreateRunRequest& request, int64_t create_time,
                                bool unconditionally) const;
  // After an INSERT that brought nothing: the run is there already (in the response), or the error.
  absl::Status WhyNotCreated(Transaction& tx, const v1::CreateRunRequest& request,
                             v1::CreateRunResponse& response) const;

  const Payloads& payloads_;
  const Outbox& outbox_;
};

}  // namespace tutti::state_manager
