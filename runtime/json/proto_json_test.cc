#include "runtime/json/proto_json.h"

#include <gtest/gtest.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "tutti/config/v1/config.pb.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti {
namespace {

using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;
using tutti::workflow::v1::StartRunRequest;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Returns the JSON of the message that was read from `text`, or the error.
std::string Again(const std::string& text) {
  StartRunRequest request;
  absl::Status status = JsonToProto(text, &request);
  return status.ok() ? ProtoToJson(request) : std::string(status.message());
}

TEST(ProtoJsonTest, TheMappingIsThatOfProto3) {
  const std::string text =
      R"({"workflow":"w","workflowVersion":"12345678901","input":{"a":[1,"x",null,true]},"requestId":"r","labels":{"k":"v"},"waitTimeout":"1.500s"})";
  EXPECT_EQ(Json::parse(Again(text)), Json::parse(text));
  EXPECT_EQ(Json::parse(Again(R"({"workflow_version":3,"request_id":"r","wait_timeout":"2s"})")),
            Json::parse(R"({"workflowVersion":"3","requestId":"r","waitTimeout":"2s"})"))
      << "original names and numbers are taken too";
  EXPECT_EQ(Again(R"({"input":null})"), R"({"input":null})") << "a Value's null is a value";
  EXPECT_EQ(Again(R"({"workflow":null,"labels":null})"), "{}") << "null is a field's default";
  EXPECT_EQ(Again("{}"), "{}");
}

TEST(ProtoJsonTest, NumbersInsideValuesKeepTheirText) {
  const std::string text = R"({"input":[12345678901234567890123,1.10,9007199254740993,-0.1,1e400,3]})";
  EXPECT_EQ(Again(text), text);
  StartRunRequest request;
  ASSERT_THAT(JsonToProto(text, &request), IsOk());
  StartRunRequest wired;
  ASSERT_TRUE(wired.ParseFromString(request.SerializeAsString()));
  EXPECT_EQ(ProtoToJson(wired), text) << "also over the wire";
  EXPECT_EQ(wired.input().list_value().values(2).number_value(), 9007199254740992.0) << "others see the double";
}

TEST(ProtoJsonTest, WhatDoesNotFitNamesItsPlace) {
  StartRunRequest request;
  auto read = [&](const char* text) {
    request.Clear();
    return JsonToProto(text, &request);
  };
  EXPECT_THAT(read(R"({"wrkflow":1})"), HasCodeAndText(kInvalid, "did you mean \"workflow\"?"));
  EXPECT_THAT(read(R"({"spec":{"steps":[{"agent":{"agnt":"x"}}]}})"),
              HasCodeAndText(kInvalid, "(spec.steps[0].agent) agnt: Cannot find field"));
  EXPECT_THAT(read(R"({"workflow":5})"), HasCodeAndText(kInvalid, "(workflow) must be text, not 5"));
  EXPECT_THAT(read(R"({"workflowVersion":"x"})"), HasCodeAndText(kInvalid, "must be a whole number"));
  EXPECT_THAT(read(R"({"workflowVersion":9223372036854775808})"), HasCodeAndText(kInvalid, "must be a whole number"));
  EXPECT_THAT(read(R"({"waitTimeout":"soon"})"), HasCodeAndText(kInvalid, "must be a duration"));
  EXPECT_THAT(read(R"({"labels":{"k":5}})"), HasCodeAndText(kInvalid, "(labels.k) must be text"));
  EXPECT_THAT(read(R"({"workflow":"a","spec":{}})"), HasCodeAndText(kInvalid, "only one of them"));
  EXPECT_THAT(read("[1,]"), HasCodeAndText(kInvalid, "line 1, column 4"));
  EXPECT_THAT(read("{'workflow':1}"), HasCodeAndText(kInvalid, "a name in quotation marks"));
  EXPECT_THAT(read("5"), HasCodeAndText(kInvalid, "must be an object"));
  for (const char* number : {R"("NaN")", R"("Infinity")", R"("-Infinity")", "1e400"}) {
    const std::string spec = absl::StrCat(R"({"spec":{"steps":[{"retry":{"backoffMultiplier":)", number, "}}]}}");
    EXPECT_THAT(read(spec.c_str()),
                HasCodeAndText(kInvalid, "(spec.steps[0].retry.backoffMultiplier) must be a number"));
  }
}

TEST(ProtoJsonTest, NothingMayStandTwice) {
  StartRunRequest request;
  auto read = [&](const char* text) {
    request.Clear();
    return JsonToProto(text, &request);
  };
  EXPECT_THAT(read(R"({"workflow":"a","workflow":"b"})"),
              HasCodeAndText(kInvalid, "line 1, column 28: \"workflow\" stands here twice"));
  EXPECT_THAT(read(R"({"labels":{"k":"1","k":"2"}})"), HasCodeAndText(kInvalid, "\"k\" stands here twice"));
  EXPECT_THAT(read(R"({"input":[{"k":1,"k":2}]})"), HasCodeAndText(kInvalid, "\"k\" stands here twice"));
  EXPECT_THAT(read(R"({"requestId":"a","request_id":"b"})"), HasCodeAndText(kInvalid, "also as requestId"));
  EXPECT_THAT(read(R"({"request_id":"b","requestId":"a"})"), HasCodeAndText(kInvalid, "also as requestId"));
  EXPECT_THAT(read(R"({"input":[{"k":1},{"k":2}],"labels":{"k":"2"}})"), IsOk());
}

TEST(ProtoJsonTest, DepthIsBoundedBeforeAnythingIsBuilt) {
  StartRunRequest request;
  auto nested = [](int depth) {
    return "{\"input\":" + std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']') +
           "}";
  };
  EXPECT_THAT(JsonToProto(nested(30), &request), IsOk());
  EXPECT_THAT(JsonToProto(nested(31), &request), HasCodeAndText(kInvalid, "(input) is nested deeper than 30 levels"));
  EXPECT_THAT(JsonToProto(nested(60), &request), HasCodeAndText(kInvalid, "nested deeper than 30 levels"));
  // The body that held a gateway for ten minutes: refused at its hundredth bracket.
  const std::string hostile = "{\"workflow\":\"hello\",\"input\":{\"text\":" + std::string(2'000'000, '[');
  auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(JsonToProto(hostile, &request), HasCodeAndText(kInvalid, "nested deeper than 100 levels"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
}

TEST(ProtoJsonTest, TheNumberOfValuesIsBounded) {
  StartRunRequest request;
  std::string many = "{\"input\":[0";
  for (int i = 0; i < 2'000'001; ++i) many += ",0";
  many += "]}";
  EXPECT_THAT(JsonToProto(many, &request), HasCodeAndText(kInvalid, "more than 2000000 values"));
}

TEST(ProtoJsonTest, EmptyListsAndDefaultsAreWrittenWhereAskedFor) {
  tutti::workflow::v1::ListRunsResponse response;
  EXPECT_EQ(ProtoToJson(response, {.empty_lists = true}), R"({"runs":[]})");
  tutti::config::v1::HttpSecret secret;
  EXPECT_EQ(ProtoToJson(secret, {.original_names = true, .defaults = true}),
            R"({"name":"","value":"","file":"","hosts":[]})");
}

TEST(ProtoJsonTest, IndentsWithoutChangingAnything) {
  EXPECT_EQ(IndentJson(R"({"a":[1,{"b":"x,{\"y"}],"c":{},"d":[]})"),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x,{\\\"y\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}");
}

}  // namespace
}  // namespace tutti
