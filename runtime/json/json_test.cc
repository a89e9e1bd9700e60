#include "runtime/json/json.h"

#include <google/protobuf/struct.pb.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "runtime/random/random.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/text/utf8.h"

#include "tutti/type/v1/payload.pb.h"

namespace tutti {
namespace {

std::string RandomText(Rng& rng) {
  static const std::vector<std::string> kPieces = {
      "a",    "some words", "\"",           "\\", "/",    std::string(1, '\0'),
      "\b",   "\t",         "\n",           "\v", "\f",   "\r",
      "\x1b", "\x1f",       "\x7f",         "ä",  "漢字", "\U0001F600",
      "\xff", "\xc3",       "\xed\xa0\x80", "<",  "'",    "\u2028"};
  std::string out;
  for (uint64_t n = rng.Next() % 5; n > 0; --n) out += kPieces[rng.Next() % kPieces.size()];
  return out;
}

Json RandomJson(Rng& rng, int depth) {
  switch (rng.Next() % (depth > 0 ? 10 : 8)) {
    case 0:
      return nullptr;
    case 1:
      return rng.Next() % 2 == 0;
    case 2:
      return static_cast<int64_t>(rng.Next());
    case 3:
      return rng.Next();
    case 4:
      return static_cast<double>(static_cast<int64_t>(rng.Next())) / 1e6;
    case 8: {
      Json out = Json::object();
      for (uint64_t n = rng.Next() % 4; n > 0; --n) out[RandomText(rng)] = RandomJson(rng, depth - 1);
      return out;
    }
    case 9: {
      Json out = Json::array();
      for (uint64_t n = rng.Next() % 4; n > 0; --n) out.push_back(RandomJson(rng, depth - 1));
      return out;
    }
    default:
      return RandomText(rng);
  }
}

TEST(Json, IsWrittenAsTheLibraryWritesIt) {
  Xoshiro rng(7);
  for (int i = 0; i < 20000; ++i) {
    Json value = RandomJson(rng, 4);
    ASSERT_EQ(DumpJson(value), value.dump(-1, ' ', false, Json::error_handler_t::replace));
    ASSERT_EQ(DumpJson(value, 2), value.dump(2, ' ', false, Json::error_handler_t::replace));
  }
}

// The two parsers agree, also on what is no JSON, and errors are the library's.
TEST(Json, IsReadAsTheLibraryReadsIt) {
  std::vector<std::string> texts = {"",
                                    " ",
                                    "null",
                                    "nul",
                                    "nullx",
                                    "true ",
                                    "[1,2,]",
                                    "{\"a\":1,\"a\":2}",
                                    "{\"a\":1,}",
                                    "[1 2]",
                                    "-",
                                    "-0",
                                    "-0.0",
                                    "01",
                                    "1.",
                                    "1e5",
                                    "1E+2",
                                    "1e-400",
                                    "9223372036854775807",
                                    "9223372036854775808",
                                    "18446744073709551615",
                                    "18446744073709551616",
                                    "-9223372036854775808",
                                    "-9223372036854775809",
                                    "0.1",
                                    "123456789012345678901234567890",
                                    "\"\\u0000\"",
                                    "\"\\ud800\"",
                                    "\"\\ud83d\\ude00\"",
                                    "\"\\udc00\"",
                                    "\"\\x\"",
                                    "\"\t\"",
                                    "\"a",
                                    "\xef\xbb\xbf[1]",
                                    "[\"\xff\"]",
                                    "{1:2}",
                                    "{\"a\" 1}",
                                    "[]]",
                                    "[[]",
                                    "\"\\ud83dx\"",
                                    "NaN",
                                    "/* no */ 1",
                                    "'a'"};
  for (int depth : {29, 30, 31, 32, 2000}) {
    std::string open, close;
    for (int i = 0; i < depth; ++i) {
      open += i % 2 ? "[" : "{\"k\":";
      close.insert(0, i % 2 ? "]" : "}");
    }
    texts.push_back(open + "1" + close);
    texts.push_back(open + close);
  }
  Xoshiro rng(9);
  for (int i = 0; i < 5000; ++i) {
    std::string text = DumpJson(RandomJson(rng, 4));
    for (uint64_t n = rng.Next() % 3; n > 0 && !text.empty(); --n) {
      static constexpr char kBytes[] = "{}[]\",:0-e.\\ut \xc3";
      text[rng.Next() % text.size()] = kBytes[rng.Next() % (sizeof(kBytes) - 1)];
    }
    texts.push_back(text);
  }
  for (const auto& text : texts) {
    SCOPED_TRACE(text.substr(0, 200));
    // A number that no double can hold is kept here, and refused by the library.
    if (auto kept = ParseJson(text); kept.ok() && !Json::accept(text)) {
      EXPECT_TRUE(HasExactNumber(*kept));
      continue;
    }
    auto read = ParseJsonWithDoubles(text);
    if (!IsValidUtf8(text) || JsonDepth(text) > kMaxJsonDepth || !Json::accept(text)) {
      EXPECT_FALSE(read.ok());
      continue;
    }
    Json expected = Json::parse(text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, expected);
    if (text != "-0") {
      EXPECT_EQ(read->type(), expected.type());
    }
    EXPECT_EQ(DumpJson(*read), DumpJson(expected));
  }
}

TEST(Json, NumbersKeepTheirText) {
  for (const char* text : {"1.10", "1e5", "1E+2", "1e400", "-1e400", "1e-400", "18446744073709551616", "0.1", "3",
                           "-9223372036854775809", "123456789012345678901234567890", "1.0", "100.250"}) {
    auto read = ParseJson(text);
    ASSERT_TRUE(read.ok()) << text;
    EXPECT_EQ(DumpJson(*read), text);
    EXPECT_TRUE(IsNumber(*read)) << text;
    google::protobuf::Value value;
    ToProto(*read, &value);
    google::protobuf::Value wired;
    ASSERT_TRUE(wired.ParseFromString(value.SerializeAsString()));
    EXPECT_EQ(DumpJson(ToJson(wired)), text);
    tutti::type::v1::Payload payload;
    ToPayload(*read, &payload);
    EXPECT_EQ(DumpJson(*FromPayload(payload)), text);
  }
  EXPECT_TRUE(SameJson(*ParseJson("[1.10, 2]"), *ParseJson("[1.1, 2.0]")));
  EXPECT_FALSE(SameJson(*ParseJson("12345678901234567890123"), *ParseJson("12345678901234567890124")));
  EXPECT_FALSE(SameJson(*ParseJson("1e99999999999999999999999"), *ParseJson("1e5"))) << "exponents of any length";
  EXPECT_TRUE(SameJson(*ParseJson("0e99999999999999999999999"), *ParseJson("0")));
  // Journals of version 0.1 have no mark: their numbers are doubles.
  tutti::type::v1::Payload old;
  old.set_data("[1.10,12345678901234567890123]");
  EXPECT_EQ(DumpJson(*FromPayload(old)), "[1.1,1.2345678901234568e+22]");
}

TEST(Json, WhatIsWrittenIsReadAgain) {
  Xoshiro rng(8);
  for (int i = 0; i < 5000; ++i) {
    std::string text = DumpJson(RandomJson(rng, 4));
    if (text.find("\uFFFD") != std::string::npos) continue;  // keys may have become the same
    auto read = ParseJson(text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(DumpJson(*read), text);
  }
}

TEST(Json, ASchemaCannotDivideByZero) {
  for (const char* step : {"0", "0.0", "-1", "-0.5", "1e-999"}) {
    const Json schema = *ParseJson(absl::StrCat(R"({"properties":{"n":{"type":"integer","multipleOf":)", step, "}}}"));
    absl::Status status = ValidateJson(schema, Json{{"n", 5}}, "input");
    EXPECT_EQ(ReasonOf(status), "INVALID_SCHEMA") << step;
  }
  const Json schema = *ParseJson(R"({"type":"integer","multipleOf":3})");
  EXPECT_THAT(ValidateJson(schema, Json(9), "input"), testing::IsOk());
  EXPECT_EQ(ReasonOf(ValidateJson(schema, Json(10), "input")), "SCHEMA_VIOLATION");
}

}  // namespace
}  // namespace tutti
