// What an append writes: rows of the journal and of usage, and the run's own.
#include <algorithm>
#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/bulk_writer.h"
#include "services/state-manager/store/column_rows.h"
#include "services/state-manager/store/journal_batch.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

// Microseconds; less than what an engine waits for in memory.
constexpr int64_t kClocksAgree = 5000000;

constexpr BulkWriter::Shape kInsertUsage = {
    "INSERT INTO usage (run_id, seq, position, time, step_path, agent, provider, model, calls, input_tokens, "
    "output_tokens, cost_nano_units, currency_code) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ""};

// Given back: it is claimed again when something has come that its owner had not seen, or when it is woken.
constexpr BulkWriter::Shape kUpdateParked = {
    "UPDATE runs SET waiting = CASE WHEN inbox > v.column2 THEN 0 ELSE 1 END, wake_time = v.column3, owner = '', "
    "owner_incarnation = '', lease_epoch = lease_epoch + 1, last_writer_seq = 0 FROM (VALUES ",
    "(?::text, ?::bigint, ?::bigint)", ") AS v WHERE runs.run_id = v.column1",
    "UPDATE runs SET waiting = CASE WHEN inbox > $2 THEN 0 ELSE 1 END, wake_time = $3, owner = '', owner_incarnation = "
    "'', lease_epoch = lease_epoch + 1, last_writer_seq = 0 WHERE run_id = $1"};

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

}  // namespace

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

void Journal::Advance(Head& head, const v1::JournalEntry& entry) {
  const int64_t time = ToMicros(entry.time());
  head.progress = std::max<int64_t>(head.progress, entry.progress_percent());
  if (entry.has_run_started()) {
    head.turned |= head.start_time == 0 || head.status != "RUNNING";
    if (head.start_time == 0) head.start_time = std::max<int64_t>(1, time);
    head.status = "RUNNING";
  }
  if (entry.has_run_finished()) {
    head.ended = true;
    head.turned = true;
    head.status = StatusOf(entry.run_finished().outcome());
    // By its owner's clock; no run ends before it was created, which the database's clock says.
    head.end_time = std::max<int64_t>(1, time);
    head.error_code = entry.run_finished().has_error() ? entry.run_finished().error().code() : 0;
  }
  if (entry.has_run_parked()) {
    head.parked = head.given_back = true;
    head.inbox_seen = entry.run_parked().inbox_seen();
    // By its owner's clock; which time that is by the database's is for the database to say.
    head.parked_time = time;
    bool wakes = entry.run_parked().has_wake_time();
    head.wake_after = wakes ? std::max<int64_t>(1, ToMicros(entry.run_parked().wake_time()) - time) : 0;
  }
  for (const auto& usage : *KeyOf(entry).usage) {
    head.used = true;
    head.calls += usage.calls();
    head.input_tokens += usage.input_tokens();
    head.output_tokens += usage.output_tokens();
    head.cost_nano_units += usage.cost_nano_units();
  }
}

void Journal::WriteEntry(const v1::AppendRequest& request, const v1::JournalEntry& entry,
                         const v1::JournalEntry& stored, Head& head, Batch& batch) {
  const std::string& run_id = request.run_id();
  Advance(head, entry);
  if (entry.has_run_finished()) {
    const auto& finished = stored.run_finished();
    if (finished.has_output()) {
      head.output = finished.output().hash().empty()
                        ? payloads_.codec().Seal(finished.output().data(), absl::StrCat(OwnerOf(run_id), "/output"))
                        : payloads_.codec().Reference(finished.output().hash());
    }
    if (finished.has_error()) {
      head.error =
          payloads_.codec().Seal(finished.error().SerializeAsString(), absl::StrCat(OwnerOf(run_id), "/error"));
    }
  }
  std::string cell = payloads_.codec().Seal(stored.SerializeAsString(), PlaceOf(run_id, entry.seq()));
  batch.rows.push_back({run_id, entry.seq(), ToMicros(entry.time()), KeyOf(entry), std::move(cell)});
}

absl::Status Journal::WriteBatch(Transaction& tx, const Heads& heads, const Batch& batch, const Creations& creations) {
  if (tx.sqlite()) {
    TUTTI_RETURN_IF_ERROR(runs_.CreateAll(tx, creations));
    TUTTI_RETURN_IF_ERROR(WriteOneByOne(tx, heads, batch));
  } else {
    TUTTI_RETURN_IF_ERROR(WriteAtOnce(tx, heads, batch, creations));
  }
  TUTTI_RETURN_IF_ERROR(TellParents(tx, heads));
  BulkWriter parked(tx, kUpdateParked);
  for (const auto& [run_id, head] : heads) {
    if (!head.written) continue;
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
  }
  return parked.Flush();
}

absl::Status Journal::TellParents(Transaction& tx, const Heads& heads) const {
  for (const auto& [run_id, head] : InOrder(heads)) {
    if (!head->ended || head->parent_run_id.empty()) continue;
    TUTTI_RETURN_IF_ERROR(outbox_.TellParent(tx, head->parent_run_id, run_id));
  }
  return absl::OkStatus();
}

std::map<absl::string_view, const Journal::Head*> Journal::InOrder(const Heads& heads) {
  std::map<absl::string_view, const Head*> written;
  for (const auto& [run_id, head] : heads) {
    if (head.written) written[run_id] = &head;
  }
  return written;
}

void Journal::Tell(Transaction& tx, const Heads& heads) {
  for (const auto& [run_id, of] : InOrder(heads)) {
    const Head& head = *of;
    tx.Announce({News::Kind::kRun, std::string(run_id), ""});
    if (!head.ended && WantsSnapshot(head.last_seq, head.snapshot_seq)) NoteLong(std::string(run_id));
  }
}

// One UPDATE a run, with as many columns as have changed: a row is large, and each statement writes all of it. Columns
// of indexes stand only where they change.
#define TUTTI_MOVE_HEAD "UPDATE runs SET last_seq = $2, last_writer_seq = $3, progress_percent = $4"
#define TUTTI_ADD_USAGE                                                                                             \
  ", calls = calls + $8, input_tokens = input_tokens + $9, output_tokens = output_tokens + $10, cost_nano_units = " \
  "cost_nano_units + $11"
#define TUTTI_AS_SEEN                                                                                             \
  " WHERE run_id = $1 AND lease_epoch = $5 AND last_seq = $6 AND last_writer_seq = $7 AND status IN ('PENDING', " \
  "'RUNNING')"

absl::Status Journal::WriteOneByOne(Transaction& tx, const Heads& heads, const Batch& batch) {
  for (const auto& [run_id, head] : heads) {
    if (!head.written) continue;
    const char* sql = TUTTI_MOVE_HEAD TUTTI_AS_SEEN;
    if (head.used) sql = TUTTI_MOVE_HEAD TUTTI_ADD_USAGE TUTTI_AS_SEEN;
    if (head.turned) sql = TUTTI_MOVE_HEAD TUTTI_ADD_USAGE ", status = $12, start_time = $13" TUTTI_AS_SEEN;
    if (head.ended) {
      sql = TUTTI_MOVE_HEAD TUTTI_ADD_USAGE
          ", status = $12, start_time = $13, output = $14, error = $15, error_code = $16, end_time = CASE WHEN $17 > "
          "create_time THEN $17 ELSE create_time END" TUTTI_AS_SEEN;
    }
    Statement update = tx.Prepare(sql);
    update.BindAll(run_id, head.last_seq, head.last_writer_seq, head.progress, head.lease_epoch, head.seen_seq,
                   head.seen_writer_seq);
    if (head.used || head.turned || head.ended) {
      update.BindAll(head.calls, head.input_tokens, head.output_tokens, head.cost_nano_units);
    }
    if (head.turned || head.ended) update.BindAll(head.status, head.start_time);
    if (head.ended) {
      update.BindAll(head.output.empty() ? SqlArg::Null() : SqlArg::Bytes(head.output),
                     head.error.empty() ? SqlArg::Null() : SqlArg::Bytes(head.error), head.error_code, head.end_time);
    }
    TUTTI_RETURN_IF_ERROR(update.Run());
    if (update.Changes() == 0) return absl::AbortedError("another has written to a run since; its row is read");
  }
  BulkWriter entries(tx, kInsertEntry), usage(tx, kInsertUsage);
  for (const auto& row : batch.rows) {
    TUTTI_RETURN_IF_ERROR(entries.Add(row.run_id, row.seq, row.time, row.key.kind, row.key.path, row.key.step_kind,
                                      row.key.attempt, row.key.target, row.key.error_code, SqlArg::Bytes(row.cell)));
    int position = 0;
    for (const auto& used : *row.key.usage) {
      TUTTI_RETURN_IF_ERROR(usage.Add(row.run_id, row.seq, position++, row.time, row.key.path, used.agent(),
                                      used.provider(), used.model(), used.calls(), used.input_tokens(),
                                      used.output_tokens(), used.cost_nano_units(), used.currency_code()));
    }
  }
  return absl::OkStatus();
}

// One statement, whatever the number of runs and entries, and one change of a run's row, whatever changes in it. A row
// that is not as it was seen is not changed: then too few are, and a division by zero ends it all. $1: how many rows;
// $2 to $8: the heads; $9 to $18: the entries. Columns are unfolded side by side in a SELECT list: as functions in FROM
// each would be kept as a table of its own first, an eighth of the server's work.
#define TUTTI_MOVE_HEADS                                                                                     \
  "head AS (UPDATE runs SET last_seq = h.last_seq, last_writer_seq = h.last_writer_seq, progress_percent = " \
  "h.progress"
#define TUTTI_FROM_HEADS                                                                                          \
  " FROM (SELECT unnest($2::text[]) AS run_id, unnest($3::bigint[]) AS lease_epoch, "                             \
  "unnest($4::bigint[]) AS seen_seq, unnest($5::bigint[]) AS seen_writer_seq, unnest($6::bigint[]) AS last_seq, " \
  "unnest($7::bigint[]) AS last_writer_seq, unnest($8::bigint[]) AS progress"
#define TUTTI_HEADS_AS_SEEN                                                                                      \
  ") AS h WHERE runs.run_id = h.run_id AND runs.lease_epoch = h.lease_epoch AND runs.last_seq = h.seen_seq AND " \
  "runs.last_writer_seq = h.seen_writer_seq AND runs.status IN ('PENDING', 'RUNNING') RETURNING 1)"
#define TUTTI_INSERT_ENTRIES                                                                                      \
  "INSERT INTO journal (run_id, seq, time, kind, path, step_kind, attempt, target, error_code, entry) SELECT "    \
  "unnest($9::text[]), unnest($10::bigint[]), unnest($11::bigint[]), unnest($12::text[]), unnest($13::text[]), "  \
  "unnest($14::text[]), unnest($15::bigint[]), unnest($16::text[]), unnest($17::bigint[]), unnest($18::bytea[]) " \
  "WHERE 1 / (CASE WHEN (SELECT count(*) FROM head) = $1::bigint THEN 1 ELSE 0 END) = 1"

// Most appends only move heads.
constexpr char kMoveHeads[] = "WITH " TUTTI_MOVE_HEADS TUTTI_FROM_HEADS TUTTI_HEADS_AS_SEEN " " TUTTI_INSERT_ENTRIES;

// Values of indexed columns that stay as they are leave the indexes alone. $19 to $28: what else changes in a run's
// row; $29 to $41: what was consumed.
constexpr int kChangeRunsParameters = 41;
constexpr char kChangeRunsParts[] = TUTTI_MOVE_HEADS
    ", calls = runs.calls + h.calls, input_tokens = runs.input_tokens + h.input_tokens, output_tokens = "
    "runs.output_tokens + h.output_tokens, cost_nano_units = runs.cost_nano_units + h.cost_nano_units, status = "
    "h.status, start_time = h.start_time, end_time = CASE WHEN h.end_time = 0 OR h.end_time > runs.create_time THEN "
    "h.end_time ELSE runs.create_time END, error_code = CASE WHEN h.end_time = 0 THEN "
    "runs.error_code ELSE h.error_code END, output = CASE WHEN h.end_time = 0 THEN runs.output ELSE NULLIF(h.output, "
    "''::bytea) END, error = CASE WHEN h.end_time = 0 THEN runs.error ELSE NULLIF(h.error, ''::bytea) "
    "END" TUTTI_FROM_HEADS
    ", unnest($19::bigint[]) AS calls, unnest($20::bigint[]) AS input_tokens, unnest($21::bigint[]) AS output_tokens, "
    "unnest($22::bigint[]) AS cost_nano_units, unnest($23::text[]) AS status, unnest($24::bigint[]) AS start_time, "
    "unnest($25::bigint[]) AS end_time, unnest($26::bigint[]) AS error_code, unnest($27::bytea[]) AS output, "
    "unnest($28::bytea[]) AS error" TUTTI_HEADS_AS_SEEN
    ", used AS (INSERT INTO usage (run_id, seq, position, time, step_path, agent, provider, model, calls, "
    "input_tokens, output_tokens, cost_nano_units, currency_code) SELECT unnest($29::text[]), unnest($30::bigint[]), "
    "unnest($31::bigint[]), unnest($32::bigint[]), unnest($33::text[]), unnest($34::text[]), unnest($35::text[]), "
    "unnest($36::text[]), unnest($37::bigint[]), unnest($38::bigint[]), unnest($39::bigint[]), unnest($40::bigint[]), "
    "unnest($41::text[]))";

const std::string& ChangeRuns() {
  static const auto* sql = new std::string(absl::StrCat("WITH ", kChangeRunsParts, " " TUTTI_INSERT_ENTRIES));
  return *sql;
}
// With runs that are created.
const std::string& CreateAndChangeRuns() {
  static const auto* sql =
      new std::string(absl::StrCat("WITH ", Runs::NewRows::Parts(kChangeRunsParameters + 1), ", ", kChangeRunsParts,
                                   ", entries AS (" TUTTI_INSERT_ENTRIES ") SELECT run_id, create_time FROM created"));
  return *sql;
}

absl::Status Journal::WriteAtOnce(Transaction& tx, const Heads& heads, const Batch& batch, const Creations& creations) {
  ColumnRows runs("tiiiiii"), changes("iiiitiiibb"), entries("tiitttitib"), usage("tiiittttiiiit");
  int64_t written = 0;
  bool more = false, changed = false;  // statements to come; what not only moves the head
  // Rows are locked in one order everywhere: replicas do not wait for each other in a circle.
  for (const auto& [run_id, of] : InOrder(heads)) {
    const Head& head = *of;
    ++written;
    more |= head.parked || (head.ended && !head.parent_run_id.empty());
    changed |= head.used || head.turned || head.ended;
    runs.Add(run_id, head.lease_epoch, head.seen_seq, head.seen_writer_seq, head.last_seq, head.last_writer_seq,
             head.progress);
    changes.Add(head.calls, head.input_tokens, head.output_tokens, head.cost_nano_units, head.status, head.start_time,
                head.end_time, head.error_code, head.output, head.error);
  }
  if (written == 0 && creations.empty()) return absl::OkStatus();
  for (const auto& row : batch.rows) {
    entries.Add(row.run_id, row.seq, row.time, row.key.kind, row.key.path, row.key.step_kind, row.key.attempt,
                row.key.target, row.key.error_code, row.cell);
    int position = 0;
    for (const auto& used : *row.key.usage) {
      usage.Add(row.run_id, row.seq, position++, row.time, row.key.path, used.agent(), used.provider(), used.model(),
                used.calls(), used.input_tokens(), used.output_tokens(), used.cost_nano_units(), used.currency_code());
    }
  }
  if (creations.empty()) {
    Statement all = tx.Prepare(changed ? absl::string_view(ChangeRuns()) : kMoveHeads);
    all.Bind(written);
    runs.BindTo(all);
    entries.BindTo(all);
    if (changed) {
      changes.BindTo(all);
      usage.BindTo(all);
    }
    return more ? all.Run() : all.RunAndCommit();
  }
  TUTTI_ASSIGN_OR_RETURN(Runs::NewRows rows, runs_.RowsOf(tx, creations));
  absl::flat_hash_map<std::string, int64_t> created;
  {
    Statement all = tx.Prepare(written == 0 ? Runs::NewRows::Sql() : CreateAndChangeRuns());
    if (written > 0) {
      all.Bind(written);
      runs.BindTo(all);
      entries.BindTo(all);
      changes.BindTo(all);
      usage.BindTo(all);
    }
    rows.BindTo(all);
    for (bool row = more ? all.Step() : all.StepAndCommit(); row; row = all.Step()) {
      created[all.Text(0)] = all.Int(1);
    }
    TUTTI_RETURN_IF_ERROR(all.status());
  }
  return runs_.AnswerAll(tx, creations, std::move(created));
}

}  // namespace tutti::state_manager
