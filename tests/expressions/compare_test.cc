// Generated programs, each run here and by gojq, an independent implementation: both must give the same results, or
// both fail. Where the two languages differ by intention (docs/expressions.md) the generator does not go.
//
// TUTTI_COMPARE_SEED and TUTTI_COMPARE_PROGRAMS choose other programs, or more of them.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/json/json.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

constexpr int kBatch = 200;

// Programs over an input of small values. Each kind of value has its own productions, so that most programs run.
class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  std::string Program() { return Any(4); }
  std::string Input() { return Value(3); }

 private:
  int Pick(int count) { return static_cast<int>(random_() % static_cast<uint64_t>(count)); }
  template <size_t N>
  std::string Of(const char* const (&choices)[N]) {
    return choices[Pick(static_cast<int>(N))];
  }

  std::string Value(int depth) {
    switch (Pick(depth > 0 ? 7 : 5)) {
      case 0:
        return "null";
      case 1:
        return Pick(2) ? "true" : "false";
      case 2:
        return absl::StrCat(Pick(10));
      case 3:
        return absl::StrCat(Pick(5), ".5");
      case 4:
        return Of({"\"\"", "\"a\"", "\"ab\"", "\"b,a\"", "\"é\"", "\"12\""});
      case 5:
        return absl::StrCat("[", Value(depth - 1), ",", Value(depth - 1), "]");
      default:
        return absl::StrCat("{\"a\":", Value(depth - 1), ",\"b\":", Value(depth - 1), "}");
    }
  }

  std::string Any(int depth) {
    if (depth == 0) return Of({".", ".a?", ".b?", "1", "\"a\"", "null", "true", "[]", "2.5", "(arrays | .[0])", "$x"});
    auto d = [&] { return Any(depth - 1); };
    switch (Pick(26)) {
      case 0:
        return absl::StrCat("(", d(), " | ", d(), ")");
      case 1:
        return absl::StrCat("(", d(), ", ", d(), ")");
      case 2:
        return absl::StrCat("(", d(), " ", Of({"+", "-", "==", "!=", "<", "<=", ">", ">="}), " ", d(), ")");
      case 3:
        return absl::StrCat("(if ", d(), " then ", d(), " else ", d(), " end)");
      case 4:
        return absl::StrCat("[", d(), "]");
      case 5:
        return absl::StrCat("{a: ", d(), ", b: ", d(), "}");
      case 6:
        return absl::StrCat("((", d(), ")? // ", d(), ")");
      case 7:
        return absl::StrCat("(try ", d(), " catch \"caught\")");
      case 8:
        return absl::StrCat("(", d(), " | .[]?)");
      case 9:
        return absl::StrCat("(", d(), " as $x | ", d(), ")");
      case 10:
        return absl::StrCat("(reduce (", d(), ") as $x (0; [., $x]))");
      case 11:
        return absl::StrCat("[foreach (", d(), ") as $x (0; . + 1; [., $x])]");
      case 12:
        return absl::StrCat("(", d(), " and ", d(), ")");
      case 13:
        return absl::StrCat("(", d(), " or ", d(), ")");
      case 14:
        return absl::StrCat("(", d(), " | ",
                            Of({"length", "type", "not", "tojson", "keys", "add", "sort", "unique", "flatten",
                                "tostring", "any", "all", "min", "max", "ascii_downcase", "explode", "floor"}),
                            ")");
      case 15:
        return absl::StrCat("[", d(), " | .., 1]");
      case 16:
        return absl::StrCat("[limit(", Pick(3) + 1, "; ", d(), ")]");
      case 17:
        return absl::StrCat("(first(", d(), ", 9))");
      case 18:
        return absl::StrCat("([", d(), "] | map(", d(), "))");
      case 19:
        return absl::StrCat("([", d(), "] | map(select(", d(), ")))");
      case 20:
        return absl::StrCat("({a: 1, b: [2]} | .", Of({"a", "b[0]", "b[2]", "c.d"}),
                            " |= ", Of({"[.]", "type", ". == 1"}), ")");
      case 21:
        return absl::StrCat("([", d(), "] | ",
                            Of({"sort_by(.)", "group_by(type)", "unique_by(type)", "map(type)", "length"}), ")");
      case 22:
        return absl::StrCat("(\"<\\(", d(), ")>\")");
      case 23:
        return absl::StrCat("([", d(), "] | [paths] | length)");
      case 24:
        return absl::StrCat("(label $out | ", d(), " | if . == null then break $out else . end)");
      default:
        return absl::StrCat("(def f(g): [g, g]; f(", d(), "))");
    }
  }

  std::mt19937_64 random_;
};

// The results as one JSON array; "failed" at its end when the program failed.
std::string RunHere(const std::string& text, const std::string& input) {
  auto program = Compile(text);
  if (!program.ok()) return absl::StrCat("compile: ", program.status().message());
  Machine machine(*program, {.time = absl::Seconds(5)}, absl::UnixEpoch());
  std::string error;
  machine.SetInput(ParseJsonText(&machine.heap(), input, &error));
  std::vector<std::string> out;
  for (bool first = true;; first = false) {
    switch (machine.Run(10'000, !first)) {
      case Machine::State::kYield:
        continue;
      case Machine::State::kResult:
        out.emplace_back(ToJsonText(machine, machine.result()).text());
        continue;
      case Machine::State::kDone:
        break;
      case Machine::State::kFailed:
        out.emplace_back("\"failed\"");
        break;
      default:
        out.emplace_back("\"limit\"");
    }
    return absl::StrCat("[", absl::StrJoin(out, ","), "]");
  }
}

// Sorts the members of objects, as gojq does.
std::string Normal(const std::string& json) {
  auto parsed = ParseJson(json, 1000);
  return parsed.ok() ? DumpJson(WithDoubles(*parsed)) : json;
}

// Runs generated programs here and by `command`, which gets a file with many of them and prints a line for each. At
// most one in `tolerance` may differ.
void CompareWith(const std::string& command, int tolerance) {
  const char* seed_text = getenv("TUTTI_COMPARE_SEED");
  const char* count_text = getenv("TUTTI_COMPARE_PROGRAMS");
  const uint64_t seed = seed_text ? std::strtoull(seed_text, nullptr, 10) : 20261130;
  const int count = count_text ? std::atoi(count_text) : 10'000;
  Generator generator(seed);
  const auto folder = std::filesystem::temp_directory_path() / absl::StrCat("tutti-compare-", getpid());
  std::filesystem::create_directories(folder);
  int compared = 0, different = 0;
  std::string differences;
  for (int begin = 0; begin < count; begin += kBatch) {
    std::vector<std::pair<std::string, std::string>> cases;
    std::ofstream file(folder / "batch.jq");
    for (int i = 0; i < kBatch && begin + i < count; ++i) {
      cases.push_back({absl::StrCat("0 as $x | ", generator.Program()), generator.Input()});
      // One line of output for each.
      file << (i > 0 ? ", " : "") << "(" << cases.back().second << " | [try (" << cases.back().first
           << ") catch \"failed\"])\n";
    }
    file.close();
    std::string line = absl::StrCat(command, " ", (folder / "batch.jq").string(), " > ", (folder / "out").string());
    ASSERT_EQ(system(line.c_str()), 0) << line;
    std::ifstream out(folder / "out");
    for (const auto& [program, input] : cases) {
      ASSERT_TRUE(std::getline(out, line)) << program;
      std::string here = RunHere(program, input);
      if (here.size() > 100'000) continue;
      ++compared;
      if (Normal(here) == Normal(line)) continue;
      ++different;
      differences += absl::StrCat(program, "\n  upon ", input, "\n  here  ", here, "\n  there ", line, "\n");
    }
  }
  std::filesystem::remove_all(folder);
  EXPECT_LE(different * tolerance, compared) << different << " of " << compared << " programs, seed " << seed << "\n"
                                             << differences;
  EXPECT_GE(compared, count * 9 / 10);
  std::cout << different << " of " << compared << " programs differ\n";
}

// Debian's gojq 0.12.11 is wrong itself in about one of a thousand: after backtracking it takes a value of the branch
// before, or fails where nothing fails (docs/expressions.md).
TEST(CompareTest, GeneratedProgramsGiveWhatGojqGives) {
  ASSERT_EQ(system("gojq --version > /dev/null 2>&1"), 0) << "gojq is not installed (apt-get install gojq)";
  CompareWith("gojq -nc -f", 300);
}

TEST(CompareTest, GeneratedProgramsGiveWhatJqGives) {
  const char* source = getenv("TUTTI_SOURCE");
  ASSERT_NE(source, nullptr) << "run by ctest";
  ASSERT_TRUE(std::filesystem::exists(absl::StrCat(source, "/node_modules/jq-web")))
      << "jq-web is not installed (npm install)";
  CompareWith(absl::StrCat("node ", source, "/tests/expressions/run_jq_web.cjs"), 300);
}

}  // namespace
}  // namespace tutti::engine::expressions
