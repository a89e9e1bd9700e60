#include "services/state-manager/store/outbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/random/ulid.h"
#include "runtime/status/macros.h"
#include "services/state-manager/domain/child_end.h"
#include "services/state-manager/store/shards.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace tutti::state_manager {
namespace {

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
      "OR "
      "message_id < $3) ORDER BY message_id LIMIT $4");
  const std::string due = FirstUlidOf(absl::FromUnixMicros(tx.NowMicros()) - kGrace);
  rows.BindAll(static_cast<int64_t>(target), after, due, limit);
  while (rows.Step()) out.push_back({rows.Text(0), static_cast<size_t>(rows.Int(1)), rows.Text(2), rows.Bytes(3)});
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::Status Outbox::Remove(Transaction& tx, const std::vector<Message>& messages) const {
  std::vector<std::string> ids;
  for (const Message& message : messages) ids.push_back(message.id);
  Statement remove = tx.Prepare("DELETE FROM outbox WHERE message_id = ANY($1)");
  return remove.BindList(ids).Run();
}

}  // namespace tutti::state_manager
