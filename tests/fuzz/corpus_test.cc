// Runs each target over its corpus (tests/fuzz/corpus/NAME): inputs that once went wrong, and some that lead far in.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/fuzz/targets.h"

namespace tutti::fuzz {
namespace {

TEST(FuzzCorpusTest, NothingEndsOrHoldsTheProcess) {
  const char* source = getenv("TUTTI_SOURCE");
  ASSERT_NE(source, nullptr);
  for (const auto& [name, target] : Targets()) {
    const auto folder = std::filesystem::path(source) / "tests/fuzz/corpus" / name;
    int inputs = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      std::ifstream in(file.path(), std::ios::binary);
      std::stringstream text;
      text << in.rdbuf();
      const auto begin = std::chrono::steady_clock::now();
      target(text.str());
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2)) << file.path();
      ++inputs;
    }
    EXPECT_GT(inputs, 0) << folder;
  }
}

}  // namespace
}  // namespace tutti::fuzz
