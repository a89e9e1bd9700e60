#include "services/state-manager/store/vector_index.h"

#include <hnswlib/hnswlib.h>

#include <algorithm>

#include "absl/container/flat_hash_set.h"

namespace tutti::state_manager {
namespace {

// hnswlib's parameters: links a node, and how many candidates are looked at when building and searching. A test holds
// that nine of the ten nearest are found at least.
constexpr size_t kLinks = 16, kBuildCandidates = 100, kSearchCandidates = 80;

float Dot(const float* a, const float* b, size_t size) {
  float sums[8] = {};
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += a[i + j] * b[i + j];
  }
  float sum = 0;
  for (float part : sums) sum += part;
  for (; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

class VectorIndex::Partition {
 public:
  Partition(std::string embedder, size_t dimensions)
      : embedder_(std::move(embedder)), dimensions_(dimensions), space_(dimensions) {}

  // Whether a vector of this length, made by this embedder, can be compared with those here.
  bool IsLike(const std::string& embedder, const std::vector<float>& vector) const {
    return embedder_ == embedder && dimensions_ == vector.size();
  }
  float Compare(int64_t number, const std::vector<float>& query) const {
    if (auto it = scanned_.find(number); it != scanned_.end()) {
      return Dot(it->second.data(), query.data(), dimensions_);
    }
    const std::vector<float> vector = graph_->getDataByLabel<float>(static_cast<size_t>(number));
    return Dot(vector.data(), query.data(), dimensions_);
  }

  size_t size() const { return scanned_.size() + graphed_.size(); }
  size_t scanned() const { return scanned_.size(); }

  void Add(int64_t number, std::vector<float> vector) {
    Remove(number);
    scanned_[number] = std::move(vector);
  }

  void Remove(int64_t number) {
    if (scanned_.erase(number) > 0) return;
    if (!graphed_.contains(number)) return;
    graph_->markDelete(static_cast<size_t>(number));
    graphed_.erase(number);
    // A graph keeps what was removed as way-stones. Past a tenth it is taken apart, and what was removed is gone.
    ++removed_;
    if (removed_ * 10 > graphed_.size() + removed_) TakeApart();
  }

  void Search(const std::vector<float>& query, size_t most, std::vector<Hit>& out) {
    size_t begin = out.size();
    for (const auto& [number, vector] : scanned_)
      out.push_back({number, Dot(vector.data(), query.data(), dimensions_)});
    if (graph_ && !graphed_.empty()) {
      graph_->setEf(std::max(most, kSearchCandidates));
      auto found = graph_->searchKnn(query.data(), most);
      for (; !found.empty(); found.pop()) {
        out.push_back({static_cast<int64_t>(found.top().second), 1.0F - found.top().first});
      }
    }
    auto nearer = [](const Hit& a, const Hit& b) { return a.cosine > b.cosine; };
    if (out.size() - begin > most) {
      std::nth_element(out.begin() + static_cast<int64_t>(begin), out.begin() + static_cast<int64_t>(begin + most),
                       out.end(), nearer);
      out.resize(begin + most);
    }
  }

  // How many were moved.
  size_t Grow(size_t most) {
    if (size() < kScan) return 0;
    if (!graph_) {
      graph_ = std::make_unique<Graph>(&space_, 2 * kScan, kLinks, kBuildCandidates);
      removed_ = 0;
    }
    size_t moved = 0;
    while (moved < most && !scanned_.empty()) {
      auto it = scanned_.begin();
      size_t needed = graphed_.size() + removed_ + 1;
      if (needed > graph_->max_elements_) graph_->resizeIndex(2 * graph_->max_elements_);
      graph_->addPoint(it->second.data(), static_cast<size_t>(it->first));
      graphed_.insert(it->first);
      scanned_.erase(it);
      ++moved;
    }
    return moved;
  }

 private:
  using Graph = hnswlib::HierarchicalNSW<float>;

  void TakeApart() {
    for (int64_t number : graphed_) scanned_[number] = graph_->getDataByLabel<float>(static_cast<size_t>(number));
    graphed_.clear();
    graph_.reset();
    removed_ = 0;
  }

  const std::string embedder_;
  const size_t dimensions_;
  hnswlib::InnerProductSpace space_;
  absl::flat_hash_map<int64_t, std::vector<float>> scanned_;
  absl::flat_hash_set<int64_t> graphed_;
  std::unique_ptr<Graph> graph_;
  size_t removed_ = 0;
};

VectorIndex::VectorIndex() = default;
VectorIndex::~VectorIndex() = default;

void VectorIndex::Add(const std::string& tenant, const std::string& agent, const std::string& embedder, int64_t number,
                      std::vector<float> vector) {
  MutexLock lock(mutex_);
  auto& partition = partitions_[{tenant, agent, embedder, vector.size()}];
  if (!partition) partition = std::make_unique<Partition>(embedder, vector.size());
  if (auto it = where_.find(number); it != where_.end() && it->second != partition.get()) it->second->Remove(number);
  where_[number] = partition.get();
  partition->Add(number, std::move(vector));
}

void VectorIndex::Remove(int64_t number) {
  MutexLock lock(mutex_);
  auto it = where_.find(number);
  if (it == where_.end()) return;
  it->second->Remove(number);
  where_.erase(it);
}

bool VectorIndex::Contains(int64_t number) const {
  MutexLock lock(mutex_);
  return where_.contains(number);
}

std::vector<VectorIndex::Hit> VectorIndex::Search(const std::string& tenant, const std::string& agent,
                                                  const std::string& embedder, const std::vector<float>& query,
                                                  size_t most) const {
  MutexLock lock(mutex_);
  std::vector<Hit> out;
  for (auto it = partitions_.lower_bound({tenant, "", "", 0});
       it != partitions_.end() && std::get<0>(it->first) == tenant; ++it) {
    const std::string& of_agent = std::get<1>(it->first);
    const bool wanted = agent.empty() || of_agent.empty() || of_agent == agent;
    if (wanted && it->second->IsLike(embedder, query)) it->second->Search(query, most, out);
  }
  std::sort(out.begin(), out.end(), [](const Hit& a, const Hit& b) { return a.cosine > b.cosine; });
  if (out.size() > most) out.resize(most);
  return out;
}

std::vector<VectorIndex::Hit> VectorIndex::Compare(const std::vector<int64_t>& numbers, const std::string& embedder,
                                                   const std::vector<float>& query) const {
  MutexLock lock(mutex_);
  std::vector<Hit> out;
  for (int64_t number : numbers) {
    auto it = where_.find(number);
    if (it == where_.end() || !it->second->IsLike(embedder, query)) continue;
    out.push_back({number, it->second->Compare(number, query)});
  }
  return out;
}

bool VectorIndex::Maintain(size_t vectors) {
  MutexLock lock(mutex_);
  size_t left = vectors;
  for (auto& [key, partition] : partitions_) {
    left -= std::min(left, partition->Grow(left));
    if (left == 0) return true;
  }
  return false;
}

void VectorIndex::Clear() {
  MutexLock lock(mutex_);
  where_.clear();
  partitions_.clear();
}

size_t VectorIndex::size() const {
  MutexLock lock(mutex_);
  return where_.size();
}

}  // namespace tutti::state_manager
