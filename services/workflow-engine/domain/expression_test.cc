#include "services/workflow-engine/domain/expression.h"

#include <gtest/gtest.h>

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
    auto value = evaluator_.Expand(Json(text), inner_);
    EXPECT_THAT(value, IsOk()) << text;
    return value.ok() ? *value : Json();
  }
  Evaluator evaluator_;
  Variables outer_;
  Variables inner_{&outer_};
};

TEST_F(ExpressionTest, PathsAndJqAgree) {
  // Each pair: the fast way, and the same thing in a form that goes through libjq.
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
  EXPECT_THAT(evaluator_.Evaluate(".input.topic.deeper", inner_), HasCodeAndText(kInvalid, "cannot index string"));
  EXPECT_THAT(evaluator_.Evaluate("(.input.topic | .deeper)", inner_), HasCodeAndText(kInvalid, "Cannot index string"));
  EXPECT_THAT(evaluator_.CheckExpression("1 +"), HasCodeAndText(kInvalid, "syntax error"));
  EXPECT_THAT(evaluator_.CheckTemplate(Json{{"x", "${ .a"}}), HasCodeAndText(kInvalid, "without }"));
}

TEST_F(ExpressionTest, RefusesWhatMayNotEndOrLooksOutside) {
  for (const char* bad : {"def f: f; f", "repeat(1)", "env.HOME", "$ENV.HOME", "input", "[range(infinite)]",
                          "\"\\(env.HOME)\"", "_range(0; 9)", "last(while(true; .))"}) {
    EXPECT_THAT(evaluator_.CheckExpression(bad), HasCodeAndText(kInvalid, "not allowed")) << bad;
  }
  EXPECT_THAT(evaluator_.CheckExpression(".input.def | length"), IsOk()) << "fields may have any name";
  EXPECT_THAT(evaluator_.CheckExpression("(.input.input | length)"), IsOk());
  EXPECT_THAT(evaluator_.CheckExpression("{input: 1}"), IsOk());
  EXPECT_THAT(evaluator_.CheckExpression("# \"\nenv\n# \""),
              tutti::testing::HasCode(absl::StatusCode::kInvalidArgument))
      << "a comment may not hide what follows";
  EXPECT_THAT(evaluator_.Evaluate("[range(2000000)] | length", inner_),
              HasCodeAndText(kInvalid, "range of more than 10000"));
  EXPECT_THAT(evaluator_.Evaluate("[range(0; 1e12; 1)] | length", inner_),
              HasCodeAndText(kInvalid, "range of more than 10000"));
  EXPECT_EQ(Get("${ [range(0; 10; 5)] }"), Json({0, 5}));
  EXPECT_EQ(Get("${ [range(3)] }"), Json({0, 1, 2}));
}

TEST_F(ExpressionTest, ConditionsFollowJqTruth) {
  EXPECT_TRUE(*evaluator_.EvaluateCondition("${ .input.n >= 3 }", inner_));
  EXPECT_TRUE(*evaluator_.EvaluateCondition(".input.n == 3 and (.input.topic | length) > 2", inner_));
  EXPECT_FALSE(*evaluator_.EvaluateCondition("${ .input.missing }", inner_));
  EXPECT_TRUE(*evaluator_.EvaluateCondition("0", inner_));
}

TEST_F(ExpressionTest, KeepsABoundedNumberOfPrograms) {
  for (int i = 0; i < 300; ++i) EXPECT_EQ(Get("${ (.input.n + " + std::to_string(i) + ") }"), Json(3 + i));
  EXPECT_EQ(Get("${ (.input.n + 0) }"), Json(3));
}

}  // namespace
}  // namespace tutti::engine
