// The entry of libFuzzer: fuzzes the target that TUTTI_FUZZ names (`./dev fuzz NAME SECONDS`).
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const tutti::fuzz::Target kTarget = [] {
    const char* name = getenv("TUTTI_FUZZ");
    auto it = tutti::fuzz::Targets().find(name ? name : "");
    if (it == tutti::fuzz::Targets().end()) {
      fprintf(stderr, "TUTTI_FUZZ must name one of:");
      for (const auto& [known, target] : tutti::fuzz::Targets()) fprintf(stderr, " %s", known.c_str());
      fprintf(stderr, "\n");
      exit(2);
    }
    return it->second;
  }();
  kTarget(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
