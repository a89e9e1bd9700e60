// Messages from one database of a store to another (a transactional outbox): written with what causes them, delivered
// at least once, worked on once.
#pragma once

#include <string>
#include <vector>

#include "runtime/random/random.h"
#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/audit.h"
#include "services/state-manager/store/ledger.h"

namespace tutti::state_manager {

class Outbox {
 public:
  enum class Kind { kReserve, kSettle, kAudit, kForgetRequest };
  struct Message {
    std::string id;
    size_t target = 0;
    std::string kind, body;
  };

  Outbox(const Ledger& ledger, const AuditLog& audit, IdSource& ids) : ledger_(ledger), audit_(audit), ids_(ids) {}

  // For the database `target`; `body` is a v1::Reservation, v1::Settlement, v1::AppendAuditRecordRequest or
  // v1::StoredRun (of which the tenant, the request id and, as the time of its removal, end_time count).
  absl::Status Post(Transaction& tx, size_t target, Kind kind, const std::string& body) const;
  // The oldest for a target, up to `limit`.
  absl::StatusOr<std::vector<Message>> Pending(Transaction& tx, size_t target, int64_t limit) const;
  // In the target's database. What the message's own work refuses is dropped and named in `refused`: it would be
  // refused for ever.
  absl::Status Deliver(Transaction& tx, const std::vector<Message>& messages, std::vector<absl::Status>& refused) const;
  // Back in the sender's.
  absl::Status Remove(Transaction& tx, const std::vector<Message>& messages) const;
  // Forgets what was delivered long ago.
  absl::StatusOr<int64_t> TrimInbox(Transaction& tx, int64_t limit) const;

 private:
  absl::Status Work(Transaction& tx, const Message& message) const;
  const Ledger& ledger_;
  const AuditLog& audit_;
  IdSource& ids_;
};

}  // namespace tutti::state_manager
