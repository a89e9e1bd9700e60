// What comes out of outboxes, in the database that it is for: each message is worked on once, however often it comes.
#pragma once

#include <string>
#include <vector>

#include "services/state-manager/store/audit.h"
#include "services/state-manager/store/ledger.h"
#include "services/state-manager/store/outbox.h"
#include "services/state-manager/store/run_control.h"

namespace tutti::state_manager {

class Deliveries {
 public:
  Deliveries(const Ledger& ledger, const AuditLog& audit, const RunControl& control)
      : ledger_(ledger), audit_(audit), control_(control) {}

  // What the message's work belongs together with; see LaneOf.
  static std::string LaneKey(const Outbox::Message& message);
  struct Refusal {
    std::string id;  // the message's
    absl::Status why;
  };
  // Works on each message once. `refused` names the messages whose work was refused; they may be delivered again.
  absl::Status Deliver(Transaction& tx, const std::vector<Outbox::Message>& messages,
                       std::vector<Refusal>& refused) const;
  // Forgets what was delivered long ago.
  absl::StatusOr<int64_t> Trim(Transaction& tx, int64_t limit) const;

 private:
  absl::Status Work(Transaction& tx, const Outbox::Message& message) const;
  const Ledger& ledger_;
  const AuditLog& audit_;
  const RunControl& control_;
};

}  // namespace tutti::state_manager
