#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "bench/store/measuring.h"
#include "bench/store/reads.h"

namespace tutti::state_manager {
namespace {

// Words as languages have them: the n-th most frequent comes n times more rarely than the first (Zipf), of 20,000.
std::string Sentence(Xoshiro& rng) {
  std::string out;
  for (int i = 0; i < 12; ++i) {
    auto rank = static_cast<int64_t>(std::exp(rng.Unit() * std::log(20000.0)));
    absl::StrAppend(&out, i ? " w" : "w", rank);
  }
  return out;
}

}  // namespace

void SearchMemories(OpenedStore& store, const char* engine, int count) {
  Xoshiro rng(7);
  auto begin = Steady::now();
  store.WriteMany(count, [&](int) {
    v1::StoreMemoryRequest request;
    request.mutable_memory()->set_agent("a");
    request.mutable_memory()->set_tenant("bench");
    request.mutable_memory()->set_content(Sentence(rng));
    return [&store, request](Transaction& tx) {
      v1::StoreMemoryResponse response;
      return store.store.memories.StoreMemory(tx, request, response);
    };
  });
  double stored = Seconds(begin);
  auto search = [&](const std::string& query) {
    v1::SearchMemoriesRequest request;
    request.set_query(query);
    request.mutable_filter()->set_tenant("bench");
    request.mutable_filter()->set_agent("a");
    v1::SearchMemoriesResponse response;
    absl::Status status =
        store.Read([&](Transaction& tx) { return store.store.memories.SearchMemories(tx, request, response); });
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return response.hits_size();
  };
  begin = Steady::now();
  search("budget report");
  double first = Seconds(begin);
  begin = Steady::now();
  while (store.store.memories.MaintainIndex()) {
  }
  double graph = Seconds(begin);
  Latencies latencies;
  for (int i = 0; i < 500; ++i) {
    std::string query = Sentence(rng).substr(0, 40);
    auto start = Steady::now();
    search(query);
    latencies.ms.push_back(Seconds(start) * 1000);
  }
  std::printf(
      "%-9s %d memories: stored in %.0f s, first search %.2f s (loads the index), graph built in %.0f s; "
      "search p50 %.1f ms, p99 %.1f ms; RSS %.0f MB\n",
      engine, count, stored, first, graph, latencies.At(0.5), latencies.At(0.99), RssMb());
}

}  // namespace tutti::state_manager
