#include "services/state-manager/store/journal.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/state-manager/store/journal_batch.h"
#include "services/state-manager/store/journal_entry.h"
#include "services/state-manager/store/rows.h"
#include "services/state-manager/store/runs.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMaxLongRuns = 10000;
constexpr size_t kMostRemembered = 100000;

bool Open(const std::string& status) { return status == "PENDING" || status == "RUNNING"; }

void Refuse(v1::AppendResponse& response, const absl::Status& status) {
  *response.mutable_status() = ToRpcStatus(status);
}

}  // namespace

absl::Status RunNotFound(const std::string& run_id) {
  return Error(absl::StatusCode::kNotFound, "RUN_NOT_FOUND",
               absl::StrCat("run ", run_id, " does not exist; `tutti runs list` shows those that do"))
      .Metadata("run_id", run_id);
}

v1::AppendResponse Journal::Failure(const v1::AppendRequest& request, const absl::Status& database,
                                    const absl::Status& refusal) {
  v1::AppendResponse response;
  response.set_request_number(request.request_number());
  if (database.ok()) {
    Refuse(response, refusal);
    return response;
  }
  // Whatever the database said, nothing is known to be written and the same request may be sent again.
  // (RESOURCE_EXHAUSTED is for budgets, which are no reason to repeat.)
  absl::Duration delay = RetryDelayOf(database);
  absl::Status away = Error(absl::StatusCode::kUnavailable, ReasonOf(database), database.message())
                          .RetryAfter(delay > absl::ZeroDuration() ? delay : absl::Seconds(1));
  Refuse(response, away);
  return response;
}

Journal::Journal(const Payloads& payloads, Ledger& ledger, const Outbox& outbox, const Runs& runs,
                 int64_t snapshot_every)
    : payloads_(payloads),
      ledger_(ledger),
      outbox_(outbox),
      runs_(runs),
      snapshot_every_(snapshot_every),
      tail_(std::make_unique<Tail>()) {}
Journal::~Journal() = default;

void Journal::Append(Database& database, v1::AppendRequest request, absl::AnyInvocable<void(v1::AppendResponse)> done,
                     bool ledger_elsewhere) {
  auto item = std::make_unique<Item>();
  item->run_id = request.run_id();
  item->request = std::move(request);
  item->done = std::move(done);
  item->ledger_elsewhere = ledger_elsewhere;
  WriteOp op;
  op.lane = LaneOf(item->request.run_id());
  op.batch = this;
  op.item = item.get();
  op.bytes = item->request.ByteSizeLong();
  op.finish = [this, item = std::move(item)](const absl::Status& status) mutable {
    if (!status.ok()) item->response = Failure(item->request, status, status);
    Remember(*item, status.ok() && !item->response.has_status());
    item->response.set_request_number(item->request.request_number());
    item->done(std::move(item->response));
  };
  database.Write(std::move(op));
}

void Journal::Create(Database& database, v1::CreateRunRequest request,
                     absl::AnyInvocable<void(absl::StatusOr<v1::CreateRunResponse>)> done) {
  auto item = std::make_unique<Item>();
  item->creation = std::make_unique<Creation>();
  item->run_id = request.run().run_id();
  item->creation->request = std::move(request);
  item->creation->done = std::move(done);
  WriteOp op;
  op.lane = LaneOf(item->run_id);
  op.batch = this;
  op.item = item.get();
  op.bytes = item->creation->request.ByteSizeLong();
  op.finish = [this, item = std::move(item)](const absl::Status& status) mutable {
    Creation& creation = *item->creation;
    absl::Status answer = status.ok() ? creation.refusal : status;
    Remember(*item, answer.ok());
    if (answer.ok()) {
      creation.done(std::move(creation.response));
    } else {
      creation.done(std::move(answer));
    }
  };
  database.Write(std::move(op));
}

void Journal::Remember(const Item& item, bool written) {
  MutexLock lock(mutex_);
  if (!written) {
    remembered_.erase(item.run_id);  // perhaps written, perhaps refused for what is no longer so
  } else if (!item.after.status.empty() && item.seen_changes == changes_by_others_) {
    if (!Open(item.after.status) || item.after.given_back) {
      remembered_.erase(item.run_id);
      return;
    }
    if (remembered_.size() >= kMostRemembered) remembered_.clear();
    remembered_[item.run_id] = item.after;
  }
}

void Journal::OnTablesChanged() {
  MutexLock lock(mutex_);
  ++changes_by_others_;
  remembered_.clear();
}

std::vector<absl::string_view> Journal::RecallHeads(Heads& heads) {
  std::vector<absl::string_view> unknown;
  MutexLock lock(mutex_);
  for (auto& [run_id, head] : heads) {
    auto known = remembered_.find(run_id);
    if (known == remembered_.end()) {
      unknown.push_back(run_id);
      continue;
    }
    static_cast<Remembered&>(head) = known->second;
    head.exists = true;
    head.seen_seq = head.last_seq;
    head.seen_writer_seq = head.last_writer_seq;
  }
  return unknown;
}

bool Journal::AllPass(const std::vector<void*>& items, const Heads& heads) {
  // A refusal must not come from memory.
  absl::flat_hash_map<absl::string_view, int64_t> next;
  for (void* raw : items) {
    const Item& item = *static_cast<Item*>(raw);
    if (item.creation) continue;
    const v1::AppendRequest& request = item.request;
    const Head& head = heads.find(request.run_id())->second;
    int64_t& writer_seq = next.try_emplace(request.run_id(), head.last_writer_seq + 1).first->second;
    if (!head.exists || head.given_back || !Open(head.status) || request.lease_epoch() != head.lease_epoch ||
        request.writer_seq() != writer_seq || !request.reserve().empty() || !request.settle().empty() ||
        !CheckForm(request).ok()) {
      return false;
    }
    writer_seq += request.entries_size();
    // What follows an end is refused.
    const auto& last = *request.entries().rbegin();
    if (last.has_run_finished() || last.has_run_parked()) writer_seq = -1;
  }
  return true;
}

absl::Status Journal::LoadHeads(Transaction& tx, Heads& heads) {
#define TUTTI_HEAD_COLUMNS                                                                                      \
  "SELECT run_id, lease_epoch, last_seq, last_writer_seq, progress_percent, start_time, status, snapshot_seq, " \
  "parent_run_id FROM runs "
  auto load = [&](Statement& row) {
    while (row.Step()) {
      auto known = heads.find(row.Text(0));
      if (known == heads.end()) continue;
      Head& head = known->second;
      head.exists = true;
      head.lease_epoch = row.Int(1);
      head.seen_seq = head.last_seq = row.Int(2);
      head.seen_writer_seq = head.last_writer_seq = row.Int(3);
      head.progress = row.Int(4);
      head.start_time = row.Int(5);
      head.status = row.Text(6);
      head.snapshot_seq = row.Int(7);
      head.parent_run_id = row.Text(8);
    }
    return row.status();
  };
  if (tx.sqlite()) {
    for (auto& [run_id, head] : heads) {
      Statement row = tx.Prepare(TUTTI_HEAD_COLUMNS "WHERE run_id = $1");
      row.Bind(run_id);
      TUTTI_RETURN_IF_ERROR(load(row));
    }
    return absl::OkStatus();
  }
  std::vector<std::string> ids;
  for (const auto& [run_id, head] : heads) ids.emplace_back(run_id);
  // Locked in one order everywhere, so that replicas do not wait for each other in a circle.
  Statement rows = tx.Prepare(TUTTI_HEAD_COLUMNS "WHERE run_id = ANY($1) ORDER BY run_id FOR UPDATE");
  rows.BindList(ids);
  return load(rows);
}

Journal::Creations Journal::CreationsOf(const std::vector<void*>& items) {
  Creations out;
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    if (!item->creation) continue;
    Creation& creation = *item->creation;
    creation.response.Clear();
    out.push_back({&creation.request, &creation.response, &creation.refusal});
  }
  return out;
}

absl::Status Journal::ApplyAll(Transaction& tx, const std::vector<void*>& items) {
  Heads heads;
  heads.reserve(items.size());
  int64_t changes;
  {
    MutexLock lock(mutex_);
    changes = changes_by_others_;
  }
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    item->response.Clear();
    item->after = Remembered();
    item->seen_changes = changes;
    if (!item->creation) heads[item->request.run_id()];
  }
  const bool known = RecallHeads(heads).empty() && AllPass(items, heads);
  if (!known) {
    for (auto& [run_id, head] : heads) head = Head();
    TUTTI_RETURN_IF_ERROR(LoadHeads(tx, heads));
  }
  Batch batch;
  batch.rows.reserve(items.size());
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    if (item->creation) continue;
    Head& head = heads[item->request.run_id()];
    bool write = known;
    if (!known) TUTTI_RETURN_IF_ERROR(Check(tx, *item, head, write));
    if (!write) continue;
    TUTTI_RETURN_IF_ERROR(Write(tx, item->request, head, batch));
    item->response.set_last_seq(head.last_seq);
    item->after = head;
  }
  absl::Status written = WriteBatch(tx, heads, batch, CreationsOf(items));
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    if (!written.ok() || !item->creation) continue;
    const Creation& creation = *item->creation;
    // Raced by another: tried again.
    if (absl::IsAborted(creation.refusal)) written = creation.refusal;
    if (creation.refusal.ok() && creation.response.created()) item->after = AsCreated(creation.request);
  }
  if (written.ok()) Tell(tx, heads);
  if (absl::IsAborted(written)) {  // others have written since, and the rows are read the next time
    MutexLock lock(mutex_);
    for (const auto& [run_id, head] : heads) remembered_.erase(run_id);
  }
  return written;
}

absl::Status Journal::Account(Transaction& tx, const Item& item) {
  const v1::AppendRequest& request = item.request;
  if (!item.ledger_elsewhere) return ledger_.Apply(tx, request.run_id(), request.reserve(), request.settle());
  for (const auto& settlement : request.settle()) TUTTI_RETURN_IF_ERROR(Ledger::Check(settlement));
  for (const auto& settlement : request.settle()) {
    TUTTI_RETURN_IF_ERROR(outbox_.Post(tx, 0, Outbox::Kind::kSettle, settlement.SerializeAsString()));
  }
  for (v1::Reservation reservation : request.reserve()) {
    if (reservation.run_id().empty()) reservation.set_run_id(request.run_id());
    TUTTI_RETURN_IF_ERROR(outbox_.Post(tx, 0, Outbox::Kind::kReserve, reservation.SerializeAsString()));
  }
  return absl::OkStatus();
}

absl::Status Journal::Check(Transaction& tx, Item& item, Head& head, bool& write) {
  const v1::AppendRequest& request = item.request;
  v1::AppendResponse& response = item.response;
  if (absl::Status form = CheckForm(request); !form.ok()) {
    Refuse(response, form);
  } else if (!head.exists) {
    Refuse(response, RunNotFound(request.run_id()));
  } else if (head.lease_epoch != request.lease_epoch() || head.given_back) {
    Refuse(response, Error(absl::StatusCode::kAborted, "LEASE_LOST",
                           absl::StrCat("run ", request.run_id(), " is leased under epoch ", head.lease_epoch, ", not ",
                                        request.lease_epoch())));
  } else if (request.writer_seq() + request.entries_size() - 1 <= head.last_writer_seq) {
    response.set_last_seq(head.last_seq);  // committed before; the answer was lost
  } else if (!Open(head.status)) {
    Refuse(response, Error(absl::StatusCode::kFailedPrecondition, "RUN_ENDED",
                           absl::StrCat("run ", request.run_id(), " has ended")));
  } else if (request.writer_seq() != head.last_writer_seq + 1) {
    Refuse(response, Error(absl::StatusCode::kFailedPrecondition, "JOURNAL_GAP",
                           absl::StrCat("run ", request.run_id(), ": writer_seq ", request.writer_seq(), " after ",
                                        head.last_writer_seq)));
  } else {
    absl::Status ledger = Account(tx, item);
    TUTTI_RETURN_IF_ERROR(tx.failure());
    // Raced by another call, perhaps after something was written: all of it is undone and tried again.
    if (absl::IsAborted(ledger)) return ledger;
    if (!ledger.ok()) {
      Refuse(response, ledger);
    } else {
      write = true;
    }
  }
  return absl::OkStatus();
}

void Journal::NoteLong(const std::string& run_id) {
  MutexLock lock(mutex_);
  if (long_runs_.size() >= kMaxLongRuns) return;  // its next append notes it again
  if (std::find(long_runs_.begin(), long_runs_.end(), run_id) == long_runs_.end()) long_runs_.push_back(run_id);
}

}  // namespace tutti::state_manager
