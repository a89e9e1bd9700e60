#include "runtime/journal/step_path.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace tutti::step_path {
namespace {

TEST(StepPathTest, SegmentsStandBelowEachOther) {
  EXPECT_EQ(Below("", "one"), "one");
  EXPECT_EQ(Below("one", "two"), "one/two");
  EXPECT_EQ(Below("one", kAttempt, 2), "one/attempt-2");
  EXPECT_EQ(Below("", kOnError, 0), "on-error-0");
  EXPECT_EQ(Item("loop", 7), "loop/7");
}

TEST(StepPathTest, AStepContainsItselfAndWhatStandsBelow) {
  EXPECT_TRUE(IsAtOrBelow("one", "one"));
  EXPECT_TRUE(IsAtOrBelow("one/two", "one"));
  EXPECT_FALSE(IsAtOrBelow("one_more", "one"));
  EXPECT_FALSE(IsAtOrBelow("one", "one/two"));
  EXPECT_FALSE(IsAtOrBelow("one", ""));
}

TEST(StepPathTest, ASegmentBelowAStepIsKnownByItsWord) {
  EXPECT_TRUE(IsBelow("one/fallback-0/a", "one", kFallback));
  EXPECT_FALSE(IsBelow("one/a/fallback-0", "one", kFallback));
  EXPECT_FALSE(IsBelow("one", "one", kFallback));
  EXPECT_FALSE(IsBelow("one_more/fallback-0", "one", kFallback));
  EXPECT_TRUE(PassesThrough("one/compensate/undo", kCompensate));
  EXPECT_FALSE(PassesThrough("one/compensate", kCompensate));
  EXPECT_FALSE(PassesThrough("one/compensate/undo", kCompensate, 4));
}

TEST(StepPathTest, OnlyTheLastSegmentIsTakenAway) {
  EXPECT_EQ(Without("one/attempt-2", kAttempt), "one");
  EXPECT_EQ(Without("one/attempt-2/gate", kGate), "one/attempt-2");
  EXPECT_EQ(Without("one/attempt-2/two", kAttempt), std::nullopt);
  EXPECT_EQ(Without("attempt-2", kAttempt), std::nullopt);
}

TEST(StepPathTest, ItemsAreFoundFromTheOutsideIn) {
  std::vector<std::pair<std::string, int64_t>> items;
  const bool found = AnyItem("loop/7/inner/12/step", [&](const std::string& loop, int64_t index) {
    items.emplace_back(loop, index);
    return false;
  });
  EXPECT_FALSE(found);
  EXPECT_EQ(items, (std::vector<std::pair<std::string, int64_t>>{{"loop", 7}, {"loop/7/inner", 12}}));
  EXPECT_TRUE(AnyItem("loop/7", [](const std::string&, int64_t index) { return index == 7; }));
  EXPECT_FALSE(AnyItem("loop/attempt-2/a", [](const std::string&, int64_t) { return true; }));
}

}  // namespace
}  // namespace tutti::step_path
