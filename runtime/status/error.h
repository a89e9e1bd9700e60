// Builds an absl::Status that carries google.rpc details. The details travel as payloads of the status and leave the
// process as google.rpc.Status (status/mapping.h).
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tutti {

// The domain of every ErrorInfo.
inline constexpr char kErrorDomain[] = "tutti.dev";

// One wrong field of a request: its path and why it was refused.
struct FieldViolation {
  std::string field;
  std::string description;
};

// Usage: return Error(absl::StatusCode::kNotFound, "RUN_NOT_FOUND", "run 01J… does not exist; `tutti runs list` shows
// …"); `reason` matches [A-Z][A-Z0-9_]+[A-Z0-9]. The message says what was wrong, where, and what to do.
class Error {
 public:
  Error(absl::StatusCode code, absl::string_view reason, absl::string_view message)
      : code_(code), reason_(reason), message_(message) {}

  Error& Metadata(absl::string_view key, absl::string_view value);
  Error& Violation(absl::string_view field, absl::string_view description);
  Error& Violations(std::vector<FieldViolation> violations);
  // A limit that was reached (google.rpc.QuotaFailure).
  Error& Quota(absl::string_view subject, absl::string_view description);
  // Callers should wait this long; becomes Retry-After on REST.
  Error& RetryAfter(absl::Duration delay);

  operator absl::Status() const;  // NOLINT: the builder is the status

 private:
  absl::StatusCode code_;
  std::string reason_;
  std::string message_;
  std::map<std::string, std::string> metadata_;
  std::vector<FieldViolation> violations_;
  std::vector<FieldViolation> quotas_;
  absl::Duration retry_after_ = absl::ZeroDuration();
};

// The fields a status names as wrong; empty when it names none.
std::vector<FieldViolation> ViolationsOf(const absl::Status& status);
// The delay a status asks for; zero when it asks for none.
absl::Duration RetryDelayOf(const absl::Status& status);
// The reason of the status's ErrorInfo; empty when it has none.
std::string ReasonOf(const absl::Status& status);
// The same status whose ErrorInfo also says this; what it says already under that key stands.
absl::Status WithMetadata(const absl::Status& status, absl::string_view key, absl::string_view value);
// The same, also in place of what the status says.
absl::Status SetMetadata(const absl::Status& status, absl::string_view key, absl::string_view value);
// What the status's ErrorInfo says under a key; empty when nothing.
std::string MetadataOf(const absl::Status& status, absl::string_view key);
// The same code and details with another text before the message.
absl::Status Prefix(const absl::Status& status, absl::string_view prefix);

}  // namespace tutti
