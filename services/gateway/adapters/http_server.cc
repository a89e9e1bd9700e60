#include "services/gateway/adapters/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
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

constexpr auto kIdleTimeout = std::chrono::seconds(75);
constexpr auto kWriteTimeout = std::chrono::seconds(30);
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
  void Add(Connection* connection) { connections_.insert(connection); }
  void Remove(Connection* connection) { connections_.erase(connection); }

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
  std::thread thread_;
  Scope scope_;
};

class Connection final : public HttpReply {
 public:
  Connection(Server& server, tcp::socket socket) : server_(server), stream_(std::move(socket)) { server_.Add(this); }
  ~Connection() override { server_.Remove(this); }

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
      stream_.expires_after(kIdleTimeout);
      OneShot<error_code> read;
      idle_ = true;
      http::async_read(stream_, buffer_, parser, [&read](error_code error, size_t) { read.Set(error); });
      error_code error = co_await read.Wait(server_.executor());
      idle_ = false;
      if (error) {
        co_await Refuse(error);
        break;
      }
      auto& message = parser.get();
      keep_alive_ = message.keep_alive();
      head_ = message.method() == http::verb::head;
      HttpRequest request;
      request.method = head_ ? "GET" : std::string(message.method_string());
      request.target = std::string(message.target());
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
  Task<void> Refuse(error_code error) {
    keep_alive_ = false;
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
      co_await Send(400, "application/json", server_.handler().Malformed(error.message()), none);
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
  bool idle_ = false;
};

Task<void> RunConnection(Server& server, tcp::socket socket) {
  Connection connection(server, std::move(socket));
  co_await connection.Run();
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
    if (static_cast<int>(connections_.size()) >= options_.max_connections) continue;  // closed by the socket's end
    if (!scope_.Spawn(executor_, RunConnection(*this, std::move(socket)))) co_return;
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
