#include "services/state-manager/store/sessions.h"

#include <openssl/rand.h>
#include <openssl/sha.h>

#include <cstdlib>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr int64_t kMinute = int64_t{60} * 1000 * 1000;
constexpr int64_t kDay = 24 * 60 * kMinute;
constexpr size_t kTokenBytes = 32;

#define TUTTI_SESSION_COLUMNS \
  "SELECT session_id, tenant, user_id, attributes, create_time, expire_time, seen_time, revoke_time FROM sessions "

std::string HashOf(absl::string_view token) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(),
         reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

v1::Session FromRow(const Statement& row) {
  v1::Session out;
  out.set_session_id(row.Text(0));
  out.set_tenant(row.Text(1));
  out.set_user_id(row.Text(2));
  FromJsonText(row.Text(3), out.mutable_attributes());
  SetMicros(row.Int(4), out.mutable_create_time());
  SetMicros(row.Int(5), out.mutable_expire_time());
  SetMicros(row.Int(6), out.mutable_seen_time());
  return out;
}

}  // namespace

std::string SecretBytes(size_t size) {
  std::string out(size, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(size)) != 1) std::abort();
  return out;
}

absl::Status Sessions::CreateSession(Transaction& tx, const v1::CreateSessionRequest& request,
                                     v1::CreateSessionResponse& response) const {
  v1::Session session = request.session();
  TUTTI_RETURN_IF_ERROR(CheckText("session.tenant", session.tenant(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("session.user_id", session.user_id(), 200, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckLabels("session.attributes", session.attributes()));
  google::protobuf::Duration ttl = request.ttl();
  if (!request.has_ttl()) ttl.set_seconds(12 * 3600);
  TUTTI_RETURN_IF_ERROR(CheckDuration("ttl", ttl, 1, int64_t{366} * 86400));
  session.set_session_id(ids_.NewUlid());
  std::string token = absl::WebSafeBase64Escape(secrets_(kTokenBytes));
  const int64_t now = tx.NowMicros();
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare("INSERT INTO sessions (session_id, tenant, user_id, token_hash, attributes, create_time, expire_time, "
                 "seen_time, revoke_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $6, 0)")
          .BindAll(session.session_id(), session.tenant(), session.user_id(), SqlArg::Bytes(HashOf(token)),
                   ToJsonText(session.attributes()), now, now + ToMicros(ttl))
          .Run());
  SetMicros(now, session.mutable_create_time());
  SetMicros(now, session.mutable_seen_time());
  SetMicros(now + ToMicros(ttl), session.mutable_expire_time());
  *response.mutable_session() = std::move(session);
  response.set_token(token);
  return absl::OkStatus();
}

absl::Status Sessions::AuthenticateSession(Transaction& tx, const v1::AuthenticateSessionRequest& request,
                                           v1::AuthenticateSessionResponse& response) const {
  const int64_t now = tx.NowMicros();
  bool stale = false;
  {
    Statement row = tx.Prepare(TUTTI_SESSION_COLUMNS "WHERE token_hash = $1");
    row.BindBytes(HashOf(request.token()));
    bool there = row.Step();
    TUTTI_RETURN_IF_ERROR(row.status());
    if (!there || row.Int(5) <= now || row.Int(7) != 0) {
      return Error(absl::StatusCode::kUnauthenticated, "SESSION_ENDED",
                   "the session's token is not known, has expired or was revoked; log in again");
    }
    *response.mutable_session() = FromRow(row);
    stale = row.Int(6) < now - kMinute;
  }
  if (!stale) return absl::OkStatus();
  SetMicros(now, response.mutable_session()->mutable_seen_time());
  return tx.Prepare("UPDATE sessions SET seen_time = $2 WHERE session_id = $1")
      .BindAll(response.session().session_id(), now)
      .Run();
}

absl::Status Sessions::ListSessions(Transaction& tx, const v1::ListSessionsRequest& request,
                                    v1::ListSessionsResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  TUTTI_RETURN_IF_ERROR(CheckText("user_id", request.user_id(), 200, /*required=*/true));
  const std::string bound_to = absl::StrCat(request.tenant(), "/", request.user_id());
  TUTTI_ASSIGN_OR_RETURN(std::string before, DecodePageToken(request.page_token(), bound_to));
  Statement rows =
      tx.Prepare(TUTTI_SESSION_COLUMNS
                 "WHERE tenant = $1 AND user_id = $2 AND expire_time > $3 AND revoke_time = 0 AND ($4 = '' "
                 "OR session_id < $4) ORDER BY session_id DESC LIMIT $5");
  rows.BindAll(request.tenant(), request.user_id(), tx.NowMicros(), before, page + 1);
  while (rows.Step()) {
    if (response.sessions_size() == page) {
      response.set_next_page_token(EncodePageToken(response.sessions().rbegin()->session_id(), bound_to));
      break;
    }
    *response.add_sessions() = FromRow(rows);
  }
  return rows.status();
}

absl::Status Sessions::RevokeSessions(Transaction& tx, const v1::RevokeSessionsRequest& request,
                                      v1::RevokeSessionsResponse& response) const {
  if (request.session_id().empty() == request.user_id().empty()) {
    return Invalid("session_id", "or user_id must be given, and not both");
  }
  Statement revoke = tx.Prepare(
      request.session_id().empty()
          ? "UPDATE sessions SET revoke_time = $1 WHERE revoke_time = 0 AND expire_time > $1 AND tenant = $2 AND "
            "user_id = $3"
          : "UPDATE sessions SET revoke_time = $1 WHERE revoke_time = 0 AND expire_time > $1 AND session_id = $2");
  revoke.Bind(tx.NowMicros());
  if (request.session_id().empty()) {
    revoke.BindAll(request.tenant(), request.user_id());
  } else {
    revoke.Bind(request.session_id());
  }
  TUTTI_RETURN_IF_ERROR(revoke.Run());
  response.set_revoked(revoke.Changes());
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Sessions::RemoveEnded(Transaction& tx, int64_t limit) const {
  Statement remove = tx.Prepare(
      "DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions WHERE expire_time < $1 LIMIT $2)");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(tx.NowMicros() - kDay, limit).Run());
  return remove.Changes();
}

}  // namespace tutti::state_manager
