// Which seeds a simulation plays: TUTTI_SIM_SEED=17 is one, TUTTI_SIM_SEEDS=100000 as many, from TUTTI_SIM_FIRST (1)
// on.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "absl/strings/numbers.h"

namespace tutti::simulation {

struct Seeds {
  uint64_t first = 1, count = 1;
};

inline Seeds SeedsFromEnvironment(uint64_t count) {
  Seeds seeds;
  seeds.count = count;
  auto read = [](const char* name, uint64_t& out) {
    const char* text = getenv(name);
    return text != nullptr && absl::SimpleAtoi(text, &out);
  };
  if (read("TUTTI_SIM_SEED", seeds.first)) {
    seeds.count = 1;
    return seeds;
  }
  (void)read("TUTTI_SIM_FIRST", seeds.first);
  (void)read("TUTTI_SIM_SEEDS", seeds.count);
  return seeds;
}

}  // namespace tutti::simulation
