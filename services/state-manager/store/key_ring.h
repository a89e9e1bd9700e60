// Keys of encryption at rest. One is active (writes), all read.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/sync/mutex.h"

namespace tutti::state_manager {

// Immutable; empty: no encryption.
struct Keys {
  std::map<std::string, std::string> by_id;  // 32 bytes each
  std::string active;
};

// Where keys come from: `<folder>/<key id>.key`, and `<key id>:<key>` pairs. A key is 32 bytes, raw (files), as 64 hex
// digits or as base64. The active key is the one named, else the last by id. INVALID_ARGUMENT names what is wrong,
// never a key.
absl::StatusOr<Keys> LoadKeys(const std::string& folder, const std::vector<std::string>& pairs,
                              const std::string& active);

// Thread safe; Set takes effect for what is written from then on.
class KeyRing {
 public:
  explicit KeyRing(Keys keys = {}) : keys_(std::make_shared<const Keys>(std::move(keys))) {}
  std::shared_ptr<const Keys> Get() const {
    MutexLock lock(mutex_);
    return keys_;
  }
  void Set(Keys keys) {
    MutexLock lock(mutex_);
    keys_ = std::make_shared<const Keys>(std::move(keys));
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const Keys> keys_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::state_manager
