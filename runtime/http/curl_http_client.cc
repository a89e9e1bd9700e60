#include "runtime/http/curl_http_client.h"

#include <curl/curl.h>
#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/thread.h"
#include "runtime/http/public_address.h"
#include "runtime/status/error.h"
#include "runtime/sync/mutex.h"

namespace tutti {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(10);
constexpr absl::Duration kLongest = absl::Minutes(10);
// An event of a few characters has hundreds around them.
constexpr size_t kFraming = 16;

struct Transfer : std::enable_shared_from_this<Transfer> {
  HttpRequest request;
  HttpResponse response;
  curl_slist* headers = nullptr;
  CURL* easy = nullptr;
  absl::Duration timeout;
  bool too_large = false, refused = false, too_late = false;
  Executor* executor = nullptr;
  size_t received = 0;  // bytes of the body
  OneShot<absl::StatusOr<HttpResponse>> done;
  ~Transfer() {
    curl_slist_free_all(headers);
    if (easy) curl_easy_cleanup(easy);
  }
};

// For messages: a path and a query may hold keys.
std::string Where(const Transfer& transfer) {
  auto host = HostOf(transfer.request.url);
  return host.ok() ? absl::StrCat(host->name, ":", host->port) : "the URL";
}

bool IsEventStream(const Transfer& transfer) {
  long status = 0;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  auto type = transfer.response.headers.find("content-type");
  return status / 100 == 2 && type != transfer.response.headers.end() &&
         absl::StartsWithIgnoreCase(type->second, "text/event-stream");
}

size_t OnBody(char* data, size_t size, size_t count, void* self) {
  auto* transfer = static_cast<Transfer*>(self);
  const bool events = transfer->request.on_event_stream && IsEventStream(*transfer);
  transfer->received += size * count;
  if (transfer->received > transfer->request.max_answer_bytes * (events ? kFraming : 1)) {
    transfer->too_large = true;
    return 0;
  }
  if (events) {
    // Its sender is there to take it: it is answered after this, on the same executor.
    transfer->executor->Post([self = transfer->shared_from_this(), piece = std::string(data, size * count)] {
      self->request.on_event_stream(piece);
    });
  } else {
    transfer->response.body.append(data, size * count);
  }
  return size * count;
}

size_t OnHeader(char* data, size_t size, size_t count, void* self) {
  absl::string_view line(data, size * count);
  int seconds = 0;
  if (absl::StartsWithIgnoreCase(line, "retry-after:") && absl::SimpleAtoi(line.substr(12), &seconds)) {
    static_cast<Transfer*>(self)->response.retry_after_seconds = std::clamp(seconds, 0, 3600);
  }
  if (size_t colon = line.find(':'); colon != absl::string_view::npos) {
    static_cast<Transfer*>(self)->response.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return size * count;
}

// Looked at when the name has been resolved: a name that leads into a private network is no way around the rule.
curl_socket_t OnOpenSocket(void* self, curlsocktype, curl_sockaddr* address) {
  auto* transfer = static_cast<Transfer*>(self);
  if (transfer->request.public_only && !IsPublicAddress(reinterpret_cast<const sockaddr*>(&address->addr))) {
    transfer->refused = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// A process that was frozen finds here what it had queued before.
int OnRequest(void* self, char*, char*, int, int) {
  auto* transfer = static_cast<Transfer*>(self);
  transfer->too_late = absl::Now() > transfer->request.start_by;
  return transfer->too_late ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

class CurlHttpClient final : public HttpClient {
 public:
  CurlHttpClient() : multi_(curl_multi_init()), thread_([this] { Run(); }) { NameThread(thread_, "http-client"); }
  ~CurlHttpClient() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
    }
    curl_multi_wakeup(multi_);
    thread_.join();
    curl_multi_cleanup(multi_);
  }

  Task<absl::StatusOr<HttpResponse>> Send(CallContext& call, HttpRequest request) override {
    auto transfer = std::make_shared<Transfer>();
    transfer->request = std::move(request);
    transfer->executor = call.executor;
    transfer->timeout =
        std::min(kLongest, call.deadline == absl::InfiniteFuture() ? kLongest : call.deadline - absl::Now());
    if (transfer->timeout <= absl::Milliseconds(1))
      co_return absl::DeadlineExceededError("no time is left for the request");
    {
      MutexLock lock(mutex_);
      added_.push_back(transfer);
    }
    curl_multi_wakeup(multi_);
    std::stop_callback on_stop(call.stop, [this, transfer] {
      {
        MutexLock lock(mutex_);
        cancelled_.push_back(transfer);
      }
      curl_multi_wakeup(multi_);
    });
    auto response = co_await transfer->done.Wait(*call.executor);
    if (transfer->request.on_event_stream) {
      // The end may have come before anybody waited for it: what was posted before it goes first.
      OneShot<bool> turn;
      call.executor->Post([&turn] { turn.Set(true); });
      co_await turn.Wait(*call.executor);
    }
    co_return std::move(response);
  }

 private:
  void Begin(const std::shared_ptr<Transfer>& transfer) {
    CURL* easy = transfer->easy = curl_easy_init();
    for (const auto& header : transfer->request.headers)
      transfer->headers = curl_slist_append(transfer->headers, header.c_str());
    curl_easy_setopt(easy, CURLOPT_URL, transfer->request.url.c_str());
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    const HttpRequest& request = transfer->request;
    if (request.method == "HEAD") {
      curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (request.method != "GET" || !request.body.empty()) {
      curl_easy_setopt(easy, CURLOPT_POST, 1L);
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.data());
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
    // Behind a proxy it is the proxy that resolves names: the rule for addresses would be none.
    if (request.public_only) curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, &OnRequest);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &OnBody);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &OnHeader);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(absl::ToInt64Milliseconds(transfer->timeout)));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(absl::ToInt64Milliseconds(kConnectTimeout)));
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_multi_add_handle(multi_, easy);
    running_[easy] = transfer;
  }

  void End(CURL* easy, CURLcode code) {
    auto it = running_.find(easy);
    if (it == running_.end()) return;
    std::shared_ptr<Transfer> transfer = it->second;
    running_.erase(it);
    curl_multi_remove_handle(multi_, easy);
    if (code == CURLE_OK) {
      long status = 0;
      curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
      transfer->response.status = static_cast<int>(status);
      transfer->done.Set(std::move(transfer->response));
    } else if (transfer->refused) {
      transfer->done.Set(absl::PermissionDeniedError(
          absl::StrCat(Where(*transfer), " leads to an address that is not public; allow its host if that is meant")));
    } else if (transfer->too_late) {
      transfer->done.Set(Error(
          absl::StatusCode::kAborted, "START_TOO_LATE",
          absl::StrCat("nothing was sent to ", Where(*transfer), ": the time was over in which the call might begin")));
    } else if (transfer->too_large) {
      transfer->done.Set(absl::ResourceExhaustedError(
          absl::StrCat("the answer is larger than ", transfer->request.max_answer_bytes, " bytes")));
    } else if (code == CURLE_OPERATION_TIMEDOUT) {
      transfer->done.Set(absl::DeadlineExceededError(absl::StrCat("no answer from ", Where(*transfer), " in time")));
    } else {
      transfer->done.Set(absl::UnavailableError(absl::StrCat(Where(*transfer), ": ", curl_easy_strerror(code))));
    }
  }

  void Run() {
    for (;;) {
      std::vector<std::shared_ptr<Transfer>> added, cancelled;
      bool stopping;
      {
        MutexLock lock(mutex_);
        added.swap(added_);
        cancelled.swap(cancelled_);
        stopping = stopping_;
      }
      for (const auto& transfer : added) Begin(transfer);
      for (const auto& transfer : cancelled) {
        if (running_.erase(transfer->easy) > 0) curl_multi_remove_handle(multi_, transfer->easy);
        transfer->done.Set(absl::CancelledError("the caller gave up"));
      }
      if (stopping) break;
      int active = 0;
      curl_multi_perform(multi_, &active);
      int left = 0;
      while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
        if (message->msg == CURLMSG_DONE) End(message->easy_handle, message->data.result);
      }
      curl_multi_poll(multi_, nullptr, 0, 60000, nullptr);
    }
    for (auto& [easy, transfer] : running_) {
      curl_multi_remove_handle(multi_, easy);
      transfer->done.Set(absl::CancelledError("shutting down"));
    }
    running_.clear();
  }

  CURLM* multi_;
  Mutex mutex_;
  std::vector<std::shared_ptr<Transfer>> added_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Transfer>> cancelled_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<CURL*, std::shared_ptr<Transfer>> running_;  // the thread's own
  std::thread thread_;
};

}  // namespace

std::unique_ptr<HttpClient> NewCurlHttpClient() { return std::make_unique<CurlHttpClient>(); }

}  // namespace tutti
