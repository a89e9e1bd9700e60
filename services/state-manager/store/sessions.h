// Sessions of users. A token is 256 random bits; the database has its SHA-256 only.
#pragma once

#include <functional>
#include <string>

#include "runtime/random/random.h"
#include "services/state-manager/ports/database.h"
#include "tutti/state/v1/session_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Sessions {
 public:
  // Fills a string of the given length with unpredictable bytes.
  using SecretSource = std::function<std::string(size_t)>;
  Sessions(IdSource& ids, SecretSource secrets) : ids_(ids), secrets_(std::move(secrets)) {}

  absl::Status CreateSession(Transaction& tx, const v1::CreateSessionRequest& request,
                             v1::CreateSessionResponse& response) const;
  absl::Status AuthenticateSession(Transaction& tx, const v1::AuthenticateSessionRequest& request,
                                   v1::AuthenticateSessionResponse& response) const;
  absl::Status ListSessions(Transaction& tx, const v1::ListSessionsRequest& request,
                            v1::ListSessionsResponse& response) const;
  absl::Status RevokeSessions(Transaction& tx, const v1::RevokeSessionsRequest& request,
                              v1::RevokeSessionsResponse& response) const;
  // Removes up to `limit` that ended a day ago; how many.
  absl::StatusOr<int64_t> RemoveEnded(Transaction& tx, int64_t limit) const;

 private:
  IdSource& ids_;
  const SecretSource secrets_;
};

// From the operating system's generator, by OpenSSL.
std::string SecretBytes(size_t size);

}  // namespace tutti::state_manager
