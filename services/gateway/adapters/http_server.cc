#include "services/gateway/adapters/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/thread.h"
#include "runtime/status/error.h"

namespace tutti::gateway {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;
using beast::error_code;

constexpr auto kIdleTimeout = std::chrono::seconds(75);    // until a request begins
constexpr auto kHeaderTimeout = std::chrono::seconds(10);  // from its first byte to the end of its header
constexpr auto kBodyTimeout = std::chrono::seconds(60);    // from there to its end
constexpr auto kWriteTimeout = std::chrono::seconds(30);
constexpr auto kBusyTimeout = std::chrono::seconds(2);  // for the request of a connection over the limits
constexpr auto kBetweenRefusals = std::chrono::seconds(10);
constexpr size_t kReserve = 64;  // connections over the limits that are answered
constexpr uint32_t kMaxHeaderBytes = 64 << 10;

// AnyInvocable is move-only; asio takes such handlers.
class AsioExecutor final : public Executor {
 public:
  explicit AsioExecutor(asio::io_context& context) : context_(context) {}
  void Post(absl::AnyInvocable<void()> fn) override { asio::post(context_, std::move(fn)); }

 private:
  asio::io_context& context_;
};

class Connection;

class Server final : public HttpServer {
 public:
  Server(Options options, HttpHandler& handler)
      : options_(std::move(options)),
        handler_(handler),
        executor_(context_),
        acceptor_(context_),
        work_(context_.get_executor()) {}
  ~Server() override { Drain(absl::Now()); }

  absl::Status Listen() {
    error_code error;
    if (options_.port < 0 || options_.port > 65535) {
      return Error(absl::StatusCode::kInvalidArgument, "BAD_PORT",
                   absl::StrCat(options_.port_flag, ": ", options_.port, " is no port"));
    }
    auto address = asio::ip::make_address(options_.address, error);
    tcp::endpoint endpoint(address, static_cast<uint16_t>(options_.port));
    if (!error) acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(1024, error);
    if (error) {
      return Error(absl::StatusCode::kUnavailable, "PORT_TAKEN",
                   absl::StrCat("gateway: cannot listen on ", options_.address, ":", options_.port, " (",
                                error.message(), "); choose another with ", options_.port_flag))
          .Metadata("address", absl::StrCat(options_.address, ":", options_.port));
    }
    port_ = acceptor_.local_endpoint().port();
    handler_.RunOn(executor_);
    scope_.Spawn(executor_, Accept());
    thread_ = std::thread([this] { context_.run(); });
    NameThread(thread_, "gateway-http");
    return absl::OkStatus();
  }

  Executor& executor() override { return executor_; }
  int port() const override { return port_; }
  void Drain(absl::Time deadline) override;

  const Options& options() const { return options_; }
  HttpHandler& handler() { return handler_; }
  asio::io_context& context() { return context_; }
  bool draining() const { return draining_; }
  std::stop_token stop_token() const { return stop_.get_token(); }
  void Add(Connection* connection, const std::string& address) {
    connections_.insert(connection);
    ++by_address_[address];
  }
  void Remove(Connection* connection, const std::string& address) {
    connections_.erase(connection);
    if (auto it = by_address_.find(address); it != by_address_.end() && --it->second == 0) by_address_.erase(it);
  }
  // Returns why a connection of that address is one too many; empty when there is room.
  std::string WhyBusy(const std::string& address) const;
  void AddBusy(Connection* connection) { busy_.push_back(connection); }
  void RemoveBusy(Connection* connection) { busy_.remove(connection); }

 private:
  Task<void> Accept();

  const Options options_;
  HttpHandler& handler_;
  asio::io_context context_{1};
  AsioExecutor executor_;
  tcp::acceptor acceptor_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  int port_ = 0;
  bool draining_ = false;
  std::stop_source stop_;
  std::set<Connection*> connections_;
  std::map<std::string, int> by_address_;
  std::list<Connection*> busy_;  // of them, over the limits; oldest first
  std::chrono::steady_clock::time_point last_refusal_;
  std::thread thread_;
  Scope scope_;
};

class Connection final : public HttpReply {
 public:
  // `busy`: why this connection is one too many; empty: it is not.
  Connection(Server& server, tcp::socket socket, std::string address, std::string busy)
      : server_(server), stream_(std::move(socket)), address_(std::move(address)), busy_(std::move(busy)) {
    server_.Add(this, address_);
    if (!busy_.empty()) server_.AddBusy(this);
  }
  ~Connection() override {
    if (!busy_.empty()) server_.RemoveBusy(this);
    server_.Remove(this, address_);
  }

  Task<void> Run() {
    error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    if (auto peer = stream_.socket().remote_endpoint(ignored); !ignored) {
      remote_ = absl::StrCat(peer.address().to_string(), ":", peer.port());
    }
    while (keep_alive_ && !server_.draining()) {
      http::request_parser<http::string_body> parser;
      parser.header_limit(kMaxHeaderBytes);
      parser.body_limit(static_cast<uint64_t>(server_.options().max_body_bytes));
      error_code error;
      idle_ = true;
      if (buffer_.size() == 0) error = co_await ReadSome(busy_.empty() ? kIdleTimeout : kBusyTimeout);
      if (!error) {
        stream_.expires_after(busy_.empty() ? kHeaderTimeout : kBusyTimeout);
        OneShot<error_code> read;
        http::async_read_header(stream_, buffer_, parser, [&read](error_code e, size_t) { read.Set(e); });
        error = co_await read.Wait(server_.executor());
      }
      idle_ = false;
      auto& message = parser.get();
      if (!error) {
        if (int status = RefusedFraming(message); status != 0) {
          keep_alive_ = false;
          Headers none;
          co_await Send(status, "application/json", server_.handler().Malformed(status, framing_), none);
          break;
        }
        if (!parser.is_done()) {
          if (beast::iequals(message[http::field::expect], "100-continue")) error = co_await Continue(parser);
          if (!error) {
            stream_.expires_after(kBodyTimeout);
            OneShot<error_code> read;
            http::async_read(stream_, buffer_, parser, [&read](error_code e, size_t) { read.Set(e); });
            error = co_await read.Wait(server_.executor());
          }
        }
      }
      if (error) {
        co_await Refuse(error);
        break;
      }
      keep_alive_ = message.keep_alive() && busy_.empty();
      head_ = message.method() == http::verb::head;
      HttpRequest request;
      request.method = head_ ? "GET" : std::string(message.method_string());
      request.target = OriginForm(std::string(message.target()));
      if (!busy_.empty() && !IsHealthCheck(request.target)) {
        Headers headers;
        headers.emplace_back("Retry-After", "1");
        co_await Send(503, "application/json", server_.handler().Busy(busy_), headers);
        break;
      }
      request.body = std::move(message.body());
      request.remote = remote_;
      request.stop = server_.stop_token();
      request.header = [&message](const char* name) {
        auto it = message.find(name);
        return it == message.end() ? std::string() : std::string(it->value());
      };
      chunked_ = false;
      co_await server_.handler().Handle(request, *this);
      if (broken_) break;
    }
    error_code done;
    stream_.socket().shutdown(tcp::socket::shutdown_send, done);
  }

  // From Drain: what waits for a request is closed at once; what works ends by itself.
  void CloseIdle() {
    if (idle_) stream_.cancel();
  }
  void CloseNow() {
    error_code ignored;
    stream_.socket().close(ignored);
  }

  Task<bool> Send(int status, std::string content_type, std::string body, Headers headers) override {
    http::response<http::string_body> response{static_cast<http::status>(status), 11};
    response.set(http::field::server, "tutti");
    response.set(http::field::content_type, content_type);
    for (const auto& [name, value] : headers) response.set(name, value);
    response.keep_alive(keep_alive_);
    size_t size = body.size();
    if (!head_) response.body() = std::move(body);
    response.content_length(size);
    stream_.expires_after(kWriteTimeout);
    OneShot<error_code> written;
    if (head_) {
      http::response_serializer<http::string_body> serializer(response);
      http::async_write_header(stream_, serializer, [&written](error_code error, size_t) { written.Set(error); });
      error_code error = co_await written.Wait(server_.executor());
      broken_ |= static_cast<bool>(error);
    } else {
      http::async_write(stream_, response, [&written](error_code error, size_t) { written.Set(error); });
      error_code error = co_await written.Wait(server_.executor());
      broken_ |= static_cast<bool>(error);
    }
    co_return !broken_;
  }

  Task<bool> Begin(int status, std::string content_type, Headers headers) override {
    http::response<http::empty_body> response{static_cast<http::status>(status), 11};
    response.set(http::field::server, "tutti");
    response.set(http::field::content_type, content_type);
    for (const auto& [name, value] : headers) response.set(name, value);
    response.keep_alive(keep_alive_);
    response.chunked(true);
    chunked_ = true;
    http::response_serializer<http::empty_body> serializer(response);
    stream_.expires_after(kWriteTimeout);
    OneShot<error_code> written;
    http::async_write_header(stream_, serializer, [&written](error_code error, size_t) { written.Set(error); });
    error_code error = co_await written.Wait(server_.executor());
    broken_ |= static_cast<bool>(error) || head_;  // HEAD: the header was all
    co_return !broken_;
  }

  Task<bool> Write(std::string data) override {
    if (broken_) co_return false;
    stream_.expires_after(kWriteTimeout);
    OneShot<error_code> written;
    asio::async_write(stream_, http::make_chunk(asio::buffer(data)),
                      [&written](error_code error, size_t) { written.Set(error); });
    error_code error = co_await written.Wait(server_.executor());
    stream_.expires_never();
    broken_ |= static_cast<bool>(error);
    co_return !broken_;
  }

  Task<bool> End() override {
    if (broken_) co_return false;
    stream_.expires_after(kWriteTimeout);
    OneShot<error_code> written;
    asio::async_write(stream_, http::make_chunk_last(), [&written](error_code error, size_t) { written.Set(error); });
    error_code error = co_await written.Wait(server_.executor());
    broken_ |= static_cast<bool>(error);
    co_return !broken_;
  }

 private:
  // Waits for the first bytes of a request.
  Task<error_code> ReadSome(std::chrono::seconds timeout) {
    stream_.expires_after(timeout);
    OneShot<std::pair<error_code, size_t>> read;
    stream_.async_read_some(buffer_.prepare(4096), [&read](error_code e, size_t n) { read.Set({e, n}); });
    auto [error, count] = co_await read.Wait(server_.executor());
    if (!error) buffer_.commit(count);
    co_return error;
  }

  // The status for a header whose message cannot be told apart from what follows (RFC 9112); 0: all is well.
  int RefusedFraming(const http::request<http::string_body>& message) {
    if (message.count(http::field::host) > 1 || (message.version() >= 11 && message.count(http::field::host) == 0)) {
      framing_ = "an HTTP/1.1 request has one Host header";
      return 400;
    }
    if (message.count(http::field::transfer_encoding) == 0) return 0;
    if (message.count(http::field::content_length) > 0) {
      framing_ = "Transfer-Encoding and Content-Length cannot stand together";
      return 400;
    }
    if (message.count(http::field::transfer_encoding) > 1 ||
        !beast::iequals(message[http::field::transfer_encoding], "chunked")) {
      framing_ = "only the transfer coding chunked is known";
      return 501;
    }
    return 0;
  }

  // `http://host/path` as `/path`.
  static std::string OriginForm(std::string target) {
    for (const char* scheme : {"http://", "https://"}) {
      const size_t length = std::char_traits<char>::length(scheme);
      if (target.compare(0, length, scheme) != 0) continue;
      size_t slash = target.find('/', length);
      return slash == std::string::npos ? "/" : target.substr(slash);
    }
    return target;
  }

  // Tells a client that waits for it to send the body, unless that is too large anyway.
  Task<error_code> Continue(const http::request_parser<http::string_body>& parser) {
    auto length = parser.content_length();
    if (length && *length > static_cast<uint64_t>(server_.options().max_body_bytes)) {
      co_return error_code(http::error::body_limit);
    }
    static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
    stream_.expires_after(kWriteTimeout);
    OneShot<error_code> written;
    asio::async_write(stream_, asio::buffer(kContinue, sizeof kContinue - 1),
                      [&written](error_code e, size_t) { written.Set(e); });
    error_code error = co_await written.Wait(server_.executor());
    co_return error;
  }

  Task<void> Refuse(error_code error) {
    keep_alive_ = false;
    if (error == http::error::header_limit) {
      Headers none;
      co_await Send(
          431, "application/json",
          server_.handler().Malformed(431, absl::StrCat("its header has more than ", kMaxHeaderBytes, " bytes")), none);
      co_return;
    }
    if (error == http::error::body_limit) {
      Headers none;
      co_await Send(413, "application/json", server_.handler().TooLarge(server_.options().max_body_bytes), none);
      // Read on for a moment, or the close resets the connection before the client has read the answer.
      std::string rest(64 << 10, '\0');
      for (int i = 0; i < 256; ++i) {
        stream_.expires_after(std::chrono::seconds(1));
        OneShot<std::pair<error_code, size_t>> read;
        stream_.async_read_some(asio::buffer(rest), [&read](error_code e, size_t n) { read.Set({e, n}); });
        auto [read_error, count] = co_await read.Wait(server_.executor());
        if (read_error || count == 0) break;
      }
    } else if (error.category() == http::make_error_code(http::error::end_of_stream).category() &&
               error != http::error::end_of_stream && error != http::error::partial_message) {
      Headers none;
      co_await Send(400, "application/json", server_.handler().Malformed(400, error.message()), none);
    }
  }

  Server& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  bool keep_alive_ = true;
  bool head_ = false;
  bool chunked_ = false;
  bool broken_ = false;
  std::string remote_;
  const std::string address_, busy_;
  std::string framing_;
  bool idle_ = false;
};

Task<void> RunConnection(Server& server, tcp::socket socket, std::string address, std::string busy) {
  Connection connection(server, std::move(socket), std::move(address), std::move(busy));
  co_await connection.Run();
}

std::string Server::WhyBusy(const std::string& address) const {
  if (connections_.size() - busy_.size() >= static_cast<size_t>(options_.max_connections)) {
    return absl::StrCat("there are ", options_.max_connections, " connections, the most there may be");
  }
  auto it = by_address_.find(address);
  if (it != by_address_.end() && it->second >= options_.max_connections_per_address) {
    return absl::StrCat(address, " has ", options_.max_connections_per_address,
                        " connections, the most one address may have");
  }
  return "";
}

Task<void> Server::Accept() {
  for (;;) {
    OneShot<error_code> accepted;
    tcp::socket socket(context_);
    acceptor_.async_accept(socket, [&accepted](error_code error) { accepted.Set(error); });
    error_code error = co_await accepted.Wait(executor_);
    if (draining_ || error == asio::error::operation_aborted) co_return;
    if (error) {
      // Out of descriptors, most likely: leave it to those that end, and look again after a moment.
      asio::steady_timer pause(context_, std::chrono::milliseconds(50));
      OneShot<error_code> waited;
      pause.async_wait([&waited](error_code e) { waited.Set(e); });
      co_await waited.Wait(executor_);
      continue;
    }
    error_code ignored;
    auto peer = socket.remote_endpoint(ignored);
    std::string address = ignored ? "" : peer.address().to_string();
    std::string busy = WhyBusy(address);
    if (!busy.empty()) {
      const auto now = std::chrono::steady_clock::now();
      if (options_.on_refused && now - last_refusal_ >= kBetweenRefusals) {
        last_refusal_ = now;
        options_.on_refused(busy);
      }
      // The newest has its place: it may be a health check, and one that keeps silent has had its time.
      if (busy_.size() >= kReserve) busy_.front()->CloseNow();
    }
    if (!scope_.Spawn(executor_, RunConnection(*this, std::move(socket), std::move(address), std::move(busy))))
      co_return;
  }
}

void Server::Drain(absl::Time deadline) {
  if (!thread_.joinable()) return;
  executor_.Post([this] {
    draining_ = true;
    error_code ignored;
    acceptor_.close(ignored);
    for (auto* connection : connections_) connection->CloseIdle();
  });
  auto left = absl::ToChronoNanoseconds(std::max(absl::ZeroDuration(), deadline - absl::Now()));
  if (!scope_.CloseAndWaitFor(left)) {
    executor_.Post([this] {
      stop_.request_stop();
      for (auto* connection : connections_) connection->CloseNow();
    });
    scope_.CloseAndWait();
  }
  work_.reset();
  context_.stop();
  thread_.join();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options, HttpHandler& handler) {
  auto server = std::make_unique<Server>(std::move(options), handler);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace tutti::gateway
