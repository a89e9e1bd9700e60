// Full-text search over the passages of a folder: an inverted index ranked by BM25 (Robertson, Zaragoza 2009; k1 1.2, b
// 0.75).
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "services/tool-service/domain/document.h"

namespace tutti::tool_service {

struct SearchHit {
  std::string document;
  int page = 1;
  std::string text;
  double score = 0;
};

// Immutable once built. Thread safe.
class SearchIndex {
 public:
  explicit SearchIndex(const std::vector<Document>& documents);
  // At most `limit` hits, best first; equal scores in the order of documents and pages.
  std::vector<SearchHit> Search(const std::string& query, size_t limit) const;
  size_t passages() const { return passages_.size(); }

 private:
  struct Entry {
    uint32_t document;
    uint32_t terms;
    Passage passage;
  };
  struct Posting {
    uint32_t passage;
    uint32_t count;
  };
  std::vector<std::string> documents_;
  std::vector<Entry> passages_;
  std::unordered_map<std::string, std::vector<Posting>> postings_;
  double mean_terms_ = 1;
};

}  // namespace tutti::tool_service
