#include "tests/support/losing_proxy.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "tests/support/ports.h"

namespace tutti::testing {
namespace {

constexpr int kLookAround = 20;  // milliseconds, after which the end is noticed

struct Pair {
  int client = -1, server = -1;
  bool loses = false;
};

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// Returns what there is to read; empty when the other side has closed.
std::string Receive(int socket) {
  char piece[65536];
  const ssize_t got = recv(socket, piece, sizeof piece, 0);
  return got > 0 ? std::string(piece, static_cast<size_t>(got)) : "";
}

bool SendAll(int socket, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t sent = send(socket, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

LosingProxy::LosingProxy(int server_port) : server_port_(server_port), port_(FreePort()) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = Loopback(port_);
  if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) listen(listener_, 64);
  thread_ = std::thread([this] { Run(); });
}

LosingProxy::~LosingProxy() {
  stop_ = true;
  thread_.join();
  close(listener_);
}

void LosingProxy::LoseAnswerTo(std::string marker) {
  std::lock_guard<std::mutex> lock(mutex_);
  marker_ = std::move(marker);
}

bool LosingProxy::TakeMarker(const std::string& bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (marker_.empty() || bytes.find(marker_) == std::string::npos) return false;
  marker_.clear();
  return true;
}

void LosingProxy::Run() {
  std::vector<Pair> pairs;
  auto forward = [this](Pair& pair, bool from_client) {
    const std::string bytes = Receive(from_client ? pair.client : pair.server);
    if (bytes.empty()) return false;
    if (from_client) {
      pair.loses = pair.loses || TakeMarker(bytes);
      return SendAll(pair.server, bytes);
    }
    if (!pair.loses) return SendAll(pair.client, bytes);
    ++lost_;
    return false;
  };
  while (!stop_) {
    std::vector<pollfd> sockets = {{listener_, POLLIN, 0}};
    for (const Pair& pair : pairs) {
      sockets.push_back({pair.client, POLLIN, 0});
      sockets.push_back({pair.server, POLLIN, 0});
    }
    if (poll(sockets.data(), sockets.size(), kLookAround) <= 0) continue;
    std::vector<Pair> left;
    for (size_t i = 0; i < pairs.size(); ++i) {
      bool open = true;
      if (sockets[1 + 2 * i].revents) open = forward(pairs[i], true);
      if (open && sockets[2 + 2 * i].revents) open = forward(pairs[i], false);
      if (open) {
        left.push_back(pairs[i]);
      } else {
        close(pairs[i].client);
        close(pairs[i].server);
      }
    }
    pairs = std::move(left);
    if (!sockets[0].revents) continue;
    Pair pair;
    pair.client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    pair.server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(server_port_);
    if (connect(pair.server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      pairs.push_back(pair);
    } else {
      close(pair.client);
      close(pair.server);
    }
  }
  for (const Pair& pair : pairs) {
    close(pair.client);
    close(pair.server);
  }
}

}  // namespace tutti::testing
