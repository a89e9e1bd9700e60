#include "services/workflow-engine/domain/expression.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>

#include "runtime/async/scope.h"
#include "runtime/async/sync_wait.h"
#include "runtime/async/testing/manual_executor.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"

namespace tutti::engine {
namespace {

using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class ExpressionTest : public ::testing::Test {
 protected:
  ExpressionTest() {
    outer_.Set("input", std::make_shared<const Json>(
                            Json{{"topic", "tides"}, {"n", 3}, {"list", {1, 2, 3}}, {"none", nullptr}}));
    outer_.Set("a", std::make_shared<const Json>(Json{{"x", {{"y", {10, 20}}}}}));
  }
  Json Get(const std::string& text) {
    auto value = SyncWait(evaluator_.Expand(Json(text), inner_, context_));
    EXPECT_THAT(value, IsOk()) << text;
    return value.ok() ? *value : Json();
  }
  absl::StatusOr<Json> Evaluate(const std::string& expression) {
    return SyncWait(evaluator_.Evaluate(expression, inner_, context_));
  }
  bool Holds(const std::string& condition) {
    auto value = SyncWait(evaluator_.EvaluateCondition(condition, inner_, context_));
    EXPECT_THAT(value, IsOk()) << condition;
    return value.ok() && *value;
  }
  Evaluator::Context context_;
  Evaluator evaluator_;
  Variables outer_;
  Variables inner_{&outer_};
};

TEST_F(ExpressionTest, PathsAndJqAgree) {
  // Each pair: the fast way, and the same thing in a form that goes through the machine.
  for (const auto& [path, jq] :
       std::vector<std::pair<std::string, std::string>>{{".input.topic", "(.input.topic)"},
                                                        {".a.x.y[1]", "(.a.x.y[1])"},
                                                        {".input.missing", "(.input.missing)"},
                                                        {".input.none.deeper", "(.input.none.deeper)"},
                                                        {".a.x.y[9]", "(.a.x.y[9])"},
                                                        {".a", "(.a)"}}) {
    EXPECT_EQ(Get("${ " + path + " }"), Get("${ " + jq + " }")) << path;
  }
}

TEST_F(ExpressionTest, AStringThatIsOneExpressionKeepsTheType) {
  EXPECT_EQ(Get("${ .input.n }"), Json(3));
  EXPECT_EQ(Get("${ [.input.list[] | . * 2] }"), Json({2, 4, 6}));
  EXPECT_EQ(Get("n is ${ .input.n }, topic ${ .input.topic }"), Json("n is 3, topic tides"));
  EXPECT_EQ(Get("${ {a: .input.n} }"), Json({{"a", 3}}));
  EXPECT_EQ(Get("no expression"), Json("no expression"));
  EXPECT_EQ(Get("${ \"}\" }"), Json("}"));
}

TEST_F(ExpressionTest, InnerNamesHideOuterOnes) {
  inner_.Set("a", std::make_shared<const Json>(1));
  EXPECT_EQ(Get("${ .a }"), Json(1));
  EXPECT_EQ(Get("${ .a + .input.n }"), Json(4));
}

TEST_F(ExpressionTest, IdentitySeesEverything) { EXPECT_EQ(Get("${ . | keys }"), Json({"a", "input"})); }

TEST_F(ExpressionTest, ErrorsNameTheExpression) {
  EXPECT_THAT(Evaluate(".input.topic.deeper"), HasCodeAndText(kInvalid, "cannot index string"));
  EXPECT_THAT(Evaluate("(.input.topic | .deeper)"), HasCodeAndText(kInvalid, "at 1:17: Cannot index string"));
  EXPECT_THAT(evaluator_.CheckExpression("1 +"), HasCodeAndText(kInvalid, "syntax error"));
  EXPECT_THAT(evaluator_.CheckTemplate(Json{{"x", "${ .a"}}), HasCodeAndText(kInvalid, "without }"));
}

TEST_F(ExpressionTest, RefusesWhatLooksOutside) {
  for (const char* bad : {"env.HOME", "$ENV.HOME", "input", "[inputs]", "\"\\(env.HOME)\"", "halt", "halt_error",
                          "include \"x\"; .", "import \"x\" as $y; .", "input_filename", "# \"\nenv\n# \""}) {
    EXPECT_THAT(evaluator_.CheckExpression(bad), HasCodeAndText(kInvalid, "not allowed")) << bad;
  }
  for (const char* good : {".input.def | length", "(.input.input | length)", "{input: 1}", "\"env\"", "# env\n1"}) {
    EXPECT_THAT(evaluator_.CheckExpression(good), IsOk()) << good;
  }
}

TEST_F(ExpressionTest, InterpolationIsCodeInAString) {
  EXPECT_EQ(Get("${ \"topic \\(.input.topic), n \\(.input.n + 1)\" }"), Json("topic tides, n 4"));
}

TEST_F(ExpressionTest, EndsWhatTakesTooLong) {
  for (const char* endless : {"def f: f; f", "[repeat(1)] | length", "last(range(1e15))", "until(false; .)",
                              "[[range(300)], [range(300)], [range(300)], [range(300)]] | [combinations] | length"}) {
    auto value = Evaluate(endless);
    EXPECT_EQ(value.status().code(), kInvalid) << endless;
    std::string reason = ReasonOf(value.status());
    EXPECT_TRUE(reason == "EXPRESSION_TOO_LONG" || reason == "EXPRESSION_TOO_LARGE") << endless << reason;
  }
  EXPECT_EQ(ReasonOf(Evaluate("try until(false; .) catch 1").status()), "EXPRESSION_TOO_LONG") << "nothing catches it";
}

TEST_F(ExpressionTest, EndsWhatTakesTooMuchMemory) {
  for (const char* large : {"\"x\" * 1000000000 | length", "reduce range(200) as $i (\"x\"; . + .)",
                            "(\"x\" * 50000000) as $a | [$a + \"1\", $a + \"2\"] | length", "def f: [f]; f",
                            "reduce range(100000) as $i (0; [.])", "def f: 1 + f; f"}) {
    std::string reason = ReasonOf(Evaluate(large).status());
    EXPECT_TRUE(reason == "EXPRESSION_TOO_LARGE" || reason == "EXPRESSION_TOO_LONG") << large << reason;
  }
  EXPECT_THAT(Evaluate("try (.[999999999] = 0) catch ."), IsOk()) << "refused before it is allocated";
}

TEST_F(ExpressionTest, ALongEvaluationPausesOften) {
  // Each slice goes through the queue: between two of them others have their turn.
  class Counting final : public Executor {
   public:
    void Post(absl::AnyInvocable<void()> fn) override { posted_.push_back(std::move(fn)); }
    int Run() {
      int turns = 0;
      while (!posted_.empty()) {
        auto next = std::move(posted_.front());
        posted_.pop_front();
        ++turns;
        next();
      }
      return turns;
    }

   private:
    std::deque<absl::AnyInvocable<void()>> posted_;
  };
  Counting executor;
  expressions::EvaluationQueue queue(executor);
  Evaluator evaluator({.limits = {.time = absl::Seconds(20)}, .queue = &queue});
  Evaluator::Context context{.tenant = "t", .executor = &executor};
  std::optional<absl::StatusOr<Json>> out;
  auto into = [](Task<absl::StatusOr<Json>> task, std::optional<absl::StatusOr<Json>>& out) -> Task<void> {
    out = co_await std::move(task);
  };
  Scope scope;
  scope.Spawn(executor, into(evaluator.Evaluate("[range(300000)] | map(. + 1) | length", inner_, context), out));
  int turns = executor.Run();
  ASSERT_TRUE(out.has_value());
  EXPECT_EQ(**out, Json(300000));
  // A number costs at least three instructions, so there are at least 90 slices of 10,000 steps.
  EXPECT_GE(turns, 90);
}

TEST_F(ExpressionTest, ATenantsManyEvaluationsLeaveSeatsForOthers) {
  tutti::testing::ManualExecutor executor;
  expressions::EvaluationQueue queue(executor);
  Evaluator evaluator({.limits = {.time = absl::Seconds(20)}, .queue = &queue});
  Evaluator::Context many{.tenant = "many", .executor = &executor}, one{.tenant = "one", .executor = &executor};
  std::vector<std::string> ended;
  auto note = [&](Task<absl::StatusOr<Json>> task, std::string name) -> Task<void> {
    auto out = co_await std::move(task);
    EXPECT_THAT(out, tutti::testing::IsOk());
    ended.push_back(name);
  };
  Scope scope;
  for (int i = 0; i < 8; ++i) {
    scope.Spawn(executor, note(evaluator.Evaluate("[range(30000)] | length", inner_, many), "many"));
  }
  scope.Spawn(executor, note(evaluator.Evaluate("[range(30000)] | map(. + 1) | length", inner_, one), "one"));
  executor.RunUntilIdle();
  ASSERT_EQ(ended.size(), 9U);
  const auto place = std::find(ended.begin(), ended.end(), "one") - ended.begin();
  EXPECT_LE(place, 4) << "the others' six wait for seats meanwhile";
}

TEST_F(ExpressionTest, AStoppedRunStopsItsEvaluation) {
  context_.stopped = [] { return true; };
  EXPECT_THAT(Evaluate("last(range(1e9))"), tutti::testing::HasCode(absl::StatusCode::kCancelled));
}

TEST_F(ExpressionTest, NumbersKeepWhatTheySay) {
  auto exact = ParseJson(R"({"id": 12345678901234567890123, "price": 1.10, "n": 9007199254740993})");
  ASSERT_THAT(exact, IsOk());
  inner_.Set("x", std::make_shared<const Json>(*exact));
  EXPECT_EQ(DumpJson(Get("${ .x }")), R"({"id":12345678901234567890123,"n":9007199254740993,"price":1.10})");
  EXPECT_EQ(DumpJson(Get("${ {a: .x.id, b: [.x.n]} }")), R"({"a":12345678901234567890123,"b":[9007199254740993]})");
  EXPECT_EQ(Get("id ${ .x.id } price ${ .x.price }"), Json("id 12345678901234567890123 price 1.10"));
  EXPECT_EQ(Get("${ .x.n == 9007199254740992 }"), Json(false)) << "compared as they are written";
  EXPECT_EQ(Get("${ .x.price == 1.1 }"), Json(true));
  EXPECT_EQ(DumpJson(Get("${ .x.n + 0 }")), "9007199254740992") << "arithmetic is upon doubles";
}

TEST_F(ExpressionTest, ConditionsFollowJqTruth) {
  EXPECT_TRUE(Holds("${ .input.n >= 3 }"));
  EXPECT_TRUE(Holds(".input.n == 3 and (.input.topic | length) > 2"));
  EXPECT_FALSE(Holds("${ .input.missing }"));
  EXPECT_TRUE(Holds("0"));
}

TEST_F(ExpressionTest, KeepsABoundedNumberOfPrograms) {
  for (int i = 0; i < 300; ++i) EXPECT_EQ(Get("${ (.input.n + " + std::to_string(i) + ") }"), Json(3 + i));
  EXPECT_EQ(Get("${ (.input.n + 0) }"), Json(3));
}

TEST_F(ExpressionTest, ProgramsWithoutParenthesesMayBeDeepToo) {
  Evaluator evaluator;
  auto repeat = [](const std::string& first, const std::string& more, int times) {
    std::string out = first;
    for (int i = 0; i < times; ++i) out += more;
    return out;
  };
  for (const std::string& deep :
       {repeat("1", "+1", 15000), repeat("\"a\"", "+\"a\"", 8000), repeat(".", "[0]", 10000), repeat(".a", "?", 30000),
        repeat(".a", "?.a", 10000), "[" + repeat("1", "+1", 15000) + ", 2]", ". as [$x] | " + repeat("$x", "*2", 15000),
        "def f: " + repeat("1", "-1", 15000) + "; f",
        "reduce .[] as {(" + repeat("1", "+1", 10000) + "): $x} (0; .)"}) {
    EXPECT_THAT(evaluator.CheckExpression(deep),
                HasCodeAndText(absl::StatusCode::kInvalidArgument, "operators stand one inside another"))
        << deep.substr(0, 30);
  }
  EXPECT_THAT(evaluator.CheckExpression(repeat("1", "+1", 1900)), IsOk());
  EXPECT_THAT(evaluator.CheckExpression("[" + repeat("1", ",1", 16000) + "]"), IsOk()) << "a list of data";
}

TEST_F(ExpressionTest, ComparisonsInsideOfBuiltinsEnd) {
  Evaluator evaluator;
  Variables none;
  const std::string twin =
      "(reduce range(60) as $i ([\"x\"]; [.,.])) as $x | (reduce range(60) as $i ([\"x\"]; [.,.])) as $y | ";
  for (const char* end : {"[$x, $y] | min_by(.) | length", "[$x, $y] | max | length", "[$x, $y] | unique | length",
                          "[$x, $y] | group_by(.) | length", "[$x, $y] | sort | length", "[$x] - [$y] | length",
                          "[$x, $y] | unique_by(.) | length", "[$x] | bsearch($y)",
                          "[$x, $y, $x] | indices([$y]) | length", "$x | index([$y[0]])", "[$x, $x] | index([$y])"}) {
    auto out = SyncWait(evaluator.Evaluate(twin + end, none, {}));
    EXPECT_EQ(ReasonOf(out.status()), "EXPRESSION_TOO_LONG") << end;
  }
}

TEST_F(ExpressionTest, WhatResultsShareIsBoundedWhenItIsCopied) {
  Evaluator evaluator;
  Variables none;
  for (const char* large : {"reduce range(25) as $i ([\"x\"]; [.,.])", "reduce range(60) as $i ([\"x\"]; [.,.])",
                            "(\"x\" * 10000) as $x | [range(5000) | $x]"}) {
    auto out = SyncWait(evaluator.Evaluate(large, none, {}));
    EXPECT_THAT(out, HasCodeAndText(absl::StatusCode::kInvalidArgument, "the result takes more than 32 MiB")) << large;
    EXPECT_EQ(ReasonOf(out.status()), "EXPRESSION_TOO_LARGE");
  }
  auto fits = SyncWait(evaluator.Evaluate("[range(100000)]", none, {}));
  EXPECT_THAT(fits, IsOk());
}

}  // namespace
}  // namespace tutti::engine
