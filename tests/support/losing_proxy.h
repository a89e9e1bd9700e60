// Stands between a client and a server of the loopback, and loses an answer when told to.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <thread>

namespace tutti::testing {

class LosingProxy {
 public:
  // Forwards connections to `server_port`, until it is destroyed.
  explicit LosingProxy(int server_port);
  ~LosingProxy();
  LosingProxy(const LosingProxy&) = delete;

  int port() const { return port_; }
  // The next bytes from a client that contain `marker` are forwarded; the server's answer to them is not, and the
  // connection is closed in its place.
  void LoseAnswerTo(std::string marker);
  // Number of answers that were lost.
  int lost() const { return lost_; }

 private:
  void Run();
  // Returns true when `bytes` contain the marker, which then counts no more.
  bool TakeMarker(const std::string& bytes);

  const int server_port_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> lost_{0};
  std::mutex mutex_;
  std::string marker_;
  std::thread thread_;
};

}  // namespace tutti::testing
