#include "services/state-manager/store/deliveries.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {
namespace {

// A replica that read a message before another one delivered and removed it must still find it here.
constexpr int64_t kKeepInbox = int64_t{86400} * 1000 * 1000;

bool IsSignal(const Outbox::Message& message) { return Outbox::KindOf(message.kind) == Outbox::Kind::kSignal; }

}  // namespace

std::string Deliveries::LaneKey(const Outbox::Message& message) {
  if (!IsSignal(message)) return Outbox::KindOf(message.kind) ? "ledger" : message.kind;
  v1::SignalRunRequest request;
  request.ParseFromString(message.body);
  return request.run_id();
}

absl::Status Deliveries::Work(Transaction& tx, const Outbox::Message& message) const {
  switch (*Outbox::KindOf(message.kind)) {
    case Outbox::Kind::kReserve: {
      v1::Reservation reservation;
      reservation.ParseFromString(message.body);
      return ledger_.Keep(tx, reservation);
    }
    case Outbox::Kind::kSettle: {
      v1::SettleRequest request;
      v1::SettleResponse response;
      request.mutable_settlement()->ParseFromString(message.body);
      return ledger_.Settle(tx, request, response);
    }
    case Outbox::Kind::kAudit: {
      v1::AppendAuditRecordRequest request;
      v1::AppendAuditRecordResponse response;
      request.ParseFromString(message.body);
      return audit_.AppendAuditRecord(tx, request, response);
    }
    case Outbox::Kind::kForgetRequest: {
      v1::StoredRun run;
      run.ParseFromString(message.body);
      return tx.Prepare("DELETE FROM run_requests WHERE tenant = $1 AND request_id = $2 AND use_time < $3")
          .BindAll(run.tenant(), run.request_id(), ToMicros(run.end_time()))
          .Run();
    }
    case Outbox::Kind::kSignal: {
      v1::SignalRunRequest request;
      v1::SignalRunResponse response;
      request.ParseFromString(message.body);
      // It was told mostly, and then the run's row is left alone: appends to it are under way.
      TUTTI_ASSIGN_OR_RETURN(bool told, RunControl::HasSignal(tx, request.run_id(), request.signal().request_id()));
      if (told) return absl::OkStatus();
      absl::Status status = control_.SignalRun(tx, request, response);
      // A run that has ended meanwhile, or is gone, waits for nothing.
      return absl::IsNotFound(status) || absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;
    }
  }
  return absl::OkStatus();
}

absl::Status Deliveries::Deliver(Transaction& tx, const std::vector<Outbox::Message>& messages,
                                 std::vector<Refusal>& refused) const {
  refused.clear();
  for (const Outbox::Message& message : messages) {
    // Of a later version: it waits for a state-manager that knows it.
    if (!Outbox::KindOf(message.kind))
      return absl::UnimplementedError(absl::StrCat("messages of kind ", message.kind, " are not known"));
    if (!IsSignal(message)) {  // a run knows its signals itself
      Statement note = tx.Prepare("INSERT INTO inbox (message_id, time) VALUES ($1, $2) ON CONFLICT DO NOTHING");
      TUTTI_RETURN_IF_ERROR(note.BindAll(message.id, tx.NowMicros()).Run());
      if (note.Changes() == 0) continue;
    }
    absl::Status worked = Work(tx, message);
    TUTTI_RETURN_IF_ERROR(tx.failure());
    if (absl::IsAborted(worked)) return worked;  // raced: all of it is tried again
    if (worked.ok()) continue;
    refused.push_back({message.id, worked});
    if (IsSignal(message)) continue;
    TUTTI_RETURN_IF_ERROR(tx.Prepare("DELETE FROM inbox WHERE message_id = $1").BindAll(message.id).Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Deliveries::Trim(Transaction& tx, int64_t limit) const {
  Statement remove =
      tx.Prepare("DELETE FROM inbox WHERE message_id IN (SELECT message_id FROM inbox WHERE time < $1 LIMIT $2)");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(tx.NowMicros() - kKeepInbox, limit).Run());
  return remove.Changes();
}

}  // namespace tutti::state_manager
