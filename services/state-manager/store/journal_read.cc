// Journals read: pages, snapshots.
#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/state-manager/domain/condense.h"
#include "services/state-manager/store/journal.h"
#include "services/state-manager/store/journal_entry.h"
#include "services/state-manager/store/shards.h"

namespace tutti::state_manager {
namespace {
constexpr size_t kPageBytes = size_t{1} << 20;
}  // namespace

absl::Status Journal::Fill(Transaction& tx, v1::JournalEntry& entry) const {
  auto* payload = PayloadOf(entry);
  if (payload == nullptr || payload->hash().empty()) return absl::OkStatus();
  TUTTI_ASSIGN_OR_RETURN(*payload->mutable_data(), payloads_.GetShared(tx, payload->hash()));
  payload->clear_hash();
  return absl::OkStatus();
}

absl::StatusOr<v1::ReadJournalResponse> Journal::ReadPage(Transaction& tx, const std::string& run_id, int64_t after_seq,
                                                          int limit, bool inbox_only, bool* cut) const {
  v1::ReadJournalResponse out;
  {
    Statement rows = tx.Prepare(
        inbox_only ? "SELECT seq, entry FROM journal WHERE run_id = $1 AND seq > $2 AND kind IN ('signal_received', "
                     "'pause_requested', 'resume_requested', 'cancel_requested') ORDER BY seq LIMIT $3"
                   : "SELECT seq, entry FROM journal WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3");
    rows.BindAll(run_id, after_seq, limit);
    size_t bytes = 0;
    while (rows.Step()) {
      TUTTI_ASSIGN_OR_RETURN(std::string bytes_of_entry,
                             payloads_.codec().Open(rows.Bytes(1), PlaceOf(run_id, rows.Int(0))));
      v1::JournalEntry entry;
      entry.ParseFromString(bytes_of_entry);
      TUTTI_RETURN_IF_ERROR(Fill(tx, entry));
      bytes += entry.ByteSizeLong();
      if (out.entries_size() > 0 && bytes > kPageBytes) {  // a page stays well below the message limit
        if (cut) *cut = true;
        break;
      }
      *out.add_entries() = std::move(entry);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  if (out.entries().empty()) {
    Statement run = tx.Prepare("SELECT 1 FROM runs WHERE run_id = $1");
    run.Bind(run_id);
    bool there = run.Step();
    TUTTI_RETURN_IF_ERROR(run.status());
    if (!there) return RunNotFound(run_id);
  }
  return out;
}

absl::StatusOr<Journal::Snapshot> Journal::ReadSnapshot(Transaction& tx, const std::string& run_id) const {
  Snapshot out;
  Statement row = tx.Prepare("SELECT seq, entries FROM snapshots WHERE run_id = $1");
  row.Bind(run_id);
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    return out;
  }
  out.seq = row.Int(0);
  TUTTI_ASSIGN_OR_RETURN(std::string bytes, payloads_.codec().Open(row.Bytes(1), absl::StrCat("snapshots/", run_id)));
  v1::ReadJournalResponse stored;
  stored.ParseFromString(bytes);
  for (auto& entry : *stored.mutable_entries()) out.entries.push_back(std::move(entry));
  return out;
}

absl::StatusOr<Journal::SnapshotCell> Journal::BuildSnapshot(Transaction& tx, const std::string& run_id) const {
  TUTTI_ASSIGN_OR_RETURN(Snapshot old, ReadSnapshot(tx, run_id));
  std::vector<v1::JournalEntry> entries = std::move(old.entries);
  int64_t last = old.seq;
  {
    Statement rows = tx.Prepare("SELECT seq, entry FROM journal WHERE run_id = $1 AND seq > $2 ORDER BY seq");
    rows.BindAll(run_id, old.seq);
    while (rows.Step()) {
      last = rows.Int(0);
      TUTTI_ASSIGN_OR_RETURN(std::string bytes, payloads_.codec().Open(rows.Bytes(1), PlaceOf(run_id, last)));
      entries.emplace_back().ParseFromString(bytes);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  if (!WantsSnapshot(last, old.seq)) return SnapshotCell();
  v1::ReadJournalResponse stored;
  for (auto& entry : Condense(std::move(entries))) *stored.add_entries() = std::move(entry);
  return SnapshotCell{last, payloads_.codec().Seal(stored.SerializeAsString(), absl::StrCat("snapshots/", run_id))};
}

absl::Status Journal::StoreSnapshot(Transaction& tx, const std::string& run_id, const SnapshotCell& snapshot) const {
  // Another replica may have made one meanwhile: the newer stays.
  Statement put = tx.Prepare(
      "INSERT INTO snapshots (run_id, seq, entries, create_time) VALUES ($1, $2, $3, $4) ON CONFLICT (run_id) DO "
      "UPDATE "
      "SET seq = excluded.seq, entries = excluded.entries, create_time = excluded.create_time WHERE snapshots.seq < "
      "excluded.seq");
  TUTTI_RETURN_IF_ERROR(put.BindAll(run_id, snapshot.seq, SqlArg::Bytes(snapshot.cell), tx.NowMicros()).Run());
  return tx.Prepare("UPDATE runs SET snapshot_seq = greatest(snapshot_seq, $2) WHERE run_id = $1")
      .BindAll(run_id, snapshot.seq)
      .Run();
}

absl::StatusOr<bool> Journal::IsCurrent(Transaction& tx, const v1::AppendRequest& request) {
  Statement row = tx.Prepare("SELECT 1 FROM runs WHERE run_id = $1 AND lease_epoch = $2 AND end_time = 0");
  row.BindAll(request.run_id(), request.lease_epoch());
  bool current = row.Step();
  TUTTI_RETURN_IF_ERROR(row.status());
  return current;
}

std::vector<std::string> Journal::TakeLongRuns(size_t shard, size_t shards) {
  MutexLock lock(mutex_);
  auto others = std::partition(long_runs_.begin(), long_runs_.end(),
                               [&](const std::string& run_id) { return ShardOf(run_id, shards) == shard; });
  std::vector<std::string> out(std::make_move_iterator(long_runs_.begin()), std::make_move_iterator(others));
  long_runs_.erase(long_runs_.begin(), others);
  return out;
}

void Journal::ForgetRemembered(const std::string& run_id) {
  MutexLock lock(mutex_);
  remembered_.erase(run_id);
}

}  // namespace tutti::state_manager
