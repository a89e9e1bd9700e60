#include "services/state-manager/store/journal.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/state-manager/store/bulk_writer.h"
#include "services/state-manager/store/journal_entry.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMaxLongRuns = 10000;
constexpr size_t kMostRemembered = 100000;
// Microseconds; less than what an engine waits for in memory.
constexpr int64_t kClocksAgree = 5000000;

constexpr BulkWriter::Shape kInsertUsage = {
    "INSERT INTO usage (run_id, seq, position, time, step_path, agent, provider, model, calls, input_tokens, "
    "output_tokens, cost_nano_units, currency_code) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ""};
// No column of an index among them: an index is then not touched, on either engine.
constexpr BulkWriter::Shape kUpdateHead = {
    "UPDATE runs SET last_seq = v.column2, last_writer_seq = v.column3, progress_percent = v.column4 FROM (VALUES ",
    "(?::text, ?::bigint, ?::bigint, ?::bigint)", ") AS v WHERE runs.run_id = v.column1",
    "UPDATE runs SET last_seq = $2, last_writer_seq = $3, progress_percent = $4 WHERE run_id = $1"};
constexpr BulkWriter::Shape kUpdateUsage = {
    "UPDATE runs SET calls = calls + v.column2, input_tokens = input_tokens + v.column3, output_tokens = output_tokens "
    "+ "
    "v.column4, cost_nano_units = cost_nano_units + v.column5 FROM (VALUES ",
    "(?::text, ?::bigint, ?::bigint, ?::bigint, ?::bigint)", ") AS v WHERE runs.run_id = v.column1",
    "UPDATE runs SET calls = calls + $2, input_tokens = input_tokens + $3, output_tokens = output_tokens + $4, "
    "cost_nano_units = cost_nano_units + $5 WHERE run_id = $1"};
constexpr BulkWriter::Shape kUpdateStatus = {"UPDATE runs SET status = v.column2, start_time = v.column3 FROM (VALUES ",
                                             "(?::text, ?::text, ?::bigint)", ") AS v WHERE runs.run_id = v.column1",
                                             "UPDATE runs SET status = $2, start_time = $3 WHERE run_id = $1"};
constexpr BulkWriter::Shape kUpdateEnd = {
    "UPDATE runs SET output = v.column2, error = v.column3, error_code = v.column4, end_time = v.column5 FROM (VALUES ",
    "(?::text, ?::bytea, ?::bytea, ?::bigint, ?::bigint)", ") AS v WHERE runs.run_id = v.column1",
    "UPDATE runs SET output = $2, error = $3, error_code = $4, end_time = $5 WHERE run_id = $1"};

const char* StatusOf(v1::Outcome outcome) {
  switch (outcome) {
    case v1::OUTCOME_SUCCEEDED:
      return "SUCCEEDED";
    case v1::OUTCOME_CANCELLED:
      return "CANCELLED";
    default:
      return "FAILED";
  }
}

// Given back: it is claimed again when something has come that its owner had not seen, or when it is woken.
constexpr BulkWriter::Shape kUpdateParked = {
    "UPDATE runs SET waiting = CASE WHEN inbox > v.column2 THEN 0 ELSE 1 END, wake_time = v.column3, owner = '', "
    "owner_incarnation = '', lease_epoch = lease_epoch + 1, last_writer_seq = 0 FROM (VALUES ",
    "(?::text, ?::bigint, ?::bigint)", ") AS v WHERE runs.run_id = v.column1",
    "UPDATE runs SET waiting = CASE WHEN inbox > $2 THEN 0 ELSE 1 END, wake_time = $3, owner = '', owner_incarnation = "
    "'', lease_epoch = lease_epoch + 1, last_writer_seq = 0 WHERE run_id = $1"};

std::string OwnerOf(const std::string& run_id) { return absl::StrCat("runs/", run_id); }
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

struct Journal::Item {
  v1::AppendRequest request;
  v1::AppendResponse response;
  bool ledger_elsewhere = false;
  Remembered after;  // the head, if it was written
  absl::AnyInvocable<void(v1::AppendResponse)> done;
};

// A run's row, as far as an append needs it.
struct Journal::Head : Remembered {
  bool exists = false;
  int64_t seen_seq = 0, seen_writer_seq = 0;  // in the row, before this batch
  // What this batch adds.
  bool written = false;
  bool used = false;    // something was consumed
  bool turned = false;  // the status or the start time changed
  int64_t calls = 0, input_tokens = 0, output_tokens = 0, cost_nano_units = 0;
  bool parked = false;
  int64_t inbox_seen = 0, wake_after = 0, parked_time = 0;
  bool row_written = false;  // with all of that
  bool ended = false;
  bool has_output = false, has_error = false;
  std::string output, error;  // cells
  int64_t error_code = 0, end_time = 0;
};

struct Journal::Batch {
  // A row of the journal. Texts are the request's.
  struct Row {
    absl::string_view run_id;
    int64_t seq, time;
    EntryKey key;
    std::string cell;
  };
  std::vector<Row> rows;
};

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

void Journal::Append(Database& database, v1::AppendRequest request, absl::AnyInvocable<void(v1::AppendResponse)> done,
                     bool ledger_elsewhere) {
  auto item = std::make_unique<Item>();
  item->request = std::move(request);
  item->done = std::move(done);
  item->ledger_elsewhere = ledger_elsewhere;
  WriteOp op;
  op.lane = LaneOf(item->request.run_id());
  op.batch = this;
  op.item = item.get();
  op.finish = [this, item = std::move(item)](const absl::Status& status) mutable {
    if (!status.ok()) item->response = Failure(item->request, status, status);
    Remember(*item, status.ok());
    item->response.set_request_number(item->request.request_number());
    item->done(std::move(item->response));
  };
  database.Write(std::move(op));
}

void Journal::Remember(const Item& item, bool committed) {
  MutexLock lock(mutex_);
  if (!committed || item.response.has_status()) {
    remembered_.erase(item.request.run_id());  // perhaps written, perhaps refused for what is no longer so
  } else if (item.after.last_seq > 0) {
    if (!Open(item.after.status) || item.after.given_back) {
      remembered_.erase(item.request.run_id());
      return;
    }
    if (remembered_.size() >= kMostRemembered) remembered_.clear();
    remembered_[item.request.run_id()] = item.after;
  }
}

void Journal::RememberCreated(const std::string& run_id, int64_t lease_epoch) {
  MutexLock lock(mutex_);
  if (remembered_.size() >= kMostRemembered) remembered_.clear();
  Remembered& head = remembered_[run_id];
  head = Remembered();
  head.lease_epoch = lease_epoch;
  head.status = "PENDING";
}

bool Journal::RecallHeads(const std::vector<void*>& items, Heads& heads) {
  {
    MutexLock lock(mutex_);
    for (auto& [run_id, head] : heads) {
      auto known = remembered_.find(run_id);
      if (known == remembered_.end()) return false;
      static_cast<Remembered&>(head) = known->second;
    }
  }
  for (auto& [run_id, head] : heads) {
    head.exists = true;
    head.seen_seq = head.last_seq;
    head.seen_writer_seq = head.last_writer_seq;
  }
  // A refusal must not come from memory.
  absl::flat_hash_map<absl::string_view, int64_t> next;
  for (void* raw : items) {
    const v1::AppendRequest& request = static_cast<Item*>(raw)->request;
    const Head& head = heads[request.run_id()];
    int64_t& writer_seq = next.try_emplace(request.run_id(), head.last_writer_seq + 1).first->second;
    if (request.lease_epoch() != head.lease_epoch || request.writer_seq() != writer_seq || !request.reserve().empty() ||
        !request.settle().empty() || !CheckForm(request).ok()) {
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
#define TUTTI_HEAD_COLUMNS                                                                                          \
  "SELECT run_id, lease_epoch, last_seq, last_writer_seq, progress_percent, start_time, status, snapshot_seq FROM " \
  "runs "
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

absl::Status Journal::ApplyAll(Transaction& tx, const std::vector<void*>& items) {
  Heads heads;
  heads.reserve(items.size());
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    item->response.Clear();
    item->after = Remembered();
    heads[item->request.run_id()];
  }
  const bool known = RecallHeads(items, heads);
  if (!known) {
    for (auto& [run_id, head] : heads) head = Head();
    TUTTI_RETURN_IF_ERROR(LoadHeads(tx, heads));
  }
  Batch batch;
  batch.rows.reserve(items.size());
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    Head& head = heads[item->request.run_id()];
    bool write = known;
    if (!known) TUTTI_RETURN_IF_ERROR(Check(tx, *item, head, write));
    if (!write) continue;
    TUTTI_RETURN_IF_ERROR(Write(tx, item->request, head, batch));
    item->response.set_last_seq(head.last_seq);
    item->after = head;
  }
  TUTTI_RETURN_IF_ERROR(known ? WriteKnown(tx, heads, batch) : WriteRead(tx, heads, batch));
  BulkWriter entry_usage(tx, kInsertUsage), usage(tx, kUpdateUsage), status(tx, kUpdateStatus), end(tx, kUpdateEnd),
      parked(tx, kUpdateParked);
  for (const auto& row : batch.rows) {
    if (row.key.usage == nullptr) continue;
    int position = 0;
    for (const auto& used : *row.key.usage) {
      TUTTI_RETURN_IF_ERROR(entry_usage.Add(row.run_id, row.seq, position++, row.time, row.key.path, used.agent(),
                                            used.provider(), used.model(), used.calls(), used.input_tokens(),
                                            used.output_tokens(), used.cost_nano_units(), used.currency_code()));
    }
  }
  TUTTI_RETURN_IF_ERROR(entry_usage.Flush());
  for (auto& [run_id, head] : heads) {
    if (!head.written) continue;
    if (head.used && !head.row_written) {
      TUTTI_RETURN_IF_ERROR(usage.Add(run_id, head.calls, head.input_tokens, head.output_tokens, head.cost_nano_units));
    }
    if (head.turned && !head.row_written) TUTTI_RETURN_IF_ERROR(status.Add(run_id, head.status, head.start_time));
    if (head.ended && !head.row_written) {
      TUTTI_RETURN_IF_ERROR(end.Add(run_id, head.has_output ? SqlArg::Bytes(head.output) : SqlArg::Null(),
                                    head.has_error ? SqlArg::Bytes(head.error) : SqlArg::Null(), head.error_code,
                                    head.end_time));
    }
    if (head.parked) {
      // An engine's clock may show any time, and a park may have waited for the database: with clocks that agree the
      // time counts, else how long it is to wait.
      int64_t now = tx.NowMicros(), wake_time = 0;
      if (head.wake_after > 0) {
        bool agree = std::abs(now - head.parked_time) <= kClocksAgree;
        wake_time = (agree ? head.parked_time : now) + head.wake_after;
      }
      TUTTI_RETURN_IF_ERROR(parked.Add(run_id, head.inbox_seen, wake_time));
      // Something may have come meanwhile; whoever is told looks.
      if (head.inbox_seen < head.seen_seq) tx.Announce({News::Kind::kClaimable, "", ""});
    }
    tx.Announce({News::Kind::kRun, std::string(run_id), ""});
    if (!head.ended && WantsSnapshot(head.last_seq, head.snapshot_seq)) NoteLong(std::string(run_id));
  }
  TUTTI_RETURN_IF_ERROR(usage.Flush());
  TUTTI_RETURN_IF_ERROR(status.Flush());
  TUTTI_RETURN_IF_ERROR(parked.Flush());
  return end.Flush();
}

absl::Status Journal::WriteRead(Transaction& tx, const Heads& heads, const Batch& batch) {
  BulkWriter entries(tx, kInsertEntry), update(tx, kUpdateHead);
  for (const auto& row : batch.rows) {
    TUTTI_RETURN_IF_ERROR(entries.Add(row.run_id, row.seq, row.time, row.key.kind, row.key.path, row.key.step_kind,
                                      row.key.attempt, row.key.target, row.key.error_code, SqlArg::Bytes(row.cell)));
  }
  TUTTI_RETURN_IF_ERROR(entries.Flush());
  for (const auto& [run_id, head] : heads) {
    if (head.written) {
      TUTTI_RETURN_IF_ERROR(update.Add(run_id, head.last_seq, head.last_writer_seq, head.progress));
    }
  }
  return update.Flush();
}

// One UPDATE a run, with as many columns as have changed: a row is large, and each statement writes all of it. Columns
// of indexes stand only where they change.
#define TUTTI_MOVE_HEAD "UPDATE runs SET last_seq = $2, last_writer_seq = $3, progress_percent = $4"
#define TUTTI_ADD_USAGE                                                                                             \
  ", calls = calls + $8, input_tokens = input_tokens + $9, output_tokens = output_tokens + $10, cost_nano_units = " \
  "cost_nano_units + $11"
#define TUTTI_AS_REMEMBERED                                                                                       \
  " WHERE run_id = $1 AND lease_epoch = $5 AND last_seq = $6 AND last_writer_seq = $7 AND status IN ('PENDING', " \
  "'RUNNING')"

absl::StatusOr<bool> Journal::WriteKnownOneByOne(Transaction& tx, Heads& heads, const Batch& batch) {
  int64_t as_remembered = 0;
  for (auto& [run_id, head] : heads) {
    const char* sql = TUTTI_MOVE_HEAD TUTTI_AS_REMEMBERED;
    if (head.used) sql = TUTTI_MOVE_HEAD TUTTI_ADD_USAGE TUTTI_AS_REMEMBERED;
    if (head.turned) sql = TUTTI_MOVE_HEAD TUTTI_ADD_USAGE ", status = $12, start_time = $13" TUTTI_AS_REMEMBERED;
    if (head.ended) {
      sql = TUTTI_MOVE_HEAD TUTTI_ADD_USAGE
          ", status = $12, start_time = $13, output = $14, error = $15, error_code = $16, end_time = "
          "$17" TUTTI_AS_REMEMBERED;
    }
    Statement update = tx.Prepare(sql);
    update.BindAll(run_id, head.last_seq, head.last_writer_seq, head.progress, head.lease_epoch, head.seen_seq,
                   head.seen_writer_seq);
    if (head.used || head.turned || head.ended) {
      update.BindAll(head.calls, head.input_tokens, head.output_tokens, head.cost_nano_units);
    }
    if (head.turned || head.ended) update.BindAll(head.status, head.start_time);
    if (head.ended) {
      update.BindAll(head.has_output ? SqlArg::Bytes(head.output) : SqlArg::Null(),
                     head.has_error ? SqlArg::Bytes(head.error) : SqlArg::Null(), head.error_code, head.end_time);
    }
    TUTTI_RETURN_IF_ERROR(update.Run());
    as_remembered += update.Changes();
    head.row_written = true;
  }
  if (as_remembered != static_cast<int64_t>(heads.size())) return false;
  BulkWriter entries(tx, kInsertEntry);
  for (const auto& row : batch.rows) {
    TUTTI_RETURN_IF_ERROR(entries.Add(row.run_id, row.seq, row.time, row.key.kind, row.key.path, row.key.step_kind,
                                      row.key.attempt, row.key.target, row.key.error_code, SqlArg::Bytes(row.cell)));
  }
  return true;
}

absl::StatusOr<bool> Journal::WriteKnownAtOnce(Transaction& tx, const Heads& heads, const Batch& batch) {
  // One round trip, whatever the number of runs and entries.
  Statement both = tx.Prepare(
      "WITH head AS (UPDATE runs SET last_seq = h.last_seq, last_writer_seq = h.last_writer_seq, progress_percent = "
      "h.progress FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], "
      "$7::bigint[]) AS h(run_id, last_seq, last_writer_seq, progress, lease_epoch, seen_seq, seen_writer_seq) WHERE "
      "runs.run_id = h.run_id AND runs.lease_epoch = h.lease_epoch AND runs.last_seq = h.seen_seq AND "
      "runs.last_writer_seq = h.seen_writer_seq AND runs.status IN ('PENDING', 'RUNNING') RETURNING 1) INSERT INTO "
      "journal (run_id, seq, time, kind, path, step_kind, attempt, target, error_code, entry) SELECT * FROM "
      "unnest($8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::bigint[], "
      "$15::text[], $16::bigint[], $17::bytea[]) WHERE (SELECT count(*) FROM head) = $18::bigint");
  std::vector<std::vector<std::string>> lists(17);
  for (const auto& [run_id, head] : heads) {
    lists[0].emplace_back(run_id);
    const int64_t numbers[] = {head.last_seq,    head.last_writer_seq, head.progress,
                               head.lease_epoch, head.seen_seq,        head.seen_writer_seq};
    for (size_t i = 0; i < 6; ++i) lists[i + 1].push_back(absl::StrCat(numbers[i]));
  }
  for (const auto& row : batch.rows) {
    lists[7].emplace_back(row.run_id);
    lists[8].push_back(absl::StrCat(row.seq));
    lists[9].push_back(absl::StrCat(row.time));
    lists[10].emplace_back(row.key.kind);
    lists[11].emplace_back(row.key.path);
    lists[12].emplace_back(row.key.step_kind);
    lists[13].push_back(absl::StrCat(row.key.attempt));
    lists[14].emplace_back(row.key.target);
    lists[15].push_back(absl::StrCat(row.key.error_code));
    lists[16].push_back(absl::StrCat("\\x", absl::BytesToHexString(row.cell)));
  }
  for (const auto& list : lists) both.BindList(list);
  both.Bind(static_cast<int64_t>(heads.size()));
  TUTTI_RETURN_IF_ERROR(both.Run());
  return both.Changes() == static_cast<int64_t>(batch.rows.size());
}

absl::Status Journal::WriteKnown(Transaction& tx, Heads& heads, const Batch& batch) {
  TUTTI_ASSIGN_OR_RETURN(bool as_remembered,
                         tx.sqlite() ? WriteKnownOneByOne(tx, heads, batch) : WriteKnownAtOnce(tx, heads, batch));
  if (as_remembered) return absl::OkStatus();
  MutexLock lock(mutex_);
  for (const auto& [run_id, head] : heads) remembered_.erase(run_id);
  return absl::AbortedError("another has written to a run since; its row is read");
}

absl::Status Journal::Account(Transaction& tx, const Item& item) {
  const v1::AppendRequest& request = item.request;
  if (!item.ledger_elsewhere) return ledger_.Apply(tx, request.run_id(), request.reserve(), request.settle());
  for (const auto& settlement : request.settle()) TUTTI_RETURN_IF_ERROR(Ledger::Check(settlement));
  for (const auto& settlement : request.settle()) {
    TUTTI_RETURN_IF_ERROR(outbox_.Post(tx, 0, Outbox::Kind::kSettle, settlement.SerializeAsString()));
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

absl::Status Journal::Write(Transaction& tx, v1::AppendRequest& request, Head& head, Batch& batch) {
  head.written = true;
  head.last_writer_seq = request.writer_seq() + request.entries_size() - 1;
  for (auto& entry : *request.mutable_entries()) {
    entry.set_seq(++head.last_seq);
    if (auto* payload = PayloadOf(entry); payload != nullptr && payload->data().size() > Payloads::kInline) {
      v1::JournalEntry lean = entry;  // the request stays whole: the transaction may be tried again
      TUTTI_ASSIGN_OR_RETURN(*PayloadOf(lean)->mutable_hash(),
                             payloads_.PutShared(tx, OwnerOf(request.run_id()), payload->data()));
      PayloadOf(lean)->clear_data();
      WriteEntry(request, entry, lean, head, batch);
    } else {
      WriteEntry(request, entry, entry, head, batch);
    }
  }
  return absl::OkStatus();
}

void Journal::WriteEntry(const v1::AppendRequest& request, const v1::JournalEntry& entry,
                         const v1::JournalEntry& stored, Head& head, Batch& batch) {
  const std::string& run_id = request.run_id();
  const int64_t time = ToMicros(entry.time());
  head.progress = std::max<int64_t>(head.progress, entry.progress_percent());
  if (entry.has_run_started()) {
    head.turned |= head.start_time == 0 || head.status != "RUNNING";
    if (head.start_time == 0) head.start_time = std::max<int64_t>(1, time);
    head.status = "RUNNING";
  }
  if (entry.has_run_finished()) {
    const auto& finished = stored.run_finished();
    head.ended = true;
    head.turned = true;
    head.status = StatusOf(finished.outcome());
    head.end_time = std::max<int64_t>(1, time);
    head.has_output = finished.has_output();
    if (head.has_output) {
      head.output = finished.output().hash().empty()
                        ? payloads_.codec().Seal(finished.output().data(), absl::StrCat(OwnerOf(run_id), "/output"))
                        : payloads_.codec().Reference(finished.output().hash());
    }
    head.has_error = finished.has_error();
    if (head.has_error) {
      head.error =
          payloads_.codec().Seal(finished.error().SerializeAsString(), absl::StrCat(OwnerOf(run_id), "/error"));
      head.error_code = finished.error().code();
    }
  }
  if (entry.has_run_parked()) {
    head.parked = head.given_back = true;
    head.inbox_seen = entry.run_parked().inbox_seen();
    // By its owner's clock; which time that is by the database's is for the database to say.
    head.parked_time = time;
    bool wakes = entry.run_parked().has_wake_time();
    head.wake_after = wakes ? std::max<int64_t>(1, ToMicros(entry.run_parked().wake_time()) - time) : 0;
  }
  EntryKey key = KeyOf(entry);
  if (key.usage != nullptr) {
    for (const auto& usage : *key.usage) {
      head.used = true;
      head.calls += usage.calls();
      head.input_tokens += usage.input_tokens();
      head.output_tokens += usage.output_tokens();
      head.cost_nano_units += usage.cost_nano_units();
    }
  }
  std::string cell = payloads_.codec().Seal(stored.SerializeAsString(), PlaceOf(run_id, entry.seq()));
  batch.rows.push_back({run_id, entry.seq(), time, key, std::move(cell)});
}

void Journal::NoteLong(const std::string& run_id) {
  MutexLock lock(mutex_);
  if (long_runs_.size() >= kMaxLongRuns) return;  // its next append notes it again
  if (std::find(long_runs_.begin(), long_runs_.end(), run_id) == long_runs_.end()) long_runs_.push_back(run_id);
}

}  // namespace tutti::state_manager
