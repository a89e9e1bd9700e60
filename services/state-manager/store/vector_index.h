// Nearest vectors, in memory, rebuilt from the database. One partition for each (tenant, agent, embedder, length); a
// partition is scanned while it is small or new, and grows a graph (hnswlib) in slices of work that Maintain is given.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "runtime/sync/mutex.h"

namespace tutti::state_manager {

// Thread safe.
class VectorIndex {
 public:
  struct Hit {
    int64_t number;
    float cosine;
  };
  // Below this many vectors a scan is as fast as a graph.
  static constexpr size_t kScan = 4096;

  VectorIndex();
  ~VectorIndex();

  // Vectors have length 1. A known number is replaced.
  void Add(const std::string& tenant, const std::string& agent, const std::string& embedder, int64_t number,
           std::vector<float> vector);
  void Remove(int64_t number);
  bool Contains(int64_t number) const;
  // The nearest of a tenant's vectors, of one agent and of nobody in particular, or of all agents (`agent` empty).
  std::vector<Hit> Search(const std::string& tenant, const std::string& agent, const std::string& embedder,
                          const std::vector<float>& query, size_t most) const;
  // Of these vectors, those of the embedder and of the query's length: how near each is.
  std::vector<Hit> Compare(const std::vector<int64_t>& numbers, const std::string& embedder,
                           const std::vector<float>& query) const;
  // Moves up to `vectors` from scans into graphs; true when more is to do.
  bool Maintain(size_t vectors);
  void Clear();
  size_t size() const;

 private:
  class Partition;
  using Key = std::tuple<std::string, std::string, std::string, size_t>;  // tenant, agent, embedder, length

  mutable Mutex mutex_;
  std::map<Key, std::unique_ptr<Partition>> partitions_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<int64_t, Partition*> where_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::state_manager
