#include "services/state-manager/store/outbox.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {
namespace {

// A replica that read a message before another one delivered and removed it must still find it here.
constexpr int64_t kKeepInbox = int64_t{86400} * 1000 * 1000;

const char* NameOf(Outbox::Kind kind) {
  switch (kind) {
    case Outbox::Kind::kReserve:
      return "reserve";
    case Outbox::Kind::kSettle:
      return "settle";
    case Outbox::Kind::kAudit:
      return "audit";
    default:
      return "forget_request";
  }
}

}  // namespace

absl::Status Outbox::Post(Transaction& tx, size_t target, Kind kind, const std::string& body) const {
  tx.Announce({News::Kind::kOutbox, "", ""});
  return tx.Prepare("INSERT INTO outbox (message_id, target, kind, body) VALUES ($1, $2, $3, $4)")
      .BindAll(ids_.NewUlid(), static_cast<int64_t>(target), NameOf(kind), SqlArg::Bytes(body))
      .Run();
}

absl::StatusOr<std::vector<Outbox::Message>> Outbox::Pending(Transaction& tx, size_t target, int64_t limit) const {
  std::vector<Message> out;
  Statement rows =
      tx.Prepare("SELECT message_id, target, kind, body FROM outbox WHERE target = $1 ORDER BY message_id LIMIT $2");
  rows.BindAll(static_cast<int64_t>(target), limit);
  while (rows.Step()) out.push_back({rows.Text(0), static_cast<size_t>(rows.Int(1)), rows.Text(2), rows.Bytes(3)});
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::Status Outbox::Work(Transaction& tx, const Message& message) const {
  if (message.kind == NameOf(Kind::kReserve)) {
    v1::Reservation reservation;
    reservation.ParseFromString(message.body);
    return ledger_.Keep(tx, reservation);
  }
  if (message.kind == NameOf(Kind::kSettle)) {
    v1::SettleRequest request;
    v1::SettleResponse response;
    request.mutable_settlement()->ParseFromString(message.body);
    return ledger_.Settle(tx, request, response);
  }
  if (message.kind == NameOf(Kind::kAudit)) {
    v1::AppendAuditRecordRequest request;
    v1::AppendAuditRecordResponse response;
    request.ParseFromString(message.body);
    return audit_.AppendAuditRecord(tx, request, response);
  }
  if (message.kind == NameOf(Kind::kForgetRequest)) {
    v1::StoredRun run;
    run.ParseFromString(message.body);
    return tx.Prepare("DELETE FROM run_requests WHERE tenant = $1 AND request_id = $2 AND use_time < $3")
        .BindAll(run.tenant(), run.request_id(), ToMicros(run.end_time()))
        .Run();
  }
  return absl::InvalidArgumentError(absl::StrCat("messages of kind ", message.kind, " are not known"));
}

absl::Status Outbox::Deliver(Transaction& tx, const std::vector<Message>& messages,
                             std::vector<absl::Status>& refused) const {
  refused.clear();
  for (const Message& message : messages) {
    Statement note = tx.Prepare("INSERT INTO inbox (message_id, time) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    TUTTI_RETURN_IF_ERROR(note.BindAll(message.id, tx.NowMicros()).Run());
    if (note.Changes() == 0) continue;
    absl::Status worked = Work(tx, message);
    TUTTI_RETURN_IF_ERROR(tx.failure());
    if (absl::IsAborted(worked)) return worked;  // raced: all of it is tried again
    if (!worked.ok()) refused.push_back(Prefix(worked, absl::StrCat("message ", message.id, ": ")));
  }
  return absl::OkStatus();
}

absl::Status Outbox::Remove(Transaction& tx, const std::vector<Message>& messages) const {
  std::vector<std::string> ids;
  for (const Message& message : messages) ids.push_back(message.id);
  Statement remove = tx.Prepare("DELETE FROM outbox WHERE message_id = ANY($1)");
  return remove.BindList(ids).Run();
}

absl::StatusOr<int64_t> Outbox::TrimInbox(Transaction& tx, int64_t limit) const {
  Statement remove =
      tx.Prepare("DELETE FROM inbox WHERE message_id IN (SELECT message_id FROM inbox WHERE time < $1 LIMIT $2)");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(tx.NowMicros() - kKeepInbox, limit).Run());
  return remove.Changes();
}

}  // namespace tutti::state_manager
