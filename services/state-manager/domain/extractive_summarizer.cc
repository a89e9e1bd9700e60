#include "services/state-manager/domain/extractive_summarizer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/status/status.h"
#include "runtime/text/sentences.h"

namespace tutti::state_manager {

absl::StatusOr<std::string> ExtractiveSummarizer::Summarize(absl::string_view text) const {
  std::vector<std::string> sentences = SplitSentences(text);
  if (sentences.empty()) return absl::InvalidArgumentError("there is no text to summarize");
  std::map<std::string, double> frequency;
  std::vector<std::vector<std::string>> terms;
  for (const auto& sentence : sentences) {
    terms.push_back(Terms(sentence));
    for (const auto& term : terms.back()) ++frequency[term];
  }
  std::vector<std::pair<double, size_t>> ranked;
  for (size_t i = 0; i < sentences.size(); ++i) {
    double score = 0;
    for (const auto& term : std::set<std::string>(terms[i].begin(), terms[i].end())) score += frequency[term];
    // Long sentences have more words to score with: by the root, not by all of it.
    ranked.emplace_back(terms[i].empty() ? 0 : score / std::sqrt(static_cast<double>(terms[i].size())), i);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::set<size_t> chosen;
  size_t bytes = 0;
  for (const auto& [score, index] : ranked) {
    if (bytes + sentences[index].size() + 1 > max_bytes_ && !chosen.empty()) continue;
    bytes += sentences[index].size() + 1;
    chosen.insert(index);
  }
  std::string out;
  for (size_t index : chosen) {
    if (!out.empty()) out += ' ';
    out += sentences[index].substr(0, max_bytes_);
  }
  return out;
}

}  // namespace tutti::state_manager
