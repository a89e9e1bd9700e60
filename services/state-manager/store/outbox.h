// Messages from one database of a store to another, or to itself later (a transactional outbox): written with what
// causes them, delivered at least once, worked on once (deliveries.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "runtime/random/random.h"
#include "services/state-manager/ports/database.h"
#include "tutti/state/v1/message_service.pb.h"

namespace tutti::state_manager {

class Outbox {
 public:
  enum class Kind { kReserve, kSettle, kAudit, kForgetRequest, kSignal };
  struct Message {
    std::string id;
    size_t target = 0;
    std::string kind, body;
  };
  // As it is stored.
  static const char* NameOf(Kind kind);
  // Of a message's kind; nothing: a later version has posted it.
  static std::optional<Kind> KindOf(absl::string_view name);

  // `shards`: how many databases there are.
  Outbox(IdSource& ids, size_t shards) : ids_(ids), shards_(shards) {}

  // For the database `target`; `body` is a v1::Reservation, v1::Settlement, v1::AppendAuditRecordRequest, v1::StoredRun
  // (of which the tenant, the request id and, as the time of its removal, end_time count) or v1::SignalRunRequest.
  absl::Status Post(Transaction& tx, size_t target, Kind kind, const std::string& body) const;
  // Tells the run that waits for another of its end, by the signal `child/RUN_ID`. Who has ended it does so as well and
  // at once: only what it did not come to do is left to the message.
  absl::Status TellParent(Transaction& tx, const std::string& parent_run_id, absl::string_view run_id) const;
  // Those for a target that come after `after`, the oldest first, up to `limit`; signals that were posted more than
  // kGrace ago; refused ones when their pause is over.
  absl::StatusOr<std::vector<Message>> Pending(Transaction& tx, size_t target, const std::string& after,
                                               int64_t limit) const;
  static constexpr absl::Duration kGrace = absl::Seconds(2);
  // Notes that the message was refused. True: it is set aside, and not pending any more.
  absl::StatusOr<bool> NoteRefusal(Transaction& tx, const std::string& id, const absl::Status& refusal) const;
  // Messages that are set aside, from one after `request.page_token()` on.
  absl::Status ListSetAside(Transaction& tx, const tutti::state::v1::ListSetAsideMessagesRequest& request,
                            tutti::state::v1::ListSetAsideMessagesResponse& response) const;
  // The message is pending again. False: no message of this id is set aside here.
  absl::StatusOr<bool> Retry(Transaction& tx, const std::string& id) const;
  // When they are delivered.
  absl::Status Remove(Transaction& tx, const std::vector<Message>& messages) const;

 private:
  IdSource& ids_;
  const size_t shards_;
};

}  // namespace tutti::state_manager
