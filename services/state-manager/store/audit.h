// The audit log. Each record's hash is SHA-256 over the hash of the record before it (32 zero bytes before the first)
// and the record's fields, each preceded by its length as 8 bytes, big endian: seq and time as decimal digits, then
// tenant, actor, action, resource, origin, outcome, details. Records are verified from outside by this rule alone.
#pragma once

#include <string>

#include "services/state-manager/ports/database.h"
#include "tutti/state/v1/audit_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class AuditLog {
 public:
  absl::Status AppendAuditRecord(Transaction& tx, const v1::AppendAuditRecordRequest& request,
                                 v1::AppendAuditRecordResponse& response) const;
  absl::Status ListAuditRecords(Transaction& tx, const v1::ListAuditRecordsRequest& request,
                                v1::ListAuditRecordsResponse& response) const;
  absl::Status VerifyAuditLog(Transaction& tx, const v1::VerifyAuditLogRequest& request,
                              v1::VerifyAuditLogResponse& response) const;
};

// The hash of `record` after `previous`; `details` as stored.
std::string AuditHash(absl::string_view previous, const v1::AuditRecord& record, int64_t time_micros,
                      absl::string_view details);

}  // namespace tutti::state_manager
