#include "runtime/http/http_client.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/text/utf8.h"

namespace tutti {

absl::StatusOr<UrlHost> HostOf(const std::string& url) {
  auto wrong = [&](absl::string_view what) {
    // Without the URL: what should not stand in it would stand in the message.
    return Error(absl::StatusCode::kInvalidArgument, "BAD_URL", absl::StrCat("the url ", what));
  };
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), &curl_url_cleanup);
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return wrong("cannot be understood");
  auto part = [&](CURLUPart which, unsigned flags) {
    char* text = nullptr;
    std::string out;
    if (curl_url_get(parsed.get(), which, &text, flags) == CURLUE_OK && text) out = text;
    curl_free(text);
    return out;
  };
  std::string scheme = part(CURLUPART_SCHEME, 0);
  if (scheme != "http" && scheme != "https") return wrong("must begin with http:// or https://");
  if (!part(CURLUPART_USER, 0).empty() || !part(CURLUPART_PASSWORD, 0).empty()) {
    return wrong("must not hold a user name or password");
  }
  UrlHost out;
  out.name = absl::AsciiStrToLower(part(CURLUPART_HOST, 0));
  (void)absl::SimpleAtoi(part(CURLUPART_PORT, CURLU_DEFAULT_PORT), &out.port);
  if (out.name.empty()) return wrong("has no host");
  return out;
}

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
