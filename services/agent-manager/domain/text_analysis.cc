#include "services/agent-manager/domain/text_analysis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "runtime/text/sentences.h"
#include "runtime/text/utf8.h"

namespace tutti::agent_manager {
namespace {

constexpr size_t kMaxSentences = 400;  // the graph is quadratic

std::set<std::string> TermSet(const std::string& text) {
  std::vector<std::string> terms = Terms(text);
  return {terms.begin(), terms.end()};
}

double Similarity(const std::set<std::string>& a, const std::set<std::string>& b) {
  if (a.size() < 2 || b.size() < 2) return 0;
  size_t common = 0;
  for (const auto& term : a) common += b.count(term);
  return static_cast<double>(common) /
         (std::log(static_cast<double>(a.size())) + std::log(static_cast<double>(b.size())));
}

std::vector<double> Centrality(const std::vector<std::set<std::string>>& sets) {
  size_t n = sets.size();
  std::vector<std::vector<double>> weight(n, std::vector<double>(n, 0));
  std::vector<double> degree(n, 0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      weight[i][j] = weight[j][i] = Similarity(sets[i], sets[j]);
      degree[i] += weight[i][j];
      degree[j] += weight[i][j];
    }
  }
  std::vector<double> rank(n, 1.0);
  for (int round = 0; round < 20; ++round) {
    std::vector<double> next(n, 0.15);
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        if (degree[j] > 0) next[i] += 0.85 * weight[j][i] / degree[j] * rank[j];
      }
    }
    rank.swap(next);
  }
  double most = n == 0 ? 1 : *std::max_element(rank.begin(), rank.end());
  for (double& value : rank) value /= std::max(most, 1e-9);
  return rank;
}

std::string Text(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

Json Field(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) ? object[key] : Json(nullptr);
}

bool IsGoodClaim(const std::string& sentence) {
  size_t words = static_cast<size_t>(std::count(sentence.begin(), sentence.end(), ' ')) + 1;
  bool starts_well = !sentence.empty() && (absl::ascii_isupper(sentence[0]) || (sentence[0] & 0x80));
  return words >= 7 && words <= 60 && starts_well && sentence.back() == '.';
}

std::vector<SourceSentence> SentencesOf(const Json& research) {
  std::vector<SourceSentence> out;
  double best = 1e-9;
  Json passages = Field(research, "passages");
  if (!passages.is_array()) return out;
  for (const auto& passage : passages) {
    if (passage.is_object() && passage.contains("score") && IsNumber(passage["score"])) {
      best = std::max(best, *ToDouble(passage["score"]));
    }
  }
  std::set<std::string> seen;
  for (const auto& passage : passages) {
    double score = passage.is_object() && passage.contains("score") && IsNumber(passage["score"])
                       ? *ToDouble(passage["score"])
                       : 0;
    int page = passage.is_object() && passage.contains("page") && passage["page"].is_number_integer()
                   ? passage["page"].get<int>()
                   : 1;
    for (auto& sentence : SplitSentences(Text(passage, "text"))) {
      if (!IsGoodClaim(sentence) || !seen.insert(sentence).second || out.size() >= kMaxSentences) continue;
      out.push_back({sentence, Text(passage, "document"), page, score / best, Text(passage, "question")});
    }
  }
  return out;
}

std::string Title(std::string phrase) {
  if (!phrase.empty()) phrase[0] = absl::ascii_toupper(phrase[0]);
  return phrase;
}

// A heading for a finding: the longest key phrase it contains that no other finding has taken.
std::string HeadingFor(const std::string& claim, const std::vector<std::string>& phrases,
                       std::set<std::string>& taken) {
  std::string lower = absl::AsciiStrToLower(claim);
  for (bool pair : {true, false}) {  // two words say more than one
    for (const auto& phrase : phrases) {
      if (absl::StrContains(phrase, " ") == pair && absl::StrContains(lower, phrase) && taken.insert(phrase).second) {
        return Title(phrase);
      }
    }
  }
  return Title(std::string(Utf8Prefix(claim, 48)) + (claim.size() > 48 ? "…" : ""));
}

}  // namespace

std::vector<std::string> Decompose(const std::string& given, size_t limit) {
  std::string topic(Utf8Prefix(given, 1000));  // as long as a search's query may be
  std::vector<std::string> out = {topic};
  // Parts of a list: "a, b and c".
  std::string rest = absl::StrReplaceAll(absl::AsciiStrToLower(topic),
                                         {{" and ", "\n"}, {" or ", "\n"}, {",", "\n"}, {";", "\n"}, {":", "\n"}});
  std::string part;
  for (char c : rest + "\n") {
    if (c != '\n') {
      part += c;
      continue;
    }
    if (!Terms(part).empty() && std::find(out.begin(), out.end(), part) == out.end()) {
      out.emplace_back(absl::StripAsciiWhitespace(part));
    }
    part.clear();
  }
  // Neighbouring key words.
  std::vector<std::string> words;
  std::string word;
  for (char c : absl::AsciiStrToLower(topic) + " ") {
    if (absl::ascii_isalnum(c) || c == '-' || (c & 0x80)) {
      word += c;
    } else {
      if (word.size() > 1 && !IsStopWord(word)) words.push_back(word);
      word.clear();
    }
  }
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    std::string pair = absl::StrCat(words[i], " ", words[i + 1]);
    if (std::find(out.begin(), out.end(), pair) == out.end()) out.push_back(pair);
  }
  std::vector<std::string> unique;
  for (auto& question : out) {
    if (!question.empty() && std::find(unique.begin(), unique.end(), question) == unique.end())
      unique.push_back(question);
  }
  if (unique.size() > limit) unique.resize(limit);
  return unique;
}

std::vector<std::string> KeyPhrases(const std::vector<std::string>& sentences, size_t limit) {
  std::map<std::string, int> counts;
  for (const auto& sentence : sentences) {
    std::vector<std::string> run;
    std::string word;
    auto end_run = [&] {
      for (size_t i = 0; i < run.size(); ++i) {
        ++counts[run[i]];
        if (i + 1 < run.size()) counts[absl::StrCat(run[i], " ", run[i + 1])] += 2;
      }
      run.clear();
    };
    for (char c : absl::AsciiStrToLower(sentence) + " ") {
      if (absl::ascii_isalnum(c) || c == '-' || (c & 0x80)) {
        word += c;
        continue;
      }
      if (word.size() < 3 || IsStopWord(word) || absl::ascii_isdigit(word[0])) {
        end_run();
      } else {
        run.push_back(word);
      }
      if (c != ' ') end_run();
      word.clear();
    }
    end_run();
  }
  std::vector<std::pair<int, std::string>> ranked;
  for (const auto& [phrase, count] : counts) {
    if (count > 1) ranked.emplace_back(-count, phrase);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> out;
  for (const auto& entry : ranked) {
    if (out.size() == limit) break;
    const std::string& phrase = entry.second;
    bool part =
        std::any_of(out.begin(), out.end(), [&](const std::string& other) { return absl::StrContains(other, phrase); });
    if (!part) out.push_back(phrase);
  }
  return out;
}

std::vector<size_t> PickSentences(const std::vector<SourceSentence>& sentences, const std::string& topic,
                                  size_t limit) {
  std::vector<std::set<std::string>> sets;
  for (const auto& sentence : sentences) sets.push_back(TermSet(sentence.text));
  std::vector<double> central = Centrality(sets);
  std::set<std::string> wanted = TermSet(topic);
  std::vector<double> value(sentences.size());
  for (size_t i = 0; i < sentences.size(); ++i) {
    size_t hit = 0;
    for (const auto& term : wanted) hit += sets[i].count(term);
    double on_topic = wanted.empty() ? 0 : static_cast<double>(hit) / static_cast<double>(wanted.size());
    value[i] = 0.3 * central[i] + 0.3 * sentences[i].relevance + 0.4 * on_topic;
  }
  std::vector<size_t> picked;
  std::vector<bool> used(sentences.size(), false);
  while (picked.size() < std::min(limit, sentences.size())) {
    double best = -1e9;
    size_t chosen = 0;
    for (size_t i = 0; i < sentences.size(); ++i) {
      if (used[i]) continue;
      double said = 0;
      for (size_t other : picked) said = std::max(said, Similarity(sets[i], sets[other]));
      double score = 0.75 * value[i] - 0.25 * std::min(1.0, said / 2);
      if (score > best) {
        best = score;
        chosen = i;
      }
    }
    used[chosen] = true;
    picked.push_back(chosen);
  }
  return picked;
}

double Coverage(const std::string& topic, const std::string& text) {
  std::set<std::string> wanted = TermSet(topic), has = TermSet(text);
  if (wanted.empty()) return 1;
  size_t hit = 0;
  for (const auto& term : wanted) hit += has.count(term);
  return static_cast<double>(hit) / static_cast<double>(wanted.size());
}

Json AnalyseTask(const Json& input) {
  std::string topic = Text(input, "topic");
  std::vector<SourceSentence> sentences = SentencesOf(Field(input, "research"));
  std::vector<size_t> picked = PickSentences(sentences, topic, 14);
  std::vector<std::string> texts;
  for (size_t i : picked) texts.push_back(sentences[i].text);
  std::vector<std::string> phrases = KeyPhrases(texts, 40);
  std::set<std::string> taken;
  Json findings = Json::array();
  for (size_t i : picked) {
    const SourceSentence& source = sentences[i];
    findings.push_back(
        {{"heading", HeadingFor(source.text, phrases, taken)},
         {"claim", source.text},
         {"question", source.question},
         {"citations", Json::array({{{"document", source.document}, {"page", source.page}, {"quote", source.text}}})}});
  }
  if (phrases.size() > 10) phrases.resize(10);
  return {{"topic", topic}, {"findings", findings}, {"key_phrases", phrases}};
}

Json WriteTask(const Json& input) {
  std::string topic = Text(input, "topic");
  Json analysis = Field(input, "analysis");
  Json findings = Field(analysis, "findings");
  if (!findings.is_array()) findings = Json::array();
  // A first version is short. A critique asks for what is missing; then more findings go in, those of open questions
  // first.
  Json critique = Field(input, "critique");
  size_t wanted = 6;
  if (critique.is_object() && critique.contains("missing") && critique["missing"].is_array()) {
    wanted = 9;
    std::set<std::string> missing;
    for (const auto& term : critique["missing"]) {
      if (term.is_string()) missing.insert(term.get<std::string>());
    }
    std::stable_sort(findings.begin() + static_cast<int64_t>(std::min<size_t>(6, findings.size())), findings.end(),
                     [&](const Json& a, const Json& b) {
                       auto helps = [&](const Json& finding) {
                         std::set<std::string> terms = TermSet(Text(finding, "claim"));
                         return std::count_if(missing.begin(), missing.end(),
                                              [&](const auto& term) { return terms.count(term) > 0; });
                       };
                       return helps(a) > helps(b);
                     });
  }
  Json citations = Json::array();
  std::vector<std::string> sources;
  std::string body, abstract;
  size_t count = 0;
  for (const auto& finding : findings) {
    if (count == wanted) break;
    Json cited = Field(finding, "citations");
    if (!cited.is_array() || cited.empty()) continue;
    ++count;
    std::string marks;
    for (const auto& citation : cited) {
      citations.push_back(citation);
      std::string source = absl::StrCat(Text(citation, "document"), ", page ", DumpJson(Field(citation, "page")));
      auto known = std::find(sources.begin(), sources.end(), source);
      size_t number = static_cast<size_t>(known - sources.begin()) + 1;
      if (known == sources.end()) sources.push_back(source);
      absl::StrAppend(&marks, "[", number, "]");
    }
    absl::StrAppend(&body, "### ", count, ". ", Text(finding, "heading"), "\n\n> ", Text(finding, "claim"), " ", marks,
                    "\n\n");
    if (count <= 3) absl::StrAppend(&abstract, abstract.empty() ? "" : " ", Text(finding, "claim"), " ", marks);
  }
  std::string markdown = absl::StrCat("# ", Title(topic),
                                      "\n\n_Put together by Tutti's `local` provider: sentences chosen and quoted by "
                                      "algorithm. No language model was used._\n\n## Abstract\n\n",
                                      abstract, "\n\n## Findings\n\n", body);
  Json phrases = Field(analysis, "key_phrases");
  if (phrases.is_array() && !phrases.empty()) {
    std::vector<std::string> words;
    for (const auto& phrase : phrases) {
      if (phrase.is_string()) words.push_back(phrase.get<std::string>());
    }
    absl::StrAppend(&markdown, "## Key phrases\n\n", absl::StrJoin(words, ", "), "\n\n");
  }
  absl::StrAppend(&markdown, "## Sources\n\n");
  for (size_t i = 0; i < sources.size(); ++i) absl::StrAppend(&markdown, "[", i + 1, "] ", sources[i], "  \n");
  return {{"title", Title(topic)}, {"markdown", markdown}, {"citations", citations}};
}

Json CritiqueTask(const Json& input) {
  std::string topic = Text(input, "topic");
  Json draft = Field(input, "draft");
  std::string markdown = Text(draft, "markdown");
  std::string body = markdown.substr(std::min(markdown.find("## Abstract"), markdown.size()));
  Json citations = Field(draft, "citations");
  size_t cited = citations.is_array() ? citations.size() : 0;
  std::set<std::string> places;
  if (cited > 0) {
    for (const auto& citation : citations)
      places.insert(absl::StrCat(Text(citation, "document"), "/", DumpJson(Field(citation, "page"))));
  }
  auto words = static_cast<double>(std::count(body.begin(), body.end(), ' '));
  struct Criterion {
    const char* name;
    double weight, score;
    std::string advice;
  };
  Json missing = Json::array();
  std::set<std::string> has = TermSet(body);
  for (const auto& term : TermSet(topic)) {
    if (has.count(term) == 0) missing.push_back(term);
  }
  bool structured = absl::StrContains(markdown, "## Abstract") && absl::StrContains(markdown, "## Findings") &&
                    absl::StrContains(markdown, "## Sources");
  std::vector<Criterion> rubric = {
      {"coverage", 0.35, Coverage(topic, body), "cover the topic's words that are missing"},
      {"evidence", 0.25, std::min(1.0, static_cast<double>(cited) / 8), "bring at least eight cited findings"},
      {"breadth", 0.15, std::min(1.0, static_cast<double>(places.size()) / 5), "draw on at least five different pages"},
      {"structure", 0.15, structured ? 1.0 : 0.0, "have an abstract, findings and sources"},
      {"length", 0.10,
       words < 120    ? words / 120
       : words > 1500 ? 1500 / words
                      : 1.0,
       "keep between 120 and 1500 words"}};
  double score = 0;
  std::vector<std::string> advice;
  Json parts = Json::object();
  for (const auto& criterion : rubric) {
    score += criterion.weight * criterion.score;
    parts[criterion.name] = std::round(criterion.score * 100) / 100;
    if (criterion.score < 0.99) advice.push_back(criterion.advice);
  }
  return {{"score", std::round(score * 1000) / 1000},
          {"feedback", advice.empty() ? "nothing to improve" : absl::StrJoin(advice, "; ")},
          {"criteria", parts},
          {"missing", missing}};
}

Json SummariseTask(const Json& input) {
  std::string text = input.is_string()             ? input.get<std::string>()
                     : Text(input, "text").empty() ? DumpJson(input)
                                                   : Text(input, "text");
  std::vector<SourceSentence> sentences;
  for (auto& sentence : SplitSentences(NormaliseText(text))) {
    if (sentences.size() < kMaxSentences) sentences.push_back({sentence, "", 1, 1, ""});
  }
  std::vector<size_t> picked = PickSentences(sentences, Text(input, "topic"), 5);
  std::sort(picked.begin(), picked.end());
  std::vector<std::string> out;
  for (size_t i : picked) out.push_back(sentences[i].text);
  return absl::StrJoin(out, " ");
}

}  // namespace tutti::agent_manager
