// What programs of the language mean: each with an input and all its results.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/json/json.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

// The results as JSON, and `error: …` or a limit's name at the end when the program did not end by itself.
std::vector<std::string> Results(const std::string& text, const std::string& input) {
  auto program = Compile(text);
  if (!program.ok()) return {"compile: " + std::string(program.status().message())};
  Machine machine(*program, {.time = absl::Seconds(5)}, absl::FromUnixSeconds(1425599621));
  std::string error;
  machine.SetInput(ParseJsonText(&machine.heap(), input, &error));
  EXPECT_EQ(error, "") << input;
  std::vector<std::string> out;
  for (bool first = true;; first = false) {
    switch (machine.Run(10'000, !first)) {
      case Machine::State::kYield:
        break;
      case Machine::State::kResult:
        out.emplace_back(ToJsonText(machine, machine.result()).text());
        break;
      case Machine::State::kDone:
        return out;
      case Machine::State::kFailed:
        out.push_back("error: " + machine.error());
        return out;
      case Machine::State::kTooLong:
        out.push_back("too long");
        return out;
      case Machine::State::kTooLarge:
        out.push_back("too large");
        return out;
    }
  }
}

struct Case {
  const char* program;
  const char* input;
  std::vector<std::string> results;
};

void Check(const std::vector<Case>& cases) {
  for (const Case& c : cases) EXPECT_EQ(Results(c.program, c.input), c.results) << c.program << " upon " << c.input;
}

TEST(LanguageTest, PathsAndIteration) {
  Check({{".a.b[1]", R"({"a":{"b":[1,2]}})", {"2"}},
         {".a[]?", R"({"a":3})", {}},
         {".[1:], .[:-1], .[-2:]", "[1,2,3]", {"[2,3]", "[1,2]", "[2,3]"}},
         {".[1:3]", R"("aäöü")", {R"("äö")"}},
         {".[[2,3]]", "[1,2,3,2,3]", {"[1,3]"}},
         {".. | numbers", R"([1,[2,{"a":3}]])", {"1", "2", "3"}},
         {".a.\"b c\", .a[\"b c\"]", R"({"a":{"b c":1}})", {"1", "1"}},
         {".[2]", "null", {"null"}},
         {".a", "[1]", {"error: at 1:1: Cannot index array with string (\"a\")"}},
         {"[.[] | .x?]", R"([{"x":1},2])", {"[1]"}}});
}

TEST(LanguageTest, GeneratorsComeInJqsOrder) {
  Check({{"(1,2) + (10,20)", "null", {"11", "12", "21", "22"}},
         {"[([1,2],[3,4])[0,1]]", "null", {"[1,3,2,4]"}},
         {"{a: (1,2), b: (3,4)}",
          "null",
          {R"({"a":1,"b":3})", R"({"a":1,"b":4})", R"({"a":2,"b":3})", R"({"a":2,"b":4})"}},
         {"\"\\(1,2)-\\(3,4)\"", "null", {R"("1-3")", R"("2-3")", R"("1-4")", R"("2-4")"}},
         {"[range(0,1;3,4)]", "null", {"[0,1,2,0,1,2,3,1,2,1,2,3]"}},
         {"first(range(10;0;-3)), [limit(2; .[])], last(.[])", "[5,6,7]", {"10", "[5,6]", "7"}},
         {"[skip(1; .[])], nth(1; .[])", "[5,6,7]", {"[6,7]", "6"}},
         {"1 + 2 as $x | -$x", "null", {"-3"}}});
}

TEST(LanguageTest, BindingsAndFunctions) {
  Check({{". as [$a, {b: $c}] | $a + $c", R"([1,{"b":2}])", {"3"}},
         {". as {$a, b: [$c]} | [$a, $c]", R"({"a":1,"b":[2]})", {"[1,2]"}},
         {".[] as [$a] ?// $a | [$a]", "[[3],4]", {"[3]", "[4]"}},
         {"def f($a; g): $a + g; f(1; 2, 3)", "null", {"3", "4"}},
         {"def fac: if . <= 1 then 1 else . * (. - 1 | fac) end; fac", "10", {"3628800"}},
         {"def f(g): def h: g; [h, h]; f(.[])", "[1,2]", {"[1,2,1,2]"}},
         {"def down(f): if f then ., (. - 1 | down(f)) else empty end; [down(. > 0)]", "3", {"[3,2,1]"}},
         {"reduce .[] as $x (0; . + $x)", "[1,2,3]", {"6"}},
         {"[foreach .[] as $x (0; . + $x; [$x, .])]", "[1,2]", {"[[1,1],[2,3]]"}},
         {"label $out | .[] | if . > 2 then ., break $out else . end", "[1,3,4]", {"1", "3"}},
         {"def f: if . > 100000 then . else . + 1 | f end; 0 | f", "null", {"100001"}}});
}

TEST(LanguageTest, ErrorsAreCaughtWhereTheyArise) {
  Check(
      {{"try error(\"x\") catch .", "null", {R"("x")"}},
       {"try error({a: 1}) catch .a", "null", {"1"}},
       {"try error(null) catch .", "null", {"null"}},
       {"error(null)", "null", {"error: at 1:1: null (not a string)"}},
       {"[.[] | try (if . > 2 then error(\"big\") else . end) catch \"caught\"]", "[1,3]", {R"([1,"caught"])"}},
       {"try ((1, 2) | try . catch \"inner\" | error(\"outer\")) catch .", "null", {R"("outer")"}},
       {"[.[] | (1 / .)?]", "[1,0,2]", {"[1,0.5]"}},
       {"(error(\"x\"), 1) // 2, (null, false) // 3, (1, null, 2) // 4, empty // 5", "null", {"2", "3", "1", "2", "5"}},
       {"1 + null, null + 1", "null", {"1", "1"}},
       {"{} + 1", "null", {"error: at 1:4: object ({}) and number (1) cannot be added"}},
       {"[1] | implode | error", "null", {"error: at 1:17: \x01"}}});
}

TEST(LanguageTest, UpdatesChangeWhatPathsName) {
  Check({{".a |= . + 1", R"({"a":1})", {R"({"a":2})"}},
         {".[] += 1", "[1,2]", {"[2,3]"}},
         {".a.b[2] = 1", "null", {R"({"a":{"b":[null,null,1]}})"}},
         {"(.[] | select(. > 1)) |= empty", "[1,2,3,1]", {"[1,1]"}},
         {".a //= 3 | .b //= 4", R"({"a":1})", {R"({"a":1,"b":4})"}},
         {".[1:3] = [9]", "[1,2,3,4]", {"[1,9,4]"}},
         {"del(.[0], .[-1])", "[1,2,3]", {"[2]"}},
         {"del(.[nan])", "[1,2]", {"[1,2]"}},
         {"to_entries, with_entries(.value += 1)", R"({"a":1})", {R"([{"key":"a","value":1}])", R"({"a":2})"}},
         {"[paths], [path(..)] | length", "[1,[2]]", {"3", "4"}},
         {"pick(.a, .b[1])", R"({"a":1,"b":[2,3],"c":4})", {R"({"a":1,"b":[null,3]})"}},
         {"try (.[-5] = 1) catch .", "[1]", {R"("Out of bounds negative array index")"}},
         {"(. | map(.)) = 1", "[1]", {"error: at 1:14: Invalid path expression with result [1]"}},
         {"walk(if type == \"number\" then . + 1 else . end)", "[1,{\"a\":2}]", {R"([2,{"a":3}])"}},
         {"[tostream], fromstream(tostream)", R"({"a":[1]})", {R"([[["a",0],1],[["a",0]],[["a"]]])", R"({"a":[1]})"}}});
}

TEST(LanguageTest, TextFunctions) {
  Check({{"split(\", \"), (. / \", \" | join(\"-\"))", R"("a, b")", {R"(["a","b"])", R"("a-b")"}},
         {"ascii_upcase, ltrimstr(\"a\"), rtrimstr(\"c\"), trimstr(\"b\")",
          R"("abc")",
          {R"("ABC")", R"("bc")", R"("ab")", R"("abc")"}},
         {"explode | implode", R"("aé😀")", {R"("aé😀")"}},
         {"length, utf8bytelength", R"("é")", {"1", "2"}},
         {"@base64, (@base64 | @base64d), @uri, @html, @sh, @json",
          R"("a'<b")",
          {R"("YSc8Yg==")", R"("a'<b")", R"("a%27%3Cb")", R"("a&#39;&lt;b")", R"("'a'\\''<b'")", R"("\"a'<b\"")"}},
         {"@csv, @tsv", R"([1,"a\"b",null])", {R"("1,\"a\"\"b\",")", R"("1\ta\"b\t")"}},
         {"index(\"\"), indices(\"b\"), index(\"b\"), rindex(\"b\")", R"("abcb")", {"null", "[1,3]", "1", "3"}},
         {"tojson | fromjson", R"([1.10,"x",null])", {R"([1.10,"x",null])"}},
         {"[.[] | tonumber?]", R"(["1","1.5","x"," 1","1e3"])", {"[1,1.5,1e3]"}},
         {"trim, ltrim", R"("  a ")", {R"("a")", R"("a ")"}},
         {"\"x\" * 3, \"x\" * 0, \"x\" * -1", "null", {R"("xxx")", R"("")", "null"}}});
}

TEST(LanguageTest, RegularExpressionsByBothEngines) {
  Check({{"test(\"^a.c$\"), test(\"A\"; \"i\")", R"("abc")", {"true", "true"}},
         {"[match(\"b+\"; \"g\") | .offset, .length]", R"("abbab")", {"[1,2,4,1]"}},
         {"capture(\"(?<y>\\\\d{4})-(?<m>\\\\d\\\\d)\")", R"("on 2026-11-30")", {R"({"y":"2026","m":"11"})"}},
         {"[scan(\"\\\\w+\")]", R"("eins zwei")", {R"(["eins","zwei"])"}},
         {"gsub(\"(?<x>[aeiou])\"; \"<\\(.x)>\"), sub(\"a\"; \"b\", \"c\")",
          R"("hallo")",
          {R"("h<a>ll<o>")", R"("hbllo")", R"("hcllo")"}},
         {"test(\"(?<=f)oo(?!d)\")", R"("foo")", {"true"}},
         {"[match(\"ü\"; \"gi\").offset]", R"("üaÜ")", {"[0,2]"}},
         {"[splits(\", *\")]", R"("a, b,c")", {R"(["a","b","c"])"}},
         {"try test(\"(\") catch \"bad\"", R"("x")", {R"("bad")"}},
         {"test(\"(a+)+$\")", R"("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!")", {"false"}}});
}

TEST(LanguageTest, CollectionsAndOrder) {
  Check({{"sort, unique, (sort_by(-.) | .[0]), min, max, add", "[3,1,3]", {"[1,3,3]", "[1,3]", "3", "1", "3", "7"}},
         {"group_by(.a) | map(length)", R"([{"a":1},{"a":2},{"a":1}])", {"[2,1]"}},
         {"sort", R"([{"b":1},[1],"a",2,true,false,null])", {R"([null,false,true,2,"a",[1],{"b":1}])"}},
         {"flatten, flatten(1)", "[1,[2,[3]]]", {"[1,2,3]", "[1,2,[3]]"}},
         {"any, all, (map(. == 1) | any)", "[1,2]", {"true", "true", "true"}},
         {"contains([\"b\"]), inside([\"abc\",\"x\"])", R"(["abc"])", {"true", "true"}},
         {"keys, length, has(\"a\"), ([\"a\"] | .[0] | in({\"a\":1}))",
          R"({"b":1,"a":2})",
          {R"(["a","b"])", "2", "true", "true"}},
         {"[1,2,3,2] - [2], ({a:{b:1}} * {a:{c:2}})", "null", {"[1,3]", R"({"a":{"b":1,"c":2}})"}},
         {"transpose, combinations", "[[1,2],[3]]", {"[[1,3],[2,null]]", "[1,3]", "[2,3]"}},
         {"[limit(3; repeat(1))], [while(. < 3; . + 1)], until(. > 3; . + 1)", "1", {"[1,1,1]", "[1,2]", "4"}},
         {"IN(2, 3), INDEX(.x)", R"([{"x":1}])", {"false", R"({"1":{"x":1}})"}},
         {"bsearch(2), bsearch(5)", "[1,2,3]", {"1", "-4"}}});
}

TEST(LanguageTest, NumbersAndTime) {
  Check({{"floor, sqrt, pow(.; 2), (. % 2)", "9", {"9", "3", "81", "1"}},
         {"[1e1000, -1e1000, nan] | map(. + 0)", "null", {"[1.7976931348623157e+308,-1.7976931348623157e+308,null]"}},
         {"., -., abs, tostring, (. == 100000000000000000000)",
          "100000000000000000001",
          {"100000000000000000001", "-100000000000000000001", "100000000000000000001", R"("100000000000000000001")",
           "false"}},
         {"now, (0 | todate), (\"2015-03-05T23:51:47Z\" | fromdate)",
          "null",
          {"1425599621", R"("1970-01-01T00:00:00Z")", "1425599507"}},
         {"gmtime | mktime", "1425599507", {"1425599507"}},
         {"1 / 3, 1e17, 0.00001, 3.0", "null", {"0.3333333333333333", "1e17", "0.00001", "3.0"}},
         {"5 % 0",
          "null",
          {"error: at 1:3: number (5) and number (0) cannot be divided (remainder) because the divisor is zero"}}});
}

TEST(LanguageTest, SyntaxErrorsNameThePlace) {
  for (const auto& [program, place] : std::vector<std::pair<std::string, std::string>>{{"1 +", "1:4"},
                                                                                       {".a | ]", "1:6"},
                                                                                       {"{a: 1", "1:6"},
                                                                                       {"\"abc", "1:1"},
                                                                                       {"foo", "1:1"},
                                                                                       {"$x", "1:1"},
                                                                                       {"1 | break $out", "1:5"},
                                                                                       {"if 1 then 2", "1:12"},
                                                                                       {"{(1): 2}", "1:1"},
                                                                                       {"1 == 2 == 3", "1:8"},
                                                                                       {"[1,\n2,\n!]", "3:1"}}) {
    auto compiled = Compile(program);
    ASSERT_FALSE(compiled.ok()) << program;
    EXPECT_NE(compiled.status().message().find("at " + place), absl::string_view::npos)
        << program << ": " << compiled.status().message();
  }
  EXPECT_FALSE(Compile(std::string(5000, '(') + "1" + std::string(5000, ')')).ok()) << "nesting is bounded";
  EXPECT_FALSE(Compile(std::string(300000, ' ')).ok()) << "length is bounded";
}

// Neither a first slice nor a later one is much longer than asked for.
TEST(LanguageTest, ASliceEnds) {
  auto program = Compile("[range(100000)] | map(. * 2) | sort | length");
  ASSERT_TRUE(program.ok());
  Machine machine(*program, {.time = absl::Seconds(20)}, absl::UnixEpoch());
  machine.SetInput(Value::Null());
  int slices = 0;
  while (machine.Run(1'000, true) == Machine::State::kYield) ++slices;
  EXPECT_GE(slices, 500);
}

// A native with much to do is not begun in a slice that is not patient.
TEST(LanguageTest, AnImpatientSliceBeginsNothingLarge) {
  auto program = Compile(". * 1000 | ascii_downcase | length");
  ASSERT_TRUE(program.ok());
  Machine machine(*program, {}, absl::UnixEpoch());
  machine.SetInput(Value::Text(&machine.heap(), std::string(10'000, 'A')));
  EXPECT_EQ(machine.Run(10'000, false), Machine::State::kYield);
  EXPECT_LT(machine.heap().used(), size_t{1} << 20) << "the long text is not there yet";
  Machine::State state = Machine::State::kYield;
  while (state == Machine::State::kYield) state = machine.Run(10'000, true);
  EXPECT_EQ(state, Machine::State::kResult);
  EXPECT_EQ(machine.result().number(), 10'000'000);
}

}  // namespace
}  // namespace tutti::engine::expressions
