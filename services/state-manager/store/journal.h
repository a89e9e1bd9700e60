// Journals: the append with its checks and projections, reads, snapshots.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/sync/mutex.h"
#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/ledger.h"
#include "services/state-manager/store/outbox.h"
#include "services/state-manager/store/payloads.h"
#include "services/state-manager/store/runs.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Journal final : public DeferringWriter {
 public:
  // A run gets a snapshot when this many entries came after the last one, and a quarter of what that one stands for:
  // the work of making snapshots stays in proportion to the journal's length.
  Journal(const Payloads& payloads, Ledger& ledger, const Outbox& outbox, const Runs& runs, int64_t snapshot_every);
  ~Journal() override;

  // `done` runs on a database thread after the commit, in the order of appends of one run. With the ledger elsewhere
  // (in the home database), the append's reservations have been made there before, and its settlements go there by the
  // outbox.
  void Append(Database& database, v1::AppendRequest request, absl::AnyInvocable<void(v1::AppendResponse)> done,
              bool ledger_elsewhere = false);
  // As Runs::CreateRun; `done` runs like that of Append. The run's first append need not read what was created.
  void Create(Database& database, v1::CreateRunRequest request,
              absl::AnyInvocable<void(absl::StatusOr<v1::CreateRunResponse>)> done);
  // The answer to an append that was not written: the database's error, or what refused it.
  static v1::AppendResponse Failure(const v1::AppendRequest& request, const absl::Status& database,
                                    const absl::Status& refusal);

  // Whether the run is there, open, and leased under the request's epoch.
  static absl::StatusOr<bool> IsCurrent(Transaction& tx, const v1::AppendRequest& request);

  // At most `limit` entries after `after_seq`, with their payloads; fewer only at the end or when the page is full (1
  // MiB; `cut` then). NOT_FOUND: no such run.
  absl::StatusOr<v1::ReadJournalResponse> ReadPage(Transaction& tx, const std::string& run_id, int64_t after_seq,
                                                   int limit, bool inbox_only = false, bool* cut = nullptr) const;
  // The run's snapshot, without large payloads; `seq` is the entry up to which it stands for the journal, 0 without
  // one.
  struct Snapshot {
    int64_t seq = 0;
    std::vector<v1::JournalEntry> entries;
  };
  absl::StatusOr<Snapshot> ReadSnapshot(Transaction& tx, const std::string& run_id) const;
  // Puts payloads back into entries of a snapshot.
  absl::Status Fill(Transaction& tx, v1::JournalEntry& entry) const;

  // Runs of one of the databases that want a snapshot, each once.
  std::vector<std::string> TakeLongRuns(size_t shard = 0, size_t shards = 1);
  // What a snapshot has changed is read again with the run's next append.
  void ForgetRemembered(const std::string& run_id);
  // A snapshot of a run's journal as it is now, made from the last one and what came after; `seq` 0: that one is recent
  // enough. Made by a read, so that writers do not wait for it, then stored by a write.
  struct SnapshotCell {
    int64_t seq = 0;
    std::string cell;
  };
  absl::StatusOr<SnapshotCell> BuildSnapshot(Transaction& tx, const std::string& run_id) const;
  absl::Status StoreSnapshot(Transaction& tx, const std::string& run_id, const SnapshotCell& snapshot) const;

  absl::Status ApplyAll(Transaction& transaction, const std::vector<void*>& items) override;
  absl::StatusOr<std::string> Defer(Transaction& tx, const std::vector<void*>& items) override;
  void OnDeferred(bool durable) override;
  size_t deferred_rows() const override;
  void Seal() override;
  absl::Status ApplySealed(Transaction& tx) override;
  void OnSealedApplied() override;
  absl::Status ApplyDeferred(Transaction& tx) override;
  void OnApplied() override;
  void OnTablesChanged() override;
  absl::Status Replay(Transaction& tx, absl::string_view record) override;

 private:
  struct Item;
  struct Creation;
  struct Head;
  struct Batch;
  struct Tail;
  // By ids of the requests, which outlive it.
  using Heads = absl::flat_hash_map<absl::string_view, Head>;
  // What an append needs of a run's row, as it was committed.
  struct Remembered {
    int64_t lease_epoch = 0, last_seq = 0, last_writer_seq = 0, progress = 0, start_time = 0, snapshot_seq = 0;
    bool given_back = false;  // parked: under another epoch now
    std::string status;
    std::string parent_run_id;  // who is told of its end
  };

  // What a batch creates, and their answers.
  using Creations = std::vector<Runs::ToCreate>;
  static Creations CreationsOf(const std::vector<void*>& items);
  absl::Status Check(Transaction& tx, Item& item, Head& head, bool& write);
  // The append's part in the ledger; or its refusal.
  absl::Status Account(Transaction& tx, const Item& item);
  absl::Status Write(Transaction& tx, v1::AppendRequest& request, Head& head, Batch& batch);
  // What an entry changes in the run's row, but for its cells.
  static void Advance(Head& head, const v1::JournalEntry& entry);
  void WriteEntry(const v1::AppendRequest& request, const v1::JournalEntry& entry, const v1::JournalEntry& stored,
                  Head& head, Batch& batch);
  // Reads and locks the runs' rows.
  static absl::Status LoadHeads(Transaction& tx, Heads& heads);
  // Instead: what they were after the last append of this process; those of which it is not known. Others may have
  // written since: WriteBatch finds out, or OnTablesChanged says so.
  std::vector<absl::string_view> RecallHeads(Heads& heads);
  // Whether the heads let all appends through that are among `items`, with nothing to do but to write them.
  static bool AllPass(const std::vector<void*>& items, const Heads& heads);
  absl::Status ApplyTail(Transaction& tx, Tail& tail);
  // Whether the tables lack something of the run.
  bool IsDeferred(absl::string_view run_id) const;
  // Whether all creations among `items` would be carried out.
  absl::StatusOr<bool> AllMayBeCreated(Transaction& tx, const std::vector<void*>& items) const;
  void Remember(const Item& item, bool written);
  static Remembered AsCreated(const v1::CreateRunRequest& request);
  // Those that have been written, in an order that is always the same.
  static std::map<absl::string_view, const Head*> InOrder(const Heads& heads);
  // Of what has been written: those who watch it, and who makes snapshots.
  void Tell(Transaction& tx, const Heads& heads);
  // ABORTED: a row is not as it was seen; then nothing of the batch stays written.
  absl::Status WriteBatch(Transaction& tx, const Heads& heads, const Batch& batch, const Creations& creations);
  static absl::Status WriteOneByOne(Transaction& tx, const Heads& heads, const Batch& batch);
  // Those that have ended, to the runs that wait for them.
  absl::Status TellParents(Transaction& tx, const Heads& heads) const;
  absl::Status WriteAtOnce(Transaction& tx, const Heads& heads, const Batch& batch, const Creations& creations);
  bool WantsSnapshot(int64_t last_seq, int64_t snapshot_seq) const {
    return last_seq - snapshot_seq >= std::max(snapshot_every_, snapshot_seq / 4);
  }
  void NoteLong(const std::string& run_id);

  const Payloads& payloads_;
  Ledger& ledger_;
  const Outbox& outbox_;
  const Runs& runs_;
  const int64_t snapshot_every_;
  Mutex mutex_;
  std::vector<std::string> long_runs_ ABSL_GUARDED_BY(mutex_);
  // Of open runs this process appended to; emptied when it has grown too large.
  absl::flat_hash_map<std::string, Remembered> remembered_ ABSL_GUARDED_BY(mutex_);
  // What was seen of the tables before the last change by others is not remembered.
  int64_t changes_by_others_ ABSL_GUARDED_BY(mutex_) = 0;
  // Deferred: the sealed part, the rest, and what the last Defer would add to that. The writing thread's; ApplySealed
  // reads the first, and frees the one before it, which takes as long as a commit.
  std::unique_ptr<Tail> sealed_, tail_, next_, applied_;
};

absl::Status RunNotFound(const std::string& run_id);

}  // namespace tutti::state_manager
