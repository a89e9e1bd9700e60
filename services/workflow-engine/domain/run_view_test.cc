#include "services/workflow-engine/domain/run_view.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
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

TEST(RunViewTest, AsManyStepsAsFitAreShownAndAlwaysTheSpecsOwn) {
  tutti::workflow::v1::Run run;
  StepRecords records(run, /*outputs=*/false);
  tutti::state::v1::JournalEntry entry;
  entry.mutable_time()->set_seconds(1);
  constexpr int kRounds = 100000;
  for (int i = 0; i < kRounds; ++i) {
    entry.mutable_step_completed()->set_path(absl::StrCat("loop/", i, "/step"));
    entry.mutable_step_completed()->set_kind("transform");
    records.Apply(entry);
  }
  entry.mutable_step_completed()->set_path("loop");
  records.Apply(entry);
  EXPECT_LT(run.ByteSizeLong(), size_t{4} << 20);
  EXPECT_GT(run.steps_size(), 10000);
  EXPECT_EQ(run.omitted_steps(), kRounds + 1 - run.steps_size());
  EXPECT_EQ(run.steps().rbegin()->path(), "loop");
  // The same step once more is the same record.
  const int before = run.steps_size();
  entry.mutable_step_completed()->set_path("loop/5/step");
  records.Apply(entry);
  EXPECT_EQ(run.steps_size(), before);
}

}  // namespace
}  // namespace tutti::engine
