// Randomness and ids as something that is passed in.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "runtime/sync/mutex.h"
#include "runtime/time/clock.h"

namespace tutti {

class Rng {
 public:
  virtual ~Rng() = default;
  // 64 random bits. Thread safe.
  virtual uint64_t Next() = 0;
  // In [0, 1).
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
};

// xoshiro256** (Blackman, Vigna 2018), seeded from the operating system or by a test. Not for secrets.
class Xoshiro final : public Rng {
 public:
  static uint64_t SeedFromSystem();
  explicit Xoshiro(uint64_t seed);
  uint64_t Next() override;

 private:
  Mutex mutex_;
  uint64_t state_[4] ABSL_GUARDED_BY(mutex_);
};

// Whether `id` has the form of IdSource::NewUlid's.
bool IsUlid(absl::string_view id);

// Ids that sort by creation: ULID (48 bits of milliseconds, 80 random bits, Crockford base 32, lower case). Thread
// safe. Within one millisecond the ids of one source still grow.
class IdSource {
 public:
  IdSource(const Clock& clock, Rng& rng) : clock_(clock), rng_(rng) {}
  std::string NewUlid();
  // `bytes` random bytes in lower-case hex, never all zero.
  std::string NewHex(int bytes);

 private:
  const Clock& clock_;
  Rng& rng_;
  Mutex mutex_;
  int64_t last_millis_ ABSL_GUARDED_BY(mutex_) = 0;
  uint16_t high_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t low_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tutti
