#include "services/state-manager/store/journal.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/state-manager/domain/condense.h"
#include "services/state-manager/store/bulk_writer.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kPageBytes = size_t{1} << 20;
constexpr size_t kMaxLongRuns = 10000;

constexpr BulkWriter::Shape kInsertEntry = {
    "INSERT INTO journal (run_id, seq, time, kind, path, step_kind, attempt, target, error_code, entry) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ""};
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

struct EntryKey {
  const char* kind;
  absl::string_view path, step_kind, target;
  int attempt = 0;
  int error_code = 0;
  const google::protobuf::RepeatedPtrField<tutti::type::v1::ModelUsage>* usage = nullptr;
};

template <class Step>
EntryKey KeyOfStep(const char* kind, const Step& step) {
  return {kind, step.path(), step.kind(), step.target(), step.attempt()};
}

EntryKey KeyOf(const v1::JournalEntry& entry) {
  switch (entry.entry_case()) {
    case v1::JournalEntry::kRunStarted:
      return {"run_started"};
    case v1::JournalEntry::kStepStarted:
      return KeyOfStep("step_started", entry.step_started());
    case v1::JournalEntry::kStepCompleted: {
      EntryKey key = KeyOfStep("step_completed", entry.step_completed());
      key.usage = &entry.step_completed().usage();
      return key;
    }
    case v1::JournalEntry::kStepFailed: {
      EntryKey key = KeyOfStep("step_failed", entry.step_failed());
      key.usage = &entry.step_failed().usage();
      key.error_code = entry.step_failed().error().code();
      return key;
    }
    case v1::JournalEntry::kCancelRequested:
      return {"cancel_requested"};
    case v1::JournalEntry::kRunFinished: {
      EntryKey key = {"run_finished"};
      key.error_code = entry.run_finished().error().code();
      return key;
    }
    default:
      return {"unknown"};
  }
}

// The payload in an entry that may be large; null when it has none.
tutti::type::v1::Payload* PayloadOf(v1::JournalEntry& entry) {
  if (entry.has_step_completed()) return entry.mutable_step_completed()->mutable_result();
  if (entry.has_run_finished() && entry.run_finished().has_output())
    return entry.mutable_run_finished()->mutable_output();
  return nullptr;
}

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

std::string OwnerOf(const std::string& run_id) { return absl::StrCat("runs/", run_id); }
std::string PlaceOf(const std::string& run_id, int64_t seq) { return absl::StrCat("runs/", run_id, "/journal/", seq); }

bool Open(const std::string& status) { return status == "PENDING" || status == "RUNNING"; }

void Refuse(v1::AppendResponse& response, const absl::Status& status) {
  *response.mutable_status() = ToRpcStatus(status);
}

bool HasNul(absl::string_view text) { return text.find('\0') != absl::string_view::npos; }

// What no database takes, or no journal means.
absl::Status CheckForm(const v1::AppendRequest& request) {
  if (request.entries().empty()) return Invalid("entries", "must be given");
  if (request.writer_seq() < 1) return Invalid("writer_seq", "must be at least 1");
  for (const auto& entry : request.entries()) {
    EntryKey key = KeyOf(entry);
    bool nul = HasNul(key.path) || HasNul(key.step_kind) || HasNul(key.target);
    if (key.usage != nullptr) {
      for (const auto& usage : *key.usage) {
        nul |=
            HasNul(usage.agent()) || HasNul(usage.provider()) || HasNul(usage.model()) || HasNul(usage.currency_code());
      }
    }
    if (nul) return Invalid("entries", "have a name with a NUL character");
  }
  return absl::OkStatus();
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
  absl::AnyInvocable<void(v1::AppendResponse)> done;
};

// A run's row, as far as an append needs it.
struct Journal::Head {
  bool exists = false;
  int64_t lease_epoch = 0, last_seq = 0, last_writer_seq = 0, progress = 0, start_time = 0, snapshot_seq = 0;
  std::string status;
  // What this batch adds.
  bool written = false;
  bool used = false;    // something was consumed
  bool turned = false;  // the status or the start time changed
  int64_t calls = 0, input_tokens = 0, output_tokens = 0, cost_nano_units = 0;
  bool ended = false;
  bool has_output = false, has_error = false;
  std::string output, error;  // cells
  int64_t error_code = 0, end_time = 0;
};

struct Journal::Batch {
  explicit Batch(Transaction& tx) : entries(tx, kInsertEntry), usage(tx, kInsertUsage) {}
  BulkWriter entries, usage;
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
  op.finish = [item = std::move(item)](const absl::Status& status) mutable {
    if (!status.ok()) item->response = Failure(item->request, status, status);
    item->response.set_request_number(item->request.request_number());
    item->done(std::move(item->response));
  };
  database.Write(std::move(op));
}

absl::Status Journal::ApplyAll(Transaction& tx, const std::vector<void*>& items) {
  // By ids of the requests, which outlive it.
  absl::flat_hash_map<absl::string_view, Head> heads;
  heads.reserve(items.size());
  for (void* raw : items) heads[static_cast<Item*>(raw)->request.run_id()];
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
      head.last_seq = row.Int(2);
      head.last_writer_seq = row.Int(3);
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
  } else {
    std::vector<std::string> ids;
    for (const auto& [run_id, head] : heads) ids.emplace_back(run_id);
    // Locked in one order everywhere, so that replicas do not wait for each other in a circle.
    Statement rows = tx.Prepare(TUTTI_HEAD_COLUMNS "WHERE run_id = ANY($1) ORDER BY run_id FOR UPDATE");
    rows.BindList(ids);
    TUTTI_RETURN_IF_ERROR(load(rows));
  }
  Batch batch(tx);
  for (void* raw : items) {
    auto* item = static_cast<Item*>(raw);
    item->response.Clear();
    Head& head = heads[item->request.run_id()];
    bool write = false;
    TUTTI_RETURN_IF_ERROR(Check(tx, *item, head, write));
    if (!write) continue;
    TUTTI_RETURN_IF_ERROR(Write(tx, item->request, head, batch));
    item->response.set_last_seq(head.last_seq);
  }
  TUTTI_RETURN_IF_ERROR(batch.entries.Flush());
  TUTTI_RETURN_IF_ERROR(batch.usage.Flush());
  BulkWriter update(tx, kUpdateHead), usage(tx, kUpdateUsage), status(tx, kUpdateStatus), end(tx, kUpdateEnd);
  for (auto& [run_id, head] : heads) {
    if (!head.written) continue;
    TUTTI_RETURN_IF_ERROR(update.Add(run_id, head.last_seq, head.last_writer_seq, head.progress));
    if (head.used) {
      TUTTI_RETURN_IF_ERROR(usage.Add(run_id, head.calls, head.input_tokens, head.output_tokens, head.cost_nano_units));
    }
    if (head.turned) TUTTI_RETURN_IF_ERROR(status.Add(run_id, head.status, head.start_time));
    if (head.ended) {
      TUTTI_RETURN_IF_ERROR(end.Add(run_id, head.has_output ? SqlArg::Bytes(head.output) : SqlArg::Null(),
                                    head.has_error ? SqlArg::Bytes(head.error) : SqlArg::Null(), head.error_code,
                                    head.end_time));
    }
    tx.Announce({News::Kind::kRun, std::string(run_id), ""});
    if (!head.ended && WantsSnapshot(head.last_seq, head.snapshot_seq)) NoteLong(std::string(run_id));
  }
  TUTTI_RETURN_IF_ERROR(update.Flush());
  TUTTI_RETURN_IF_ERROR(usage.Flush());
  TUTTI_RETURN_IF_ERROR(status.Flush());
  return end.Flush();
}

absl::Status Journal::Account(Transaction& tx, const Item& item) {
  const v1::AppendRequest& request = item.request;
  if (!item.ledger_elsewhere) return ledger_.Apply(tx, request.run_id(), request.reserve(), request.settle());
  for (const auto& settlement : request.settle()) {
    TUTTI_RETURN_IF_ERROR(Ledger::Check(settlement));
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
  } else if (head.lease_epoch != request.lease_epoch()) {
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
      TUTTI_RETURN_IF_ERROR(WriteEntry(request.run_id(), lean, head, batch));
    } else {
      TUTTI_RETURN_IF_ERROR(WriteEntry(request.run_id(), entry, head, batch));
    }
  }
  return absl::OkStatus();
}

absl::Status Journal::WriteEntry(const std::string& run_id, const v1::JournalEntry& entry, Head& head, Batch& batch) {
  const int64_t time = ToMicros(entry.time());
  head.progress = std::max<int64_t>(head.progress, entry.progress_percent());
  if (entry.has_run_started()) {
    head.turned |= head.start_time == 0 || head.status != "RUNNING";
    if (head.start_time == 0) head.start_time = std::max<int64_t>(1, time);
    head.status = "RUNNING";
  }
  if (entry.has_run_finished()) {
    const auto& finished = entry.run_finished();
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
  EntryKey key = KeyOf(entry);
  std::string cell = payloads_.codec().Seal(entry.SerializeAsString(), PlaceOf(run_id, entry.seq()));
  TUTTI_RETURN_IF_ERROR(batch.entries.Add(run_id, entry.seq(), time, key.kind, key.path, key.step_kind, key.attempt,
                                          key.target, key.error_code, SqlArg::Bytes(cell)));
  if (key.usage == nullptr) return absl::OkStatus();
  int position = 0;
  for (const auto& usage : *key.usage) {
    TUTTI_RETURN_IF_ERROR(batch.usage.Add(run_id, entry.seq(), position++, time, key.path, usage.agent(),
                                          usage.provider(), usage.model(), usage.calls(), usage.input_tokens(),
                                          usage.output_tokens(), usage.cost_nano_units(), usage.currency_code()));
    head.used = true;
    head.calls += usage.calls();
    head.input_tokens += usage.input_tokens();
    head.output_tokens += usage.output_tokens();
    head.cost_nano_units += usage.cost_nano_units();
  }
  return absl::OkStatus();
}

absl::Status Journal::Fill(Transaction& tx, v1::JournalEntry& entry) const {
  auto* payload = PayloadOf(entry);
  if (payload == nullptr || payload->hash().empty()) return absl::OkStatus();
  TUTTI_ASSIGN_OR_RETURN(*payload->mutable_data(), payloads_.GetShared(tx, payload->hash()));
  payload->clear_hash();
  return absl::OkStatus();
}

absl::StatusOr<v1::ReadJournalResponse> Journal::ReadPage(Transaction& tx, const std::string& run_id, int64_t after_seq,
                                                          int limit) const {
  v1::ReadJournalResponse out;
  {
    Statement rows = tx.Prepare("SELECT seq, entry FROM journal WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3");
    rows.BindAll(run_id, after_seq, limit);
    size_t bytes = 0;
    while (rows.Step()) {
      TUTTI_ASSIGN_OR_RETURN(std::string bytes_of_entry,
                             payloads_.codec().Open(rows.Bytes(1), PlaceOf(run_id, rows.Int(0))));
      v1::JournalEntry entry;
      entry.ParseFromString(bytes_of_entry);
      TUTTI_RETURN_IF_ERROR(Fill(tx, entry));
      bytes += entry.ByteSizeLong();
      if (out.entries_size() > 0 && bytes > kPageBytes) break;  // a page stays well below the message limit
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

void Journal::NoteLong(const std::string& run_id) {
  MutexLock lock(mutex_);
  if (long_runs_.size() >= kMaxLongRuns) return;  // its next append notes it again
  if (std::find(long_runs_.begin(), long_runs_.end(), run_id) == long_runs_.end()) long_runs_.push_back(run_id);
}

std::vector<std::string> Journal::TakeLongRuns() {
  MutexLock lock(mutex_);
  return std::exchange(long_runs_, {});
}

absl::Status AppendCancel(Transaction& tx, const Payloads& payloads, const std::string& run_id, int64_t seq,
                          int64_t time, int progress_percent, const std::string& reason) {
  v1::JournalEntry entry;
  entry.set_seq(seq);
  entry.set_progress_percent(progress_percent);
  SetMicros(time, entry.mutable_time());
  entry.mutable_cancel_requested()->set_reason(reason);
  std::string cell = payloads.codec().Seal(entry.SerializeAsString(), PlaceOf(run_id, seq));
  BulkWriter insert(tx, kInsertEntry);
  TUTTI_RETURN_IF_ERROR(insert.Add(run_id, seq, time, "cancel_requested", "", "", 0, "", 0, SqlArg::Bytes(cell)));
  return insert.Flush();
}

}  // namespace tutti::state_manager
