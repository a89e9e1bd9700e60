#include "services/state-manager/store/outbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/random/ulid.h"
#include "runtime/status/macros.h"
#include "runtime/text/utf8.h"
#include "services/state-manager/domain/attempts.h"
#include "services/state-manager/domain/child_end.h"
#include "services/state-manager/store/rows.h"
#include "services/state-manager/store/shards.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMostRefusal = 1000;

constexpr std::pair<Outbox::Kind, const char*> kNames[] = {{Outbox::Kind::kReserve, "reserve"},
                                                           {Outbox::Kind::kSettle, "settle"},
                                                           {Outbox::Kind::kAudit, "audit"},
                                                           {Outbox::Kind::kForgetRequest, "forget_request"},
                                                           {Outbox::Kind::kSignal, "signal"}};

}  // namespace

const char* Outbox::NameOf(Kind kind) {
  return std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& known) { return known.first == kind; })
      ->second;
}

std::optional<Outbox::Kind> Outbox::KindOf(absl::string_view name) {
  for (const auto& [kind, known] : kNames) {
    if (name == known) return kind;
  }
  return std::nullopt;
}

absl::Status Outbox::Post(Transaction& tx, size_t target, Kind kind, const std::string& body) const {
  tx.Announce({News::Kind::kOutbox, "", ""});
  return tx.Prepare("INSERT INTO outbox (message_id, target, kind, body) VALUES ($1, $2, $3, $4)")
      .BindAll(ids_.NewUlid(), static_cast<int64_t>(target), NameOf(kind), SqlArg::Bytes(body))
      .Run();
}

absl::Status Outbox::TellParent(Transaction& tx, const std::string& parent_run_id, absl::string_view run_id) const {
  tutti::state::v1::SignalRunRequest signal;
  signal.set_run_id(parent_run_id);
  signal.mutable_signal()->set_name(ChildEndSignal(run_id));
  signal.mutable_signal()->set_request_id(signal.signal().name());
  return Post(tx, ShardOf(parent_run_id, shards_), Kind::kSignal, signal.SerializeAsString());
}

absl::StatusOr<std::vector<Outbox::Message>> Outbox::Pending(Transaction& tx, size_t target, const std::string& after,
                                                             int64_t limit) const {
  std::vector<Message> out;
  Statement rows = tx.Prepare(
      "SELECT message_id, target, kind, body FROM outbox WHERE target = $1 AND message_id > $2 AND (kind <> 'signal' "
      "OR message_id < $3) AND set_aside_time = 0 AND try_time <= $5 ORDER BY message_id LIMIT $4");
  const int64_t now = tx.NowMicros();
  const std::string due = FirstUlidOf(absl::FromUnixMicros(now) - kGrace);
  rows.BindAll(static_cast<int64_t>(target), after, due, limit, now);
  while (rows.Step()) out.push_back({rows.Text(0), static_cast<size_t>(rows.Int(1)), rows.Text(2), rows.Bytes(3)});
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::StatusOr<bool> Outbox::NoteRefusal(Transaction& tx, const std::string& id, const absl::Status& refusal) const {
  const int64_t now = tx.NowMicros();
  Statement row = tx.Prepare(
      "SELECT attempts FROM outbox WHERE message_id = $1 AND set_aside_time = 0 AND try_time <= $2 FOR UPDATE");
  row.BindAll(id, now);
  if (!row.Step()) {  // another replica has delivered the message, noted its refusal, or set it aside
    TUTTI_RETURN_IF_ERROR(row.status());
    return false;
  }
  const int64_t attempts = row.Int(0) + 1;
  const std::optional<absl::Duration> pause = PauseAfter(attempts);
  const std::string text = CleanUtf8(refusal.ToString(absl::StatusToStringMode::kWithNoExtraData));
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare("UPDATE outbox SET attempts = $2, try_time = $3, set_aside_time = $4, refusal = $5 WHERE message_id = "
                 "$1")
          .BindAll(id, attempts, pause ? now + absl::ToInt64Microseconds(*pause) : 0, pause ? 0 : now,
                   std::string(Utf8Prefix(text, kMostRefusal)))
          .Run());
  return !pause.has_value();
}

absl::Status Outbox::ListSetAside(Transaction& tx, const tutti::state::v1::ListSetAsideMessagesRequest& request,
                                  tutti::state::v1::ListSetAsideMessagesResponse& response) const {
  Statement rows = tx.Prepare(
      "SELECT message_id, kind, attempts, set_aside_time, refusal FROM outbox WHERE set_aside_time > 0 AND message_id "
      "> "
      "$1 ORDER BY message_id LIMIT $2");
  rows.BindAll(request.page_token(), request.page_size());
  while (rows.Step()) {
    auto* message = response.add_messages();
    message->set_message_id(rows.Text(0));
    message->set_kind(rows.Text(1));
    message->set_attempts(static_cast<int32_t>(rows.Int(2)));
    SetMicros(rows.Int(3), message->mutable_set_aside_time());
    message->set_error(rows.Text(4));
  }
  return rows.status();
}

absl::StatusOr<bool> Outbox::Retry(Transaction& tx, const std::string& id) const {
  tx.Announce({News::Kind::kOutbox, "", ""});
  Statement again = tx.Prepare(
      "UPDATE outbox SET attempts = 0, try_time = 0, set_aside_time = 0 WHERE message_id = $1 AND set_aside_time > 0");
  TUTTI_RETURN_IF_ERROR(again.BindAll(id).Run());
  return again.Changes() > 0;
}

absl::Status Outbox::Remove(Transaction& tx, const std::vector<Message>& messages) const {
  std::vector<std::string> ids;
  for (const Message& message : messages) ids.push_back(message.id);
  Statement remove = tx.Prepare("DELETE FROM outbox WHERE message_id = ANY($1)");
  return remove.BindList(ids).Run();
}

}  // namespace tutti::state_manager
