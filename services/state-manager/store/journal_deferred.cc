// Creations and appends that an engine takes as a record of its log, and their way into the tables later.
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/journal_batch.h"
#include "services/state-manager/store/rows.h"
#include "services/state-manager/store/runs.h"
#include "tutti/state/v1/write_log.pb.h"

namespace tutti::state_manager {
namespace {

constexpr char kPlace[] = "write_log";
// Larger ones are better off in the tables at once: each would end the log's generation.
constexpr size_t kMostRecordBytes = size_t{1} << 20;

absl::Status Unfitting(absl::string_view run_id) {
  return Error(
      absl::StatusCode::kDataLoss, "WRITE_LOG_UNFITTING",
      absl::StrCat(
          "acknowledged entries of run ", run_id,
          " do not follow what the database holds; the database was exchanged or altered. Restore the data folder "
          "from a backup, or move the log's files away to go on without the last writes"));
}

bool Parks(const v1::AppendRequest& request) {
  for (const auto& entry : request.entries()) {
    if (entry.has_run_parked()) return true;
  }
  return false;
}

// Lends messages to a record for as long as it is written, without copies.
class LentRecord {
 public:
  ~LentRecord() {
    while (record_.created_size() > 0) record_.mutable_created()->UnsafeArenaReleaseLast();
    while (record_.appended_size() > 0) record_.mutable_appended()->UnsafeArenaReleaseLast();
  }
  v1::WriteLogRecord* operator->() { return &record_; }

 private:
  v1::WriteLogRecord record_;
};

std::string RequestKeyOf(const v1::StoredRun& run) {
  return run.request_id().empty() ? "" : absl::StrCat(run.tenant(), "\n", run.request_id());
}

}  // namespace

Journal::Remembered Journal::AsCreated(const v1::CreateRunRequest& request) {
  Remembered head;
  if (!request.has_owner()) return head;  // nobody appends to it before it is claimed
  head.lease_epoch = 1;
  head.status = "PENDING";
  head.parent_run_id = request.run().parent_run_id();
  return head;
}

bool Journal::IsDeferred(absl::string_view run_id) const {
  return tail_->heads.contains(run_id) || (sealed_ && sealed_->heads.contains(run_id));
}

absl::StatusOr<bool> Journal::AllMayBeCreated(Transaction& tx, const std::vector<void*>& items) const {
  absl::flat_hash_set<std::string> ids, keys;
  for (void* raw : items) {
    const Item& item = *static_cast<Item*>(raw);
    if (!item.creation) continue;
    const v1::CreateRunRequest& request = item.creation->request;
    std::string key = RequestKeyOf(request.run());
    if (IsDeferred(item.run_id) || !ids.insert(item.run_id).second) return false;
    if (!key.empty()) {
      if (tail_->request_keys.contains(key) || (sealed_ && sealed_->request_keys.contains(key))) return false;
      if (!keys.insert(key).second) return false;
    }
    TUTTI_ASSIGN_OR_RETURN(bool may, runs_.MayCreate(tx, request));
    if (!may) return false;
  }
  return true;
}

absl::StatusOr<std::string> Journal::Defer(Transaction& tx, const std::vector<void*>& items) {
  Heads heads;
  heads.reserve(items.size());
  for (void* raw : items) {
    const Item& item = *static_cast<Item*>(raw);
    if (item.creation) continue;
    if (Parks(item.request)) return "";  // gives the run to whoever claims it, by the tables
    heads[item.request.run_id()];
  }
  Heads unknown;
  for (absl::string_view run_id : RecallHeads(heads)) {
    if (IsDeferred(run_id)) return "";
    unknown[run_id];
  }
  if (!unknown.empty()) {
    TUTTI_RETURN_IF_ERROR(LoadHeads(tx, unknown));
    for (auto& [run_id, head] : unknown) heads[run_id] = head;
  }
  if (!AllPass(items, heads)) return "";
  for (void* raw : items) {  // the end of a run that another waits for is told with it, by a row of the outbox
    const Item& item = *static_cast<Item*>(raw);
    if (item.creation || !item.request.entries().rbegin()->has_run_finished()) continue;
    if (!heads[item.request.run_id()].parent_run_id.empty()) return "";
  }
  TUTTI_ASSIGN_OR_RETURN(bool all_may, AllMayBeCreated(tx, items));
  if (!all_may) return "";

  next_ = std::make_unique<Tail>();
  for (const auto& [run_id, head] : heads) {
    if (!tail_->heads.contains(run_id)) next_->heads.emplace(run_id, head);
  }
  int64_t changes;
  {
    MutexLock lock(mutex_);
    changes = changes_by_others_;
  }
  LentRecord record;
  const int64_t now = tx.NowMicros();
  record->set_time_micros(now);
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    item->seen_changes = changes;
    next_->items.push_back(item);
    ++next_->rows;
    if (item->creation) {
      Creation& creation = *item->creation;
      record->mutable_created()->UnsafeArenaAddAllocated(&creation.request);
      creation.refusal = absl::OkStatus();
      Runs::AnswerCreated(creation.request, now, creation.response);
      item->after = AsCreated(creation.request);
      next_->heads.emplace(item->run_id, item->after);
      if (std::string key = RequestKeyOf(creation.request.run()); !key.empty()) next_->request_keys.insert(key);
      if (!creation.request.has_owner()) tx.Announce({News::Kind::kClaimable, "", ""});
      continue;
    }
    Head& head = heads[item->request.run_id()];
    for (auto& entry : *item->request.mutable_entries()) {
      entry.set_seq(++head.last_seq);
      Advance(head, entry);
      ++next_->rows;
    }
    head.written = true;
    head.last_writer_seq = item->request.writer_seq() + item->request.entries_size() - 1;
    item->response.Clear();
    item->response.set_last_seq(head.last_seq);
    item->after = head;
    record->mutable_appended()->UnsafeArenaAddAllocated(&item->request);
  }
  Tell(tx, heads);
  if (record->ByteSizeLong() > kMostRecordBytes) {
    next_.reset();
    return "";
  }
  return payloads_.codec().Seal(record->SerializeAsString(), kPlace, CellCodec::Compression::kNone);
}

void Journal::OnDeferred(bool durable) {
  auto next = std::move(next_);
  if (!durable) return;
  for (Item* item : next->items) {
    if (item->creation) {
      const auto& created = item->creation->response.run().create_time();
      tail_->created.push_back({std::move(item->creation->request), ToMicros(created)});
      continue;
    }
    int64_t number = item->request.request_number();
    tail_->appended.push_back(std::move(item->request));
    item->request.set_request_number(number);  // the answer's
  }
  tail_->heads.merge(next->heads);
  tail_->request_keys.merge(next->request_keys);
  tail_->rows += next->rows;
}

size_t Journal::deferred_rows() const { return tail_->rows; }

absl::Status Journal::ApplyTail(Transaction& tx, Tail& tail) {
  for (const auto& created : tail.created) TUTTI_RETURN_IF_ERROR(runs_.Insert(tx, created.request, created.time));
  Heads heads;
  Batch batch;
  batch.rows.reserve(tail.rows);
  for (auto& request : tail.appended) {
    auto [at, is_new] = heads.try_emplace(request.run_id());
    Head& head = at->second;
    if (is_new) {
      static_cast<Remembered&>(head) = tail.heads.find(request.run_id())->second;
      head.exists = true;
      head.seen_seq = head.last_seq;
      head.seen_writer_seq = head.last_writer_seq;
    }
    if (request.lease_epoch() != head.lease_epoch || request.writer_seq() != head.last_writer_seq + 1 ||
        request.entries_size() == 0 || request.entries(0).seq() != head.last_seq + 1) {
      return Unfitting(request.run_id());
    }
    TUTTI_RETURN_IF_ERROR(Write(tx, request, head, batch));
  }
  absl::Status written = WriteBatch(tx, heads, batch, {});
  return absl::IsAborted(written) ? Unfitting("(one of several)") : written;
}

void Journal::Seal() {
  sealed_ = std::move(tail_);
  tail_ = std::make_unique<Tail>();
}

absl::Status Journal::ApplySealed(Transaction& tx) {
  applied_.reset();
  return ApplyTail(tx, *sealed_);
}

void Journal::OnSealedApplied() { applied_ = std::move(sealed_); }

absl::Status Journal::ApplyDeferred(Transaction& tx) {
  if (sealed_) TUTTI_RETURN_IF_ERROR(ApplyTail(tx, *sealed_));
  return ApplyTail(tx, *tail_);
}

void Journal::OnApplied() {
  applied_.reset();
  sealed_.reset();
  tail_ = std::make_unique<Tail>();
}

absl::Status Journal::Replay(Transaction& tx, absl::string_view sealed) {
  TUTTI_ASSIGN_OR_RETURN(std::string plain, payloads_.codec().Open(sealed, kPlace));
  v1::WriteLogRecord record;
  if (!record.ParseFromString(plain)) {
    return Error(
        absl::StatusCode::kDataLoss, "WRITE_LOG_DAMAGED",
        "a record of the log cannot be read. Restore the data folder from a backup, or move the log's files away to "
        "go on without the last writes");
  }
  for (auto& request : *record.mutable_created()) {
    tail_->heads[request.run().run_id()] = AsCreated(request);
    tail_->created.push_back({std::move(request), record.time_micros()});
    ++tail_->rows;
  }
  for (auto& request : *record.mutable_appended()) {
    if (!tail_->heads.contains(request.run_id())) {
      Heads heads;
      Head& head = heads[request.run_id()];
      TUTTI_RETURN_IF_ERROR(LoadHeads(tx, heads));
      if (!head.exists) return Unfitting(request.run_id());
      tail_->heads[request.run_id()] = head;
    }
    tail_->rows += static_cast<size_t>(request.entries_size());
    tail_->appended.push_back(std::move(request));
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
