#include "services/tool-service/domain/search_index.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "runtime/text/sentences.h"

namespace tutti::tool_service {
namespace {
constexpr double kK1 = 1.2;
constexpr double kB = 0.75;
}  // namespace

SearchIndex::SearchIndex(const std::vector<Document>& documents) {
  size_t total = 0;
  for (const auto& document : documents) {
    documents_.push_back(document.name);
    for (auto& passage : CutPassages(document)) {
      auto id = static_cast<uint32_t>(passages_.size());
      std::unordered_map<std::string, uint32_t> counts;
      uint32_t terms = 0;
      for (auto& term : Terms(passage.text)) {
        ++counts[term];
        ++terms;
      }
      for (auto& [term, count] : counts) postings_[term].push_back({id, count});
      passages_.push_back({static_cast<uint32_t>(documents_.size() - 1), terms, std::move(passage)});
      total += terms;
    }
  }
  if (!passages_.empty())
    mean_terms_ = std::max(1.0, static_cast<double>(total) / static_cast<double>(passages_.size()));
}

std::vector<SearchHit> SearchIndex::Search(const std::string& query, size_t limit) const {
  std::unordered_map<uint32_t, double> scores;
  std::vector<std::string> terms = Terms(query);
  std::set<std::string> unique(terms.begin(), terms.end());
  auto n = static_cast<double>(passages_.size());
  for (const auto& term : unique) {
    auto it = postings_.find(term);
    if (it == postings_.end()) continue;
    auto df = static_cast<double>(it->second.size());
    double idf = std::log(1 + (n - df + 0.5) / (df + 0.5));
    for (const Posting& posting : it->second) {
      double tf = posting.count;
      double length = passages_[posting.passage].terms / mean_terms_;
      scores[posting.passage] += idf * tf * (kK1 + 1) / (tf + kK1 * (1 - kB + kB * length));
    }
  }
  std::vector<std::pair<double, uint32_t>> ranked;
  ranked.reserve(scores.size());
  for (const auto& [passage, score] : scores) ranked.emplace_back(-score, passage);
  size_t count = std::min(limit, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<int64_t>(count), ranked.end());
  std::vector<SearchHit> out;
  for (size_t i = 0; i < count; ++i) {
    const Entry& entry = passages_[ranked[i].second];
    out.push_back({documents_[entry.document], entry.passage.page, entry.passage.text, -ranked[i].first});
  }
  return out;
}

}  // namespace tutti::tool_service
