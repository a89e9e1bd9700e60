// The longest time for which hostile expressions keep the engine's loop from anything else: `tutti-stall-bench
// [SECONDS]`, so many for each case. Each case runs as one tenant's on the loop, as in the engine; beside it the loop
// is asked every half millisecond for a sign of life.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/async/executor.h"
#include "runtime/async/sync_wait.h"
#include "runtime/status/error.h"
#include "services/workflow-engine/domain/expression.h"
#include "services/workflow-engine/domain/expressions/evaluation_queue.h"

namespace tutti::engine {
namespace {

struct Case {
  std::string name, expression;
};

std::vector<Case> Cases() {
  std::vector<Case> out = {
      {"strings that double", R"(reduce range(60) as $i ("x"; . + .))"},
      {"a string of a gigabyte", R"("x" * 1000000000)"},
      {"six-fold combinations", "[[range(10)] | (.,.,.,.,.,.)] | [combinations] | length"},
      {"a loop that never ends", "def f: f; f"},
      {"nine million pairs", "[range(3000) as $a | range(3000) as $b | select($a == -1)]"},
      {"a large list, sorted", "[range(300000)] | map(-.) | sort | length"},
      {"a large list, made unique", "[range(100000) | tostring] | unique | length"},
      {"a large list, grouped", "[range(200000)] | group_by(. % 7) | map(length)"},
      {"a large list, as text", "[range(500000)] | tostring | length"},
      {"a large text, as JSON", R"([range(200000)] | tojson | fromjson | length)"},
      {"a large text, split", R"("a,b," * 300000 | split(",") | length)"},
      {"a large text, replaced", R"("ab" * 300000 | gsub("a"; "c") | length)"},
      {"a pattern that tracks back", R"("a" * 40 | test("^(a|a)*b$"))"},
      {"a pattern with a reference", R"(("a" * 30000 + "b") | test("(a*)*\\1c"))"},
      {"deep nesting", "reduce range(100000) as $i (null; [.])"},
      {"many members", "[range(200000) | {key: tostring, value: .}] | from_entries | keys | length"},
      {"assignments in a loop", "reduce range(100000) as $i ({}; .[$i | tostring] = $i) | length"},
      {"all paths", "[range(2000) | {a: [range(20)]}] | [paths] | length"},
      {"numbers of a million digits", R"(("9" * 1000000 | tonumber) + 1 | tostring | length)"},
      {"a flood of results", "[limit(1000000; repeat(1))] | add"},
  };
  std::vector<std::string> sum;
  for (int i = 0; i < 3000; ++i) sum.push_back(absl::StrCat("(.a", i, "|1)"));
  out.push_back({"a program of 30 KiB, compiled anew", absl::StrJoin(sum, ",")});
  return out;
}

using Steady = std::chrono::steady_clock;

double Milliseconds(Steady::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

Task<absl::Status> RunUntil(Executor& loop, expressions::EvaluationQueue& queue, const Case& hostile,
                            Steady::time_point end, int64_t& rounds) {
  co_await ResumeOn(loop);
  absl::Status last;
  while (Steady::now() < end) {
    co_await ResumeOn(loop);                 // others have their turn between two evaluations
    Evaluator evaluator({.queue = &queue});  // compiles anew, as another text would be
    Variables variables;
    Evaluator::Context context;
    context.tenant = "hostile";
    context.executor = &loop;
    auto result = co_await evaluator.Evaluate(hostile.expression, variables, context);
    last = result.status();
    ++rounds;
  }
  co_return last;
}

void Measure(const Case& hostile, std::chrono::seconds time) {
  EventLoop loop("services");
  EventLoop worker("expressions");
  expressions::EvaluationQueue queue(worker);
  std::atomic<bool> over{false};
  std::vector<double> delays;
  std::thread asks([&] {
    while (!over) {
      const auto asked = Steady::now();
      std::atomic<bool> answered{false};
      loop.Post([&] {
        delays.push_back(Milliseconds(Steady::now() - asked));
        answered.store(true, std::memory_order_release);
      });
      while (!answered.load(std::memory_order_acquire)) std::this_thread::sleep_for(std::chrono::microseconds(100));
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  });
  int64_t rounds = 0;
  absl::Status last = SyncWait(RunUntil(loop, queue, hostile, Steady::now() + time, rounds));
  over = true;
  asks.join();
  std::sort(delays.begin(), delays.end());
  auto at = [&](double share) {
    return delays.empty() ? 0 : delays[static_cast<size_t>(share * static_cast<double>(delays.size() - 1))];
  };
  std::printf("%-36s %8.2f %8.2f %8.2f %8lld  %s\n", hostile.name.c_str(), at(0.5), at(0.99), at(1),
              static_cast<long long>(rounds), last.ok() ? "ok" : ReasonOf(last).c_str());
  std::fflush(stdout);
}

}  // namespace
}  // namespace tutti::engine

int main(int argc, char** argv) {
  const auto time = std::chrono::seconds(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  std::printf("%-36s %8s %8s %8s %8s  %s\n", "delay of the loop in ms", "p50", "p99", "longest", "rounds", "ended");
  for (const auto& hostile : tutti::engine::Cases()) tutti::engine::Measure(hostile, time);
  return 0;
}
