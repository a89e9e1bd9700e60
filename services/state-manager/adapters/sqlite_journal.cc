// Journals: the append with its checks and projections, and the reads.
#include <google/protobuf/repeated_ptr_field.h>

#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/state-manager/adapters/sqlite_rows.h"
#include "services/state-manager/adapters/sqlite_store_access.h"

namespace tutti::state_manager {
namespace {

struct EntryKey {
  const char* kind;
  std::string path;
  const google::protobuf::RepeatedPtrField<tutti::type::v1::ModelUsage>* usage = nullptr;
};

EntryKey KeyOf(const v1::JournalEntry& entry) {
  switch (entry.entry_case()) {
    case v1::JournalEntry::kRunStarted:
      return {"run_started", ""};
    case v1::JournalEntry::kStepStarted:
      return {"step_started", entry.step_started().path()};
    case v1::JournalEntry::kStepCompleted:
      return {"step_completed", entry.step_completed().path(), &entry.step_completed().usage()};
    case v1::JournalEntry::kStepFailed:
      return {"step_failed", entry.step_failed().path(), &entry.step_failed().usage()};
    case v1::JournalEntry::kCancelRequested:
      return {"cancel_requested", ""};
    case v1::JournalEntry::kRunFinished:
      return {"run_finished", ""};
    default:
      return {"unknown", ""};
  }
}

// Money and tokens of one append, for the run's row.
struct UsageSum {
  int64_t calls = 0, input_tokens = 0, output_tokens = 0, cost_nano_units = 0;
};

absl::Status InsertUsage(SqliteDb& db, const std::string& run_id, const v1::JournalEntry& entry, const EntryKey& key,
                         UsageSum& sum) {
  if (key.usage == nullptr) return absl::OkStatus();
  int position = 0;
  for (const auto& usage : *key.usage) {
    Statement insert = db.Prepare("INSERT INTO usage VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)");
    insert.Bind(run_id).Bind(entry.seq()).Bind(position++).Bind(ToMicros(entry.time())).Bind(key.path);
    insert.Bind(usage.agent())
        .Bind(usage.provider())
        .Bind(usage.model())
        .Bind(usage.calls())
        .Bind(usage.input_tokens());
    insert.Bind(usage.output_tokens()).Bind(usage.cost_nano_units()).Bind(usage.currency_code());
    TUTTI_RETURN_IF_ERROR(insert.Run());
    sum.calls += usage.calls();
    sum.input_tokens += usage.input_tokens();
    sum.output_tokens += usage.output_tokens();
    sum.cost_nano_units += usage.cost_nano_units();
  }
  return absl::OkStatus();
}

absl::Status InsertEntry(SqliteDb& db, const std::string& run_id, const v1::JournalEntry& entry, const EntryKey& key) {
  Statement insert = db.Prepare("INSERT INTO journal VALUES (?,?,?,?,?,?)");
  insert.Bind(run_id).Bind(entry.seq()).Bind(ToMicros(entry.time())).Bind(key.kind).Bind(key.path);
  insert.BindBlob(entry.SerializeAsString());
  return insert.Run();
}

void Refuse(v1::AppendResponse& response, const absl::Status& status) {
  *response.mutable_status() = ToRpcStatus(status);
}

}  // namespace

absl::Status SqliteStore::ApplyAppend(SqliteDb& db, News& news, const v1::AppendRequest& request,
                                      v1::AppendResponse& response) {
  response.Clear();
  int64_t last_seq = 0, last_writer_seq = 0;
  {
    Statement row = db.Prepare("SELECT lease_epoch, last_seq, last_writer_seq, outcome FROM runs WHERE run_id = ?");
    row.Bind(request.run_id());
    if (!row.Step()) {
      TUTTI_RETURN_IF_ERROR(row.status());
      Refuse(response, Error(absl::StatusCode::kNotFound, "RUN_NOT_FOUND",
                             absl::StrCat("run ", request.run_id(), " does not exist")));
      return absl::OkStatus();
    }
    last_seq = row.Int(1);
    last_writer_seq = row.Int(2);
    if (row.Int(0) != request.lease_epoch()) {
      Refuse(response, Error(absl::StatusCode::kAborted, "LEASE_LOST",
                             absl::StrCat("run ", request.run_id(), " is leased under epoch ", row.Int(0), ", not ",
                                          request.lease_epoch())));
      return absl::OkStatus();
    }
    int64_t last_of_request = request.writer_seq() + request.entries_size() - 1;
    if (last_of_request <= last_writer_seq) {  // committed before; the answer was lost
      response.set_last_seq(last_seq);
      return absl::OkStatus();
    }
    if (row.Int(3) != 0) {
      Refuse(response, Error(absl::StatusCode::kFailedPrecondition, "RUN_ENDED",
                             absl::StrCat("run ", request.run_id(), " has ended")));
      return absl::OkStatus();
    }
    if (request.writer_seq() != last_writer_seq + 1) {
      Refuse(response, Error(absl::StatusCode::kFailedPrecondition, "JOURNAL_GAP",
                             absl::StrCat("run ", request.run_id(), ": writer_seq ", request.writer_seq(), " after ",
                                          last_writer_seq)));
      return absl::OkStatus();
    }
  }
  UsageSum sum;
  int progress = 0;
  bool started = false;
  const v1::RunFinished* finished = nullptr;
  int64_t end_time = 0;
  for (const auto& given : request.entries()) {
    v1::JournalEntry entry = given;
    entry.set_seq(++last_seq);
    EntryKey key = KeyOf(entry);
    TUTTI_RETURN_IF_ERROR(InsertEntry(db, request.run_id(), entry, key));
    TUTTI_RETURN_IF_ERROR(InsertUsage(db, request.run_id(), entry, key, sum));
    progress = std::max(progress, entry.progress_percent());
    started |= entry.has_run_started();
    if (given.has_run_finished()) {
      finished = &given.run_finished();
      end_time = ToMicros(given.time());
    }
  }
  Statement update = db.Prepare(
      "UPDATE runs SET last_seq = ?, last_writer_seq = ?, progress_percent = max(progress_percent, ?), started = "
      "started | ?, "
      "calls = calls + ?, input_tokens = input_tokens + ?, output_tokens = output_tokens + ?, "
      "cost_nano_units = cost_nano_units + ? WHERE run_id = ?");
  update.Bind(last_seq).Bind(request.writer_seq() + request.entries_size() - 1).Bind(progress).Bind(started ? 1 : 0);
  update.Bind(sum.calls)
      .Bind(sum.input_tokens)
      .Bind(sum.output_tokens)
      .Bind(sum.cost_nano_units)
      .Bind(request.run_id());
  TUTTI_RETURN_IF_ERROR(update.Run());
  if (finished != nullptr) {
    Statement end = db.Prepare("UPDATE runs SET outcome = ?, output = ?, error = ?, end_time = ? WHERE run_id = ?");
    end.Bind(static_cast<int64_t>(finished->outcome())).BindBlob(finished->output().data());
    end.BindBlob(finished->has_error() ? finished->error().SerializeAsString() : "")
        .Bind(end_time)
        .Bind(request.run_id());
    TUTTI_RETURN_IF_ERROR(end.Run());
  }
  response.set_last_seq(last_seq);
  news.appended.push_back(request.run_id());
  return absl::OkStatus();
}

Task<absl::StatusOr<v1::ReadJournalResponse>> SqliteStore::ReadJournal(Executor& executor, std::string run_id,
                                                                       int64_t after_seq, int limit) {
  auto query = [&](SqliteDb& db) -> absl::StatusOr<v1::ReadJournalResponse> {
    v1::ReadJournalResponse out;
    Statement rows = db.Prepare("SELECT entry FROM journal WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?");
    rows.Bind(run_id).Bind(after_seq).Bind(limit);
    size_t bytes = 0;
    while (rows.Step()) {
      std::string entry = rows.Text(0);
      bytes += entry.size();
      if (out.entries_size() > 0 && bytes > (1 << 20)) break;  // a page stays well below the message limit
      out.add_entries()->ParseFromString(entry);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    if (out.entries().empty()) {
      Statement run = db.Prepare("SELECT 1 FROM runs WHERE run_id = ?");
      run.Bind(run_id);
      if (!run.Step()) {
        TUTTI_RETURN_IF_ERROR(run.status());
        return Error(absl::StatusCode::kNotFound, "RUN_NOT_FOUND",
                     absl::StrCat("run ", run_id, " does not exist; `tutti runs list` shows those that do"))
            .Metadata("run_id", run_id);
      }
    }
    return out;
  };
  auto answer = co_await Read<v1::ReadJournalResponse>(executor, query);
  co_return std::move(answer);
}

}  // namespace tutti::state_manager
