// What agents remember: rows, full text in the database, vectors in memory.
#pragma once

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/random/random.h"
#include "services/state-manager/ports/database.h"
#include "services/state-manager/ports/embedder.h"
#include "services/state-manager/store/payloads.h"
#include "services/state-manager/store/vector_index.h"
#include "tutti/state/v1/memory_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Memories {
 public:
  struct Options {
    int64_t max_per_tenant = 1000000;
    // At the limit: the least important and longest unused go, or else the new one is refused.
    bool evict = true;
    // The runs of working memories are in this database too.
    bool runs_here = true;
  };
  Memories(const Payloads& payloads, const Embedder& embedder, IdSource& ids, Options options)
      : payloads_(payloads), embedder_(embedder), ids_(ids), options_(options) {}

  absl::Status StoreMemory(Transaction& tx, const v1::StoreMemoryRequest& request,
                           v1::StoreMemoryResponse& response) const;
  absl::Status GetMemory(Transaction& tx, const v1::GetMemoryRequest& request, v1::GetMemoryResponse& response) const;
  absl::Status ListMemories(Transaction& tx, const v1::ListMemoriesRequest& request,
                            v1::ListMemoriesResponse& response) const;
  absl::Status SearchMemories(Transaction& tx, const v1::SearchMemoriesRequest& request,
                              v1::SearchMemoriesResponse& response) const;
  absl::Status DeleteMemory(Transaction& tx, const v1::DeleteMemoryRequest& request,
                            v1::DeleteMemoryResponse& response) const;
  // Forgets up to kForgetBatch; to be called again while it has found as many.
  absl::Status ForgetMemories(Transaction& tx, const v1::ForgetMemoriesRequest& request,
                              v1::ForgetMemoriesResponse& response) const;
  // After forgetting: what the database's own indexes and files keep of it goes too, a slice at a time; true: there is
  // more to do, with `first` false.
  absl::StatusOr<bool> Scrub(Transaction& tx, bool first) const;
  // Something was removed since the last scrubbing began.
  bool unscrubbed() const { return unscrubbed_; }
  static constexpr int kForgetBatch = 500;

  // Notes that a search brought these (ids); to the minute.
  absl::Status Touch(Transaction& tx, const std::vector<std::string>& memory_ids) const;
  // Forgets up to `limit` that have expired, and when runs are here working ones whose run has ended or gone; how many.
  absl::StatusOr<int64_t> Expire(Transaction& tx, int64_t limit) const;
  // When they are not: the runs with working memories, in order after `after`; and the end of some of them.
  absl::StatusOr<std::vector<std::string>> WorkingRuns(Transaction& tx, const std::string& after, int64_t limit) const;
  absl::StatusOr<int64_t> ForgetWorking(Transaction& tx, const std::vector<std::string>& run_ids, int64_t limit) const;
  // Removes changes that every replica has long taken over.
  absl::StatusOr<int64_t> TrimChanges(Transaction& tx, int64_t limit) const;
  // Brings the index up to what is committed.
  absl::Status SyncIndex(Transaction& tx) const;
  // The same, unless nobody has searched yet.
  absl::Status SyncIndexIfLoaded(Transaction& tx) const;
  // A slice of the index's own work; true when more is to do.
  bool MaintainIndex() const { return index_.Maintain(16); }

 private:
  struct Condition;
  absl::StatusOr<v1::Memory> FromRow(const Statement& row) const;
  absl::Status MakeRoom(Transaction& tx, const std::string& tenant) const;
  absl::Status Remove(Transaction& tx, const std::vector<std::pair<int64_t, std::string>>& numbers_and_tenants) const;
  absl::Status Count(Transaction& tx, const std::string& tenant, int64_t by) const;
  absl::Status SyncLocked(Transaction& tx) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(sync_mutex_);
  absl::Status LoadVectors(Transaction& tx, const std::vector<std::string>* numbers) const;
  absl::StatusOr<std::map<int64_t, double>> SearchText(Transaction& tx, const v1::SearchMemoriesRequest& request,
                                                       size_t most) const;
  // Of `few`, those with one of the terms, and how well they fit; the best is 1.
  absl::StatusOr<std::map<int64_t, double>> RankAmong(Transaction& tx, const std::vector<int64_t>& few,
                                                      const std::vector<std::string>& terms, size_t most) const;
  // The numbers of the memories meant, when they are few and quickly found; else nullopt.
  absl::StatusOr<std::optional<std::vector<int64_t>>> ListFew(Transaction& tx, const v1::MemoryFilter& filter) const;
  absl::Status LoadCommonWords(Transaction& tx) const;
  absl::Status KeepRareTerms(Transaction& tx, std::vector<std::string>& terms) const;
  static absl::Status CheckFilter(const v1::MemoryFilter& filter);
  // To forget: also what nobody sees any more, and of an agent's only its own.
  Condition Where(Transaction& tx, const v1::MemoryFilter& filter, int first_parameter, bool to_forget = false) const;
  // Of the row `m`: it is none of a run that has ended.
  absl::string_view OfOpenRun() const;

  const Payloads& payloads_;
  const Embedder& embedder_;
  IdSource& ids_;
  const Options options_;
  mutable VectorIndex index_;
  mutable std::atomic<bool> unscrubbed_{false};
  mutable Mutex words_mutex_;
  mutable int64_t words_loaded_ ABSL_GUARDED_BY(words_mutex_) = 0;
  // In how many memories a common word stands, and when that was counted.
  mutable absl::flat_hash_map<std::string, std::pair<int64_t, int64_t>> common_words_ ABSL_GUARDED_BY(words_mutex_);
  mutable Mutex sync_mutex_;
  mutable int64_t synced_change_ ABSL_GUARDED_BY(sync_mutex_) = -1;  // -1: nothing is loaded
};

}  // namespace tutti::state_manager
