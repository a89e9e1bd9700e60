#include "runtime/http/curl_http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/async/sync_wait.h"
#include "runtime/random/random.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/telemetry/trace.h"
#include "runtime/time/system_time.h"

namespace tutti {
namespace {

using testing::HasCode;

// Connections of a port that nobody has accepted yet: the kernel completes them, and keeps what arrives.
class Listener {
 public:
  Listener() : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(listen(socket_, 8), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { close(socket_); }
  int port() const { return port_; }
  // Returns what the next connection sent before its other side closed it.
  std::string Received() const {
    const int connection = accept(socket_, nullptr, nullptr);
    std::string out;
    char piece[1024];
    for (ssize_t got; (got = recv(connection, piece, sizeof piece, 0)) > 0;)
      out.append(piece, static_cast<size_t>(got));
    close(connection);
    return out;
  }

 private:
  const int socket_;
  int port_ = 0;
};

TEST(CurlHttpClientTest, NothingLeavesAfterTheTimeInWhichItMightBegin) {
  Listener listener;
  EventLoop loop("test");
  SystemClock clock;
  Xoshiro rng(1);
  Tracer tracer("test", clock, rng, nullptr, 0);
  std::unique_ptr<HttpClient> client = NewCurlHttpClient();
  HttpRequest request;
  request.url = absl::StrCat("http://127.0.0.1:", listener.port(), "/effect");
  request.body = "{}";
  request.start_by = absl::Now() - absl::Milliseconds(1);
  CallContext call(loop, tracer);
  auto answer = SyncWait(client->Send(call, std::move(request)));
  ASSERT_THAT(answer, HasCode(absl::StatusCode::kAborted));
  EXPECT_EQ(ReasonOf(answer.status()), "START_TOO_LATE");
  client.reset();
  EXPECT_EQ(listener.Received(), "") << "connected, and nothing sent";
}

}  // namespace
}  // namespace tutti
