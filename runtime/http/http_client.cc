#include "runtime/http/http_client.h"

#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/text/utf8.h"

namespace tutti {

absl::Status AnswerError(const std::string& who, const HttpResponse& response) {
  std::string words;
  auto parsed = ParseJson(response.body);
  Json body = parsed.ok() ? *parsed : Json();
  if (body.is_object() && body.contains("error") && body["error"].is_object() && body["error"].contains("message") &&
      body["error"]["message"].is_string()) {
    words = body["error"]["message"];
  } else {
    words = response.body;
  }
  words = std::string(Utf8Prefix(words, 500));
  absl::StatusCode code = CodeFromHttp(response.status);
  if (code == absl::StatusCode::kOk) code = absl::StatusCode::kUnavailable;  // a success that is not the one expected
  std::string hint = code == absl::StatusCode::kUnauthenticated ? "; check its key" : "";
  return Error(code, "PROVIDER_ERROR", absl::StrCat(who, " answered HTTP ", response.status, ": ", words, hint))
      .Metadata("provider", who)
      .RetryAfter(absl::Seconds(response.retry_after_seconds));
}

}  // namespace tutti
