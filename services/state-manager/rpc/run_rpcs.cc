// Runs: each in its own database; lists and sums over all of them.
#include <algorithm>
#include <map>

#include "runtime/async/when_all.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {

// The request is claimed first, then its run created: a caller that dies between the two leaves a claim under which the
// next one creates the run.
Task<absl::StatusOr<bool>> RunStoreRpc::ClaimRequest(CallContext& call, v1::StoredRun& run) {
  if (!shards_.spread() || run.request_id().empty()) co_return true;
  std::string key = Runs::RequestKey(run);
  auto claim = [&runs = runs_, run](Transaction& tx, std::string& out) {
    auto claimed = runs.ClaimRequest(tx, run);
    if (absl::IsAborted(claimed.status())) claimed = runs.ClaimRequest(tx, run);  // its claim has just gone
    if (claimed.ok()) out = *std::move(claimed);
    return claimed.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(std::string run_id, co_await shards_.Of(key).Write<std::string>(
                                                    *call.executor, call.deadline, LaneOf(key), std::move(claim)));
  bool mine = run_id == run.run_id();
  run.set_run_id(run_id);
  co_return mine;
}

TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, CreateRun) {
  v1::CreateRunRequest create = request;
  TUTTI_CO_ASSIGN_OR_RETURN(bool mine, co_await ClaimRequest(call, *create.mutable_run()));
  // Another's run may be another database's and its engine unknown here, so that it is nobody's until it is claimed.
  if (!mine) create.clear_owner();
  auto begin = [&journal = journal_, &create](Database& database, auto done) {
    journal.Create(database, std::move(create), std::move(done));
  };
  TUTTI_CO_ASSIGN_OR_RETURN(
      response,
      co_await shards_.Of(create.run().run_id()).Await<v1::CreateRunResponse>(*call.executor, call.deadline, begin));
  if (!mine) response.set_created(false);
  co_return absl::OkStatus();
}

// The original's entries are read in its database and written in the new run's: large contents that are there already
// are referred to, not stored again.
TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, ForkRun) {
  v1::ForkRunRequest fork = request;
  TUTTI_CO_ASSIGN_OR_RETURN(bool mine, co_await ClaimRequest(call, *fork.mutable_run()));
  using Entries = std::vector<v1::JournalEntry>;
  auto read = [&control = control_, request](Transaction& tx, Entries& out) {
    auto entries = control.EntriesBefore(tx, request.run_id(), request.from_step());
    if (entries.ok()) out = *std::move(entries);
    return entries.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(Entries entries,
                            co_await shards_.Of(request.run_id())
                                .Read<Entries>(*call.executor, call.deadline, /*allow_stale=*/false, std::move(read)));
  v1::AppendAuditRecordRequest note = AuditNote(call, "runs.fork", absl::StrCat("runs/", request.run_id()));
  auto body = [this, fork, note, entries = std::move(entries)](Transaction& tx, v1::ForkRunResponse& out) {
    absl::Status done = control_.ForkRun(tx, fork, entries, out);
    return done.ok() && out.created() ? Note(tx, fork.run().run_id(), note) : done;
  };
  const std::string& run_id = fork.run().run_id();
  auto done = co_await shards_.Of(run_id).Write<v1::ForkRunResponse>(*call.executor, call.deadline, LaneOf(run_id),
                                                                     std::move(body));
  if (!done.ok()) {
    absl::Status refused = co_await NoteRefusal(shards_.at(0), audit_, call, note, done.status());
    co_return refused;
  }
  response = *std::move(done);
  if (!mine) response.set_created(false);
  co_return absl::OkStatus();
}

TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, GetRun) {
  auto body = [&runs = runs_, request](Transaction& tx, v1::GetRunResponse& out) {
    return runs.GetRun(tx, request, out);
  };
  TUTTI_CO_ASSIGN_OR_RETURN(response, co_await shards_.Of(request.run_id())
                                          .Read<v1::GetRunResponse>(*call.executor, call.deadline,
                                                                    /*allow_stale=*/false, std::move(body)));
  co_return absl::OkStatus();
}

// At home in the log itself, elsewhere as a message to it.
absl::Status RunStoreRpc::Note(Transaction& tx, const std::string& run_id, v1::AppendAuditRecordRequest note) const {
  {
    Statement row = tx.Prepare("SELECT tenant FROM runs WHERE run_id = $1");
    row.Bind(run_id);
    if (row.Step()) note.mutable_record()->set_tenant(row.Text(0));
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  if (shards_.IndexOf(run_id) != 0) return outbox_.Post(tx, 0, Outbox::Kind::kAudit, note.SerializeAsString());
  v1::AppendAuditRecordResponse noted;
  return audit_.AppendAuditRecord(tx, note, noted);
}

// The record of it is written with it.
template <class Request, class Response>
Task<absl::Status> RunStoreRpc::Control(CallContext& call, const Request& request, Response& response,
                                        absl::string_view action,
                                        absl::Status (RunControl::*method)(Transaction&, const Request&, Response&)
                                            const) {
  v1::AppendAuditRecordRequest note = AuditNote(call, action, absl::StrCat("runs/", request.run_id()));
  auto body = [this, request, note, method](Transaction& tx, Response& out) -> absl::Status {
    TUTTI_RETURN_IF_ERROR((control_.*method)(tx, request, out));
    return Note(tx, request.run_id(), note);
  };
  auto done = co_await shards_.Of(request.run_id())
                  .template Write<Response>(*call.executor, call.deadline, LaneOf(request.run_id()), std::move(body));
  if (done.ok()) {
    response = *std::move(done);
    co_return absl::OkStatus();
  }
  absl::Status refused = co_await NoteRefusal(shards_.at(0), audit_, call, note, done.status());
  co_return refused;
}

TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, RequestCancel) {
  absl::Status done = co_await Control(call, request, response, "runs.cancel", &RunControl::RequestCancel);
  co_return done;
}
TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, TerminateRun) {
  absl::Status done = co_await Control(call, request, response, "runs.terminate", &RunControl::TerminateRun);
  journal_.ForgetRemembered(request.run_id());
  co_return done;
}
TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, SetRunPaused) {
  absl::Status done = co_await Control(call, request, response, request.paused() ? "runs.pause" : "runs.resume",
                                       &RunControl::SetRunPaused);
  co_return done;
}
TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, ReopenRun) {
  absl::Status done = co_await Control(call, request, response, "runs.retry", &RunControl::ReopenRun);
  co_return done;
}
// Signals are not in the audit log: they are in the run's own history, with their sender, and many.
TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, SignalRun) {
  auto body = [&control = control_, request](Transaction& tx, v1::SignalRunResponse& out) {
    return control.SignalRun(tx, request, out);
  };
  TUTTI_CO_ASSIGN_OR_RETURN(response, co_await shards_.Of(request.run_id())
                                          .Write<v1::SignalRunResponse>(*call.executor, call.deadline,
                                                                        LaneOf(request.run_id()), std::move(body)));
  co_return absl::OkStatus();
}

TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, ListRuns) {
  using Page = v1::ListRunsResponse;
  auto body = [&runs = runs_, request](Transaction& tx, Page& out) { return runs.ListRuns(tx, request, out); };
  std::vector<Task<absl::StatusOr<Page>>> reads;
  for (size_t i = 0; i < shards_.size(); ++i) {
    reads.push_back(shards_.at(i).Read<Page>(*call.executor, call.deadline, /*allow_stale=*/true, body));
  }
  auto pages = co_await WhenAll(std::move(reads));
  std::vector<v1::StoredRun> all;
  size_t page_size = static_cast<size_t>(std::clamp(request.page_size(), 1, 1000));
  for (auto& page : pages) {
    TUTTI_CO_RETURN_IF_ERROR(page.status());
    response.set_has_more(response.has_more() || page->has_more());
    for (auto& run : *page->mutable_runs()) all.push_back(std::move(run));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.run_id() > b.run_id(); });
  if (all.size() > page_size) {
    all.resize(page_size);
    response.set_has_more(true);
  }
  for (auto& run : all) *response.add_runs() = std::move(run);
  co_return absl::OkStatus();
}

// Sums of the databases' sums. Each brings its largest groups, so that one beyond the page in all of them may be
// missing.
TUTTI_STORE_ENTRY_(RunStoreRpc, RunStoreService, ListUsage) {
  using Page = v1::ListUsageResponse;
  v1::ListUsageRequest wide = request;
  if (shards_.spread()) wide.set_page_size(1000);
  auto body = [&runs = runs_, wide](Transaction& tx, Page& out) { return runs.ListUsage(tx, wide, out); };
  std::vector<Task<absl::StatusOr<Page>>> reads;
  for (size_t i = 0; i < shards_.size(); ++i) {
    reads.push_back(shards_.at(i).Read<Page>(*call.executor, call.deadline, /*allow_stale=*/true, body));
  }
  auto pages = co_await WhenAll(std::move(reads));
  std::map<std::string, tutti::state::v1::ListUsageResponse::Row> rows;
  for (auto& page : pages) {
    TUTTI_CO_RETURN_IF_ERROR(page.status());
    for (const auto& row : page->rows()) {
      auto& sum = rows[row.key()];
      sum.set_key(row.key());
      auto* totals = sum.mutable_totals();
      totals->set_calls(totals->calls() + row.totals().calls());
      totals->set_input_tokens(totals->input_tokens() + row.totals().input_tokens());
      totals->set_output_tokens(totals->output_tokens() + row.totals().output_tokens());
      totals->set_cost_nano_units(totals->cost_nano_units() + row.totals().cost_nano_units());
      totals->set_currency_code(row.totals().currency_code());
    }
  }
  for (auto& [key, row] : rows) *response.add_rows() = std::move(row);
  std::stable_sort(response.mutable_rows()->begin(), response.mutable_rows()->end(), [](const auto& a, const auto& b) {
    return std::pair(a.totals().cost_nano_units(), a.totals().output_tokens()) >
           std::pair(b.totals().cost_nano_units(), b.totals().output_tokens());
  });
  int most = std::clamp(request.page_size(), 1, 1000);
  if (response.rows_size() > most) response.mutable_rows()->DeleteSubrange(most, response.rows_size() - most);
  co_return absl::OkStatus();
}

}  // namespace tutti::state_manager
