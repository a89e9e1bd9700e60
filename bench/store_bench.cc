// What the store does against what the disk allows, in one run on one machine:
//   tutti-store-bench [--dir FOLDER] [--engine sqlite|postgres|both] [--postgres DSN] [--turns 3] [--seconds 2]
//                     [--memories 100000] [--runs 0] [--write-lanes N]
// Bare loops commit rows of the same size on the same engine, without anything of Tutti's. The machine's speed changes
// while all this runs: bare loops and the store take turns of `--seconds`, and ratios are of what each did in all of
// its turns. Figures and their meaning: docs/performance.md.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/store/appends.h"
#include "bench/store/bare_loops.h"
#include "bench/store/measuring.h"
#include "bench/store/opened_store.h"
#include "bench/store/reads.h"

namespace tutti::state_manager {
namespace {

struct Settings {
  std::string dir = std::filesystem::temp_directory_path().string();  // a folder of its own in it
  std::string engine = "both", postgres;
  int turns = 3;
  double seconds = 2;
  int memories = 100000, runs = 0, write_lanes = 0;
};

// (rows a transaction, seconds, latencies) to rows a second.
using BareLoop = std::function<double(int, double, Latencies*)>;

void MeasureAppends(const Settings& settings, const char* engine, const StoreConfig& config, const BareLoop& bare) {
  const double turn = settings.seconds;
  double bare_rate = 0, store_rate = 0, short_rate = 0, stream_rate = 0;
  Latencies bare_one, store_one, stream_one;
  for (int i = 0; i < settings.turns; ++i) {
    bare_rate += bare(kWriters, turn, nullptr) / settings.turns;
    {
      OpenedStore store(config);
      store_rate += AppendLoop(store, kWriters, turn) / settings.turns;
    }
    {
      OpenedStore store(config);
      short_rate += AppendLoop(store, kWriters, turn, nullptr, kShortRun) / settings.turns;
    }
    stream_rate += StreamLoop(config, kWriters, turn) / settings.turns;
    (void)bare(1, turn / 2, &bare_one);
    {
      OpenedStore store(config);
      AppendLoop(store, 1, turn / 2, &store_one);
    }
    StreamLoop(config, 1, turn / 2, &stream_one);
  }
  std::printf(
      "%-9s rows of %zu bytes, %d writers: bare loop %.0f/s; store %.0f/s (%.2f), in runs of %d entries %.0f/s (%.2f); "
      "stream over loopback %.0f/s (%.2f)\n",
      engine, RowBytes(), kWriters, bare_rate, store_rate, store_rate / bare_rate, kShortRun, short_rate,
      short_rate / bare_rate, stream_rate, stream_rate / bare_rate);
  double one = bare_one.At(0.5);
  std::printf(
      "%-9s one writer, median: bare commit %.3f ms; store %.3f ms (%.2fx); stream over loopback %.3f ms (%.2fx)\n",
      engine, one, store_one.At(0.5), store_one.At(0.5) / one, stream_one.At(0.5), stream_one.At(0.5) / one);
  std::fflush(stdout);
}

void Measure(const Settings& settings, const char* engine, StoreConfig config, const BareLoop& bare) {
  config.set_data_dir(settings.dir + "/data");
  if (settings.turns > 0) MeasureAppends(settings, engine, config, bare);
  {
    OpenedStore store(config);
    ReadLongRun(store, engine);
    if (settings.memories > 0) SearchMemories(store, engine, settings.memories);
  }
  std::fflush(stdout);
  if (settings.runs == 0) return;
  config.set_data_dir(settings.dir + "/many");
  ManyRuns(config, engine, settings.runs);
}

bool Parse(int argc, char** argv, Settings& settings) {
  for (int i = 1; i < argc; i += 2) {
    std::string flag = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    bool known = true;
    if (flag == "--dir") {
      settings.dir = value;
    } else if (flag == "--engine") {
      settings.engine = value;
      known = value == "sqlite" || value == "postgres" || value == "both";
    } else if (flag == "--postgres") {
      settings.postgres = value;
    } else if (flag == "--turns") {
      known = absl::SimpleAtoi(value, &settings.turns);
    } else if (flag == "--seconds") {
      known = absl::SimpleAtod(value, &settings.seconds);
    } else if (flag == "--memories") {
      known = absl::SimpleAtoi(value, &settings.memories);
    } else if (flag == "--runs") {
      known = absl::SimpleAtoi(value, &settings.runs);
    } else if (flag == "--write-lanes") {
      known = absl::SimpleAtoi(value, &settings.write_lanes);
    } else {
      known = false;
    }
    if (known) continue;
    std::fprintf(stderr, "%s %s is no flag and value of this program; bench/store_bench.cc names them\n", flag.c_str(),
                 value.c_str());
    return false;
  }
  return true;
}

int Main(int argc, char** argv) {
  Settings settings;
  if (!Parse(argc, argv, settings)) return 2;
  if (settings.engine == "postgres" && settings.postgres.empty()) {
    std::fprintf(stderr, "--engine postgres needs --postgres \"host=… dbname=…\", a database that may be filled\n");
    return 2;
  }
  settings.dir += "/tutti_store_bench";
  std::filesystem::remove_all(settings.dir);
  std::filesystem::create_directories(settings.dir);
  StoreConfig config = DefaultConfig([](const char*) -> const char* { return nullptr; }).state_manager();
  if (settings.engine != "postgres") {
    Measure(settings, "SQLite", config, [&](int rows, double seconds, Latencies* latencies) {
      return BareSqlite(settings.dir, rows, seconds, latencies);
    });
  }
  if (settings.engine != "sqlite" && !settings.postgres.empty()) {
    config.mutable_postgres()->set_dsn(settings.postgres);
    if (settings.write_lanes > 0) config.mutable_postgres()->set_write_lanes(settings.write_lanes);
    Measure(settings, "Postgres", config, [&](int rows, double seconds, Latencies* latencies) {
      return BarePostgres(settings.postgres, rows, seconds, latencies);
    });
  }
  std::filesystem::remove_all(settings.dir);
  return 0;
}

}  // namespace
}  // namespace tutti::state_manager

int main(int argc, char** argv) { return tutti::state_manager::Main(argc, argv); }
