// The algorithms behind the `local` provider: extractive, deterministic, and no language model.
#pragma once

#include <string>
#include <vector>

#include "runtime/json/json.h"

namespace tutti::agent_manager {

struct SourceSentence {
  std::string text;
  std::string document;
  int page = 1;
  double relevance = 0;  // of its passage, 0 to 1
  std::string question;
};

// What to look for when asked about a topic: the topic, its parts, and its pairs of key words. At most `limit`.
std::vector<std::string> Decompose(const std::string& given, size_t limit);
// Frequent words and pairs of words of a text, most telling first.
std::vector<std::string> KeyPhrases(const std::vector<std::string>& sentences, size_t limit);
// Picks sentences that say much about the topic and little that was said: graph centrality over shared words (TextRank;
// Mihalcea, Tarau 2004) times relevance, thinned by maximal marginal relevance (Carbonell, Goldstein 1998). Indices,
// best first.
std::vector<size_t> PickSentences(const std::vector<SourceSentence>& sentences, const std::string& topic, size_t limit);
// The share of the topic's words that a text has, 0 to 1.
double Coverage(const std::string& topic, const std::string& text);

// The tasks, from input to output as the built-in agents' schemas describe them.
Json AnalyseTask(const Json& input);
Json WriteTask(const Json& input);
Json CritiqueTask(const Json& input);
Json SummariseTask(const Json& input);

}  // namespace tutti::agent_manager
