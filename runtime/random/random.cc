#include "runtime/random/random.h"

#include <sys/random.h>

#include "absl/strings/escaping.h"

namespace tutti {
namespace {
constexpr char kAlphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";  // Crockford's, in lower case

uint64_t Rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t SplitMix(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t Xoshiro::SeedFromSystem() {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<uint64_t>(absl::GetCurrentTimeNanos());
  return seed;
}

Xoshiro::Xoshiro(uint64_t seed) {
  for (auto& word : state_) word = SplitMix(seed);
}

uint64_t Xoshiro::Next() {
  MutexLock lock(mutex_);
  uint64_t result = Rotl(state_[1] * 5, 7) * 9;
  uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = Rotl(state_[3], 45);
  return result;
}

namespace {

std::string Encode(int64_t millis, uint16_t high, uint64_t low) {
  unsigned __int128 bits =
      (static_cast<unsigned __int128>(millis) << 80) | (static_cast<unsigned __int128>(high) << 64) | low;
  std::string out(26, '0');
  for (int i = 25; i >= 0; --i) {
    out[i] = kAlphabet[static_cast<int>(bits & 31)];
    bits >>= 5;
  }
  return out;
}

}  // namespace

bool IsUlid(absl::string_view id) {
  return id.size() == 26 && id[0] <= '7' && id.find_first_not_of(kAlphabet) == absl::string_view::npos;
}

std::string IdSource::NewUlid() {
  int64_t millis = absl::ToUnixMillis(clock_.Now());
  uint16_t high;
  uint64_t low;
  {
    MutexLock lock(mutex_);
    if (millis <= last_millis_) {  // the same millisecond, or a clock that went back: count on
      millis = last_millis_;
      if (++low_ == 0) ++high_;
    } else {
      last_millis_ = millis;
      high_ = static_cast<uint16_t>(rng_.Next() >> 48) & 0x7fff;  // top bit free: counting on never overflows
      low_ = rng_.Next();
    }
    high = high_;
    low = low_;
  }
  return Encode(millis, high, low);
}

std::string FirstUlidOf(absl::Time time) { return Encode(absl::ToUnixMillis(time), 0, 0); }

std::string IdSource::NewHex(int bytes) {
  std::string raw;
  while (static_cast<int>(raw.size()) < bytes) {
    uint64_t word = rng_.Next() | 1;
    raw.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  raw.resize(bytes);
  return absl::BytesToHexString(raw);
}

}  // namespace tutti
