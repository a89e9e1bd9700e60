#include "services/state-manager/rpc/audit_note.h"

#include "absl/strings/strip.h"
#include "runtime/text/utf8.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMaxResource = 500;

bool IsRefusal(absl::StatusCode code) {
  return code == absl::StatusCode::kNotFound || code == absl::StatusCode::kAlreadyExists ||
         code == absl::StatusCode::kFailedPrecondition || code == absl::StatusCode::kPermissionDenied ||
         code == absl::StatusCode::kAborted;
}

}  // namespace

std::string TenantOfScope(absl::string_view scope) {
  if (!absl::ConsumePrefix(&scope, "tenants/")) return "";
  return std::string(scope.substr(0, scope.find('/')));
}

tutti::state::v1::AppendAuditRecordRequest AuditNote(const CallContext& call, absl::string_view action,
                                                     absl::string_view resource, absl::string_view tenant) {
  tutti::state::v1::AppendAuditRecordRequest out;
  auto* record = out.mutable_record();
  record->set_actor(call.actor);
  record->set_origin(call.origin);
  record->set_action(std::string(action));
  record->set_resource(std::string(Utf8Prefix(resource, kMaxResource)));
  record->set_outcome("ok");
  record->set_tenant(std::string(Utf8Prefix(tenant, kMaxResource)));
  return out;
}

Task<absl::Status> NoteRefusal(Access& home, const AuditLog& audit, CallContext& call,
                               tutti::state::v1::AppendAuditRecordRequest note, absl::Status why) {
  if (!IsRefusal(why.code())) co_return why;
  note.mutable_record()->set_outcome(absl::StatusCodeToString(why.code()));
  auto body = [&audit, note = std::move(note)](Transaction& tx, tutti::state::v1::AppendAuditRecordResponse& out) {
    return audit.AppendAuditRecord(tx, note, out);
  };
  auto noted = co_await home.Write<tutti::state::v1::AppendAuditRecordResponse>(*call.executor, call.deadline,
                                                                                LaneOf("audit"), std::move(body));
  (void)noted;  // nothing was done: that the log cannot be written now changes nothing of it
  co_return why;
}

}  // namespace tutti::state_manager
