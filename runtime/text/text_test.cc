#include <gtest/gtest.h>

#include "runtime/random/random.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/telemetry/trace.h"
#include "runtime/text/nearest_name.h"
#include "runtime/text/page_token.h"
#include "runtime/text/sentences.h"
#include "runtime/text/utf8.h"
#include "runtime/time/duration_text.h"
#include "runtime/time/testing/manual_time.h"

namespace tutti {
namespace {

TEST(Utf8Test, FindsTheFirstBadByte) {
  EXPECT_TRUE(IsValidUtf8("plain, ünïcödé, 漢字, 🎼"));
  EXPECT_EQ(FirstInvalidUtf8("ab\xff"), 2u);
  EXPECT_EQ(FirstInvalidUtf8("a\xc0\xaf"), 1u) << "overlong";
  EXPECT_EQ(FirstInvalidUtf8("\xed\xa0\x80"), 0u) << "surrogate";
  EXPECT_EQ(FirstInvalidUtf8("\xf4\x90\x80\x80"), 0u) << "past U+10FFFF";
  EXPECT_EQ(FirstInvalidUtf8("x\xe6\xbc"), 1u) << "cut off";
}

TEST(Utf8Test, PrefixNeverCutsACharacter) {
  EXPECT_EQ(Utf8Prefix("añb", 2), "a");
  EXPECT_EQ(Utf8Prefix("añb", 3), "añ");
}

TEST(NearestNameTest, WhatIsKnownIsNamed) {
  EXPECT_EQ(DidYouMeanOf("optimst", {"critic", "optimist"}), "; did you mean \"optimist\"? Known: critic, optimist");
  EXPECT_EQ(DidYouMeanOf("title", {"signal", "timeout"}), "; known: signal, timeout");
  EXPECT_EQ(DidYouMeanOf("x", {}), "; there is none here");
}

TEST(DurationTextTest, KnowsDaysAndWeeks) {
  auto parse = [](absl::string_view text) {
    absl::Duration out = -absl::InfiniteDuration();
    return ParseDurationText(text, &out) ? out : -absl::InfiniteDuration();
  };
  EXPECT_EQ(parse("30d"), absl::Hours(720));
  EXPECT_EQ(parse("1w2d3h"), absl::Hours(9 * 24 + 3));
  EXPECT_EQ(parse("1.5d"), absl::Hours(36));
  EXPECT_EQ(parse("90s"), absl::Seconds(90));
  EXPECT_EQ(parse("0"), absl::ZeroDuration());
  for (const char* wrong : {"", "d", "5", "1x", "-1d", "-5s", "1d-2h", "1d5", "1.2.3d", "d5"}) {
    EXPECT_EQ(parse(wrong), -absl::InfiniteDuration()) << wrong;
  }
}

TEST(NearestNameTest, OffersWhatIsNearAndNothingElse) {
  EXPECT_EQ(NearestName("gatway.http-port", {"gateway.http-port", "peers.gateway"}), "gateway.http-port");
  EXPECT_EQ(NearestName("zzz", {"gateway", "peers"}), "");
}

TEST(PageTokenTest, IsBoundToItsRequest) {
  std::string token = EncodePageToken("01abc", "runs/state=1");
  EXPECT_EQ(token.find_first_of("+/"), std::string::npos);
  auto cursor = DecodePageToken(token, "runs/state=1");
  ASSERT_THAT(cursor, testing::IsOk());
  EXPECT_EQ(*cursor, "01abc");
  EXPECT_THAT(DecodePageToken(token, "runs/other"), testing::HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(DecodePageToken("rubbish!", "runs/state=1"), testing::HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(SentencesTest, KeepsAbbreviationsAndNumbersTogether) {
  auto sentences = SplitSentences("See e.g. version 4.6 of it. The next one (really). Done!");
  ASSERT_EQ(sentences.size(), 3u);
  EXPECT_EQ(sentences[0], "See e.g. version 4.6 of it.");
}

TEST(SentencesTest, JoinsWordsDividedAtLineEnds) {
  EXPECT_EQ(NormaliseText("pack-\nage  and\nmore"), "package and more");
}

TEST(TermsTest, JoinsForms) {
  EXPECT_EQ(Terms("The packages"), Terms("package"));
  EXPECT_TRUE(Terms("of the and").empty());
  EXPECT_EQ(Terms("“Depends” — package’s"), Terms("depends package")) << "a lone s is too short to count";
}

TEST(TraceContextTest, RoundTripsAndRefusesRubbish) {
  std::string text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_EQ(TraceContext::FromTraceparent(text).ToTraceparent(), text);
  EXPECT_TRUE(TraceContext::FromTraceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").valid());
  for (const char* bad : {"", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                          "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x"}) {
    EXPECT_FALSE(TraceContext::FromTraceparent(bad).valid()) << bad;
  }
}

TEST(IdSourceTest, UlidsGrowEvenWhenTheClockDoesNot) {
  testing::ManualTime time;
  Xoshiro rng(1);
  IdSource ids(time, rng);
  std::string last;
  for (int i = 0; i < 1000; ++i) {
    std::string id = ids.NewUlid();
    EXPECT_EQ(id.size(), 26u);
    EXPECT_GT(id, last);
    last = id;
  }
}

}  // namespace
}  // namespace tutti
