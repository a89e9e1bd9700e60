// What the engines do with rows of the size of a journal's, without anything of Tutti's: the strongest plain loop.
#pragma once

#include <string>

#include "bench/store/measuring.h"

namespace tutti::state_manager {

// Rows a second, `rows` of them in each transaction; latencies of the commits, if wanted.
double BareSqlite(const std::string& dir, int rows, double seconds, Latencies* latencies = nullptr);
double BarePostgres(const std::string& dsn, int rows, double seconds, Latencies* latencies = nullptr);

}  // namespace tutti::state_manager
