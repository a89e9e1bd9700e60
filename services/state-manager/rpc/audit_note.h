// What goes into the audit log of a call: as a rule within the transaction of what it did, of a refusal by itself.
#pragma once

#include "runtime/rpc/server_calls.h"
#include "services/state-manager/store/access.h"
#include "services/state-manager/store/audit.h"

namespace tutti::state_manager {

// The tenant of `tenants/acme/…`; empty for others.
std::string TenantOfScope(absl::string_view scope);

// Whose the resource of a request is, where the request says it.
template <class Request>
std::string TenantOf(const Request& request) {
  if constexpr (requires { request.tenant(); }) {
    return request.tenant();
  } else if constexpr (requires { request.session().tenant(); }) {
    return request.session().tenant();
  } else if constexpr (requires { request.filter().tenant(); }) {
    return request.filter().tenant();
  } else if constexpr (requires { request.budget().scope(); }) {
    return TenantOfScope(request.budget().scope());
  } else if constexpr (requires { request.scope(); }) {
    return TenantOfScope(request.scope());
  } else {
    return "";
  }
}

// That `action` on `resource` went well.
tutti::state::v1::AppendAuditRecordRequest AuditNote(const CallContext& call, absl::string_view action,
                                                     absl::string_view resource, absl::string_view tenant = "");

// Of an act that ended with `why`: when that is a refusal (not a fault, or a request that means nothing), it is noted
// as the outcome. `home` is where the log is. Returns `why`.
Task<absl::Status> NoteRefusal(Access& home, const AuditLog& audit, CallContext& call,
                               tutti::state::v1::AppendAuditRecordRequest note, absl::Status why);

}  // namespace tutti::state_manager
