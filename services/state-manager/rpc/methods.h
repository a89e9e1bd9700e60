// The one shape of a unary method: its request goes to an area of the store, within a transaction or a read, and its
// answer comes back.
#pragma once

#include "absl/strings/str_cat.h"
#include "runtime/rpc/server_calls.h"
#include "runtime/status/macros.h"
#include "services/state-manager/rpc/audit_note.h"

namespace tutti::state_manager {

// In a service's class.
#define TUTTI_STORE_METHOD(Name) \
  Task<absl::Status> Handle##Name(CallContext& call, const v1::Name##Request& request, v1::Name##Response& response)

#define TUTTI_STORE_ENTRY_(Class, Service, Name)                                              \
  Task<absl::Status> Class::Handle##Name(CallContext& call, const v1::Name##Request& request, \
                                         v1::Name##Response& response)

// In its Offer.
#define TUTTI_OFFER(Class, Service, Name) \
  local.Add(env_, "tutti.state.v1." #Service "/" #Name, *this, &Class::Handle##Name)

// In its .cc. `area_` has a method of this name; writes with an equal `lane` (text) are committed in order.
#define TUTTI_WRITE_METHOD(Class, Service, Name, lane)                                                              \
  TUTTI_STORE_ENTRY_(Class, Service, Name) {                                                                        \
    auto body = [&area = area_, request](Transaction& tx, v1::Name##Response& out) {                                \
      return area.Name(tx, request, out);                                                                           \
    };                                                                                                              \
    TUTTI_CO_ASSIGN_OR_RETURN(response, co_await access_.Write<v1::Name##Response>(*call.executor, call.deadline,   \
                                                                                   LaneOf(lane), std::move(body))); \
    co_return absl::OkStatus();                                                                                     \
  }

// A write that leaves a record in the audit log, committed with it, or of its refusal: `action` on a resource, whose
// name is the pieces that follow.
#define TUTTI_AUDITED_METHOD(Class, Service, Name, lane, action, ...)                                             \
  TUTTI_STORE_ENTRY_(Class, Service, Name) {                                                                      \
    v1::AppendAuditRecordRequest note = AuditNote(call, action, absl::StrCat(__VA_ARGS__), TenantOf(request));    \
    auto body = [&area = area_, &audit = audit_, request, note](Transaction& tx, v1::Name##Response& out) {       \
      absl::Status done = area.Name(tx, request, out);                                                            \
      v1::AppendAuditRecordResponse noted;                                                                        \
      return done.ok() ? audit.AppendAuditRecord(tx, note, noted) : done;                                         \
    };                                                                                                            \
    auto done =                                                                                                   \
        co_await access_.Write<v1::Name##Response>(*call.executor, call.deadline, LaneOf(lane), std::move(body)); \
    if (done.ok()) {                                                                                              \
      response = *std::move(done);                                                                                \
      co_return absl::OkStatus();                                                                                 \
    }                                                                                                             \
    absl::Status refused = co_await NoteRefusal(access_, audit_, call, note, done.status());                      \
    co_return refused;                                                                                            \
  }

// Answered from a replica of the database when `allow_stale`.
#define TUTTI_READ_METHOD(Class, Service, Name, allow_stale)                                                      \
  TUTTI_STORE_ENTRY_(Class, Service, Name) {                                                                      \
    auto body = [&area = area_, request](Transaction& tx, v1::Name##Response& out) {                              \
      return area.Name(tx, request, out);                                                                         \
    };                                                                                                            \
    TUTTI_CO_ASSIGN_OR_RETURN(response, co_await access_.Read<v1::Name##Response>(*call.executor, call.deadline,  \
                                                                                  allow_stale, std::move(body))); \
    co_return absl::OkStatus();                                                                                   \
  }

}  // namespace tutti::state_manager
