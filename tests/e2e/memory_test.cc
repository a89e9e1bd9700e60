// One tenant's runs want more memory than there is: they fail, and nobody else's do.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/runs_fixture.h"

namespace tutti::testing {
namespace {

class MemoryTest : public RunsFixture {};

TEST_F(MemoryTest, HungryRunsFailAloneUnderALimitOfTheAddressSpace) {
  SuiteProcess::Options options;
  options.data_dir = NewTempDir("memory");
  suite_ = std::make_unique<SuiteProcess>(options);
  ASSERT_TRUE(suite_->Start());
  const rlimit limit{rlim_t{2500} << 20, rlim_t{2500} << 20};
  ASSERT_EQ(prlimit(suite_->pid(0), RLIMIT_AS, &limit, nullptr), 0);
  const char* const hungry[] = {
      R"(("x" * 500000000) as $a | [$a + "1", $a + "2", $a + "3", $a + "4"] | length)",
      "[range(9999)] | map([range(9999)]) | map(map([.])) | length",
      R"(reduce range(60) as $i ("x"; . + .) | length)",
      "[limit(100000000; repeat([range(100)]))] | length",
  };
  auto spec_of = [](const std::string& expression) {
    return absl::StrCat("name: hungry\nsteps:\n- id: eats\n  transform:\n    value: >-\n      ${ ", expression, " }\n");
  };
  // Sixty results of 3 MiB each.
  const char* const list = R"(
name: list
steps:
- id: all
  for_each: {items: '[range(60)]', steps: [{id: one, transform: {value: '${ "x" * 3000000 }'}}]}
)";
  const char* const innocent = R"(
name: innocent
steps:
- {id: one, agent: {agent: echo, input: '${ .input.number }'}}
- {id: two, tool: {tool: calculate, parameters: {expression: 1 + 2}}}
- {id: three, transform: {value: '${ [range(1000)] | add }'}}
)";
  struct Outcome {
    bool hungry = false;
    absl::StatusOr<workflow::v1::Run> run = absl::UnknownError("not started");
  };
  std::vector<Outcome> outcomes(36);
  std::vector<std::thread> callers;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    callers.emplace_back([&, i] {
      Outcome& out = outcomes[i];
      out.hungry = i % 3 != 0;
      workflow::v1::StartRunRequest request;
      request.set_tenant(out.hungry ? "hungry" : "innocent");
      *request.mutable_spec() = SpecFromYaml(!out.hungry  ? innocent
                                             : i % 6 == 1 ? std::string(list)
                                                          : spec_of(hungry[i % 4]));
      out.run = Start(std::move(request), Json{{"number", i}}, /*wait_seconds=*/120);
    });
  }
  for (auto& caller : callers) caller.join();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const Outcome& out = outcomes[i];
    ASSERT_TRUE(out.run.ok()) << i << ": " << out.run.status() << suite_->logs();
    EXPECT_EQ(out.run->state(), out.hungry ? workflow::v1::RUN_STATE_FAILED : workflow::v1::RUN_STATE_SUCCEEDED)
        << i << ": " << out.run->error().message();
  }
}

}  // namespace
}  // namespace tutti::testing
