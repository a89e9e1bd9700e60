// What goes into the audit log of a call: as a rule within the transaction of what it did, of a refusal by itself.
#pragma once

#include "runtime/rpc/server_calls.h"
#include "services/state-manager/store/access.h"
#include "services/state-manager/store/audit.h"

namespace tutti::state_manager {

// That `action` on `resource` went well.
tutti::state::v1::AppendAuditRecordRequest AuditNote(const CallContext& call, absl::string_view action,
                                                     absl::string_view resource);

// Of an act that ended with `why`: when that is a refusal (not a fault, or a request that means nothing), it is noted
// as the outcome. `home` is where the log is. Returns `why`.
Task<absl::Status> NoteRefusal(Access& home, const AuditLog& audit, CallContext& call,
                               tutti::state::v1::AppendAuditRecordRequest note, absl::Status why);

}  // namespace tutti::state_manager
