#include "tests/fuzz/http_target.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "services/gateway/adapters/http_server.h"
#include "services/gateway/domain/transcoder.h"
#include "tutti/workflow/v1/run_service.pb.h"

namespace tutti::fuzz {
namespace {

// Turns each request into a call, and answers with what the request came to.
class Transcoding final : public gateway::HttpHandler {
 public:
  Transcoding() {
    auto transcoder =
        gateway::Transcoder::Create({workflow::v1::StartRunRequest::descriptor()->file()->service(0)->full_name()});
    if (!transcoder.ok()) abort();
    transcoder_ = *std::move(transcoder);
  }
  void RunOn(Executor&) override {}
  Task<void> Handle(const gateway::HttpRequest& request, gateway::HttpReply& reply) override {
    gateway::RestRequest rest{request.method, request.target, request.header("content-type"),
                              request.header("last-event-id"), request.body};
    auto call = transcoder_->ToCall(rest);
    std::string body = call.ok() ? call->request->SerializeAsString() : gateway::ErrorJson(call.status(), 400);
    gateway::HttpReply::Headers none;
    co_await reply.Send(call.ok() ? 200 : 400, "application/octet-stream", std::move(body), std::move(none));
  }
  std::string TooLarge(int64_t) override { return "too large"; }
  std::string Malformed(int, const std::string& what) override { return what; }
  std::string Busy(const std::string& what) override { return what; }

 private:
  std::unique_ptr<gateway::Transcoder> transcoder_;
};

// Ends the process with the system's error unless `holds`.
void Must(bool holds, const char* what) {
  if (holds) return;
  perror(what);
  abort();
}

int Connect(int port) {
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // From many addresses: a port that the server has closed cannot be used for a minute.
  static uint32_t count = 0;
  ++count;
  sockaddr_in from{};
  from.sin_family = AF_INET;
  from.sin_addr.s_addr = htonl(0x7f010001 + (count % 200) + (count / 200 % 200 << 8));
  Must(bind(connection, reinterpret_cast<const sockaddr*>(&from), sizeof from) == 0, "bind");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Must(errno == EINTR, "connect");  // by the alarm of libFuzzer
    close(connection);
    return Connect(port);
  }
  const timeval patience{10, 0};
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  // No port waits for its time to be over when the next input comes.
  const linger at_once{1, 0};
  setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  return connection;
}

}  // namespace

void FuzzHttp(const std::string& input) {
  static auto* const kHandler = new Transcoding();
  static gateway::HttpServer* const kServer = [] {
    gateway::HttpServer::Options options;
    options.address = "127.0.0.1";
    options.port = 0;
    options.max_body_bytes = 64 << 10;
    auto server = gateway::HttpServer::Start(options, *kHandler);
    if (!server.ok()) abort();
    return server->release();
  }();
  const int connection = Connect(kServer->port());
  (void)send(connection, input.data(), input.size(), MSG_NOSIGNAL);  // the server may have had enough
  shutdown(connection, SHUT_WR);
  char answer[4096];
  for (;;) {
    const ssize_t got = recv(connection, answer, sizeof answer, 0);
    if (got == 0 || (got < 0 && errno == ECONNRESET)) break;
    if (got < 0 && errno != EINTR) abort();  // neither an answer nor an end
  }
  close(connection);
}

}  // namespace tutti::fuzz
