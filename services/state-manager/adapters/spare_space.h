// Keeps disk space in reserve. On a full disk the store uses it to put acknowledged writes into the tables, so that
// they can be read.
#pragma once

#include <atomic>
#include <cstddef>
#include <string>
#include <utility>

namespace tutti::state_manager {

class SpareSpace {
 public:
  // Exceeds the room that a full write log needs in the tables and in SQLite's own log.
  static constexpr size_t kBytes = size_t{32} << 20;

  SpareSpace(std::string file, size_t bytes) : file_(std::move(file)), bytes_(bytes) {}
  // Reserves the space. Returns false when the disk has too little.
  bool Reserve();
  // Returns the space to the file system. False when none was held.
  bool Release();
  // Returns true while the space is reserved. Thread-safe.
  bool held() const { return held_.load(std::memory_order_acquire); }

 private:
  const std::string file_;
  const size_t bytes_;
  std::atomic<bool> held_{false};
};

}  // namespace tutti::state_manager
