#include "services/workflow-engine/domain/run_view.h"

#include <gtest/gtest.h>

#include "runtime/status/testing/matchers.h"

namespace tutti::engine {
namespace {

TEST(RunFilterTest, ReadsTermsJoinedByAnd) {
  tutti::state::v1::ListRunsRequest out;
  ASSERT_THAT(
      ParseRunFilter(
          "state = \"RUNNING\" AND workflow=brief AND labels.team = 'a b' AND create_time > \"2026-01-01T00:00:00Z\"",
          &out),
      testing::IsOk());
  EXPECT_EQ(out.state(), "RUNNING");
  EXPECT_EQ(out.workflow(), "brief");
  EXPECT_EQ(out.labels().at("team"), "a b");
  EXPECT_GT(out.created_after().seconds(), 1767225599);
  tutti::state::v1::ListRunsRequest none;
  EXPECT_THAT(ParseRunFilter("", &none), testing::IsOk());
}

TEST(RunFilterTest, NamesWhatItDoesNotKnow) {
  for (const auto& [filter, text] :
       std::vector<std::pair<std::string, std::string>>{{"stat = \"RUNNING\"", "did you mean \"state\"?"},
                                                        {"state = \"DONE\"", "must be PENDING"},
                                                        {"state", "an operator and a value"},
                                                        {"state != \"RUNNING\"", "no operator"},
                                                        {"state = \"RUNNING\" OR state = \"FAILED\"", "joined by AND"},
                                                        {"state = \"RUNNING", "not closed"},
                                                        {"create_time > yesterday", "must be compared with a time"},
                                                        {"state = RUNNING AND", "must follow AND"}}) {
    tutti::state::v1::ListRunsRequest out;
    EXPECT_THAT(ParseRunFilter(filter, &out), testing::HasCodeAndText(absl::StatusCode::kInvalidArgument, text))
        << filter;
  }
}

}  // namespace
}  // namespace tutti::engine
