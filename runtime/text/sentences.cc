#include "runtime/text/sentences.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace tutti {
namespace {

const std::set<std::string>& StopWords() {
  static const std::set<std::string> kWords = {
      "a",    "about", "above", "after", "again",   "all",    "also",  "am",    "an",      "and",     "any",
      "are",  "as",    "at",    "be",    "been",    "before", "being", "below", "between", "both",    "but",
      "by",   "can",   "could", "did",   "do",      "does",   "doing", "down",  "during",  "each",    "either",
      "etc",  "few",   "for",   "from",  "further", "had",    "has",   "have",  "having",  "he",      "her",
      "here", "him",   "his",   "how",   "i",       "if",     "in",    "into",  "is",      "it",      "its",
      "just", "may",   "me",    "might", "more",    "most",   "must",  "my",    "no",      "nor",     "not",
      "now",  "of",    "off",   "on",    "once",    "one",    "only",  "or",    "other",   "our",     "out",
      "over", "own",   "same",  "shall", "she",     "should", "so",    "some",  "such",    "than",    "that",
      "the",  "their", "them",  "then",  "there",   "these",  "they",  "this",  "those",   "through", "to",
      "too",  "under", "until", "up",    "used",    "using",  "very",  "was",   "we",      "were",    "what",
      "when", "where", "which", "while", "who",     "whom",   "why",   "will",  "with",    "would",   "you",
      "your", "eg",    "ie",    "see",   "us"};
  return kWords;
}

// The light English stemmer of Harman's "S" family with -ing, -ed and -ly besides: enough to join packages and package.
std::string Stem(std::string word) {
  auto ends = [&](absl::string_view suffix, size_t least) {
    return word.size() >= suffix.size() + least && absl::EndsWith(word, suffix);
  };
  if (ends("ies", 2)) return word.substr(0, word.size() - 3) + "y";
  if (ends("sses", 1)) return word.substr(0, word.size() - 2);
  if (ends("s", 3) && !ends("ss", 1) && !ends("us", 1) && !ends("is", 1)) word.pop_back();
  if (ends("ing", 4)) return word.substr(0, word.size() - 3);
  if (ends("ed", 4)) return word.substr(0, word.size() - 2);
  if (ends("ly", 4)) return word.substr(0, word.size() - 2);
  if (ends("e", 4)) word.pop_back();
  return word;
}

bool IsAbbreviation(absl::string_view before) {
  size_t space = before.find_last_of(" (");
  std::string word = absl::AsciiStrToLower(before.substr(space == absl::string_view::npos ? 0 : space + 1));
  static const std::set<std::string> kShort = {"e.g", "i.e", "etc", "cf",  "vs", "fig", "no",
                                               "sec", "dr",  "mr",  "mrs", "ms", "st",  "al"};
  return kShort.count(word) > 0 || word.size() == 1;
}

}  // namespace

bool IsStopWord(absl::string_view word) { return StopWords().count(std::string(word)) > 0; }

std::string NormaliseText(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '-' && i + 1 < text.size() && text[i + 1] == '\n' && !out.empty() && absl::ascii_islower(out.back())) {
      size_t next = i + 2;
      while (next < text.size() && (text[next] == ' ' || text[next] == '\n')) ++next;
      if (next < text.size() && absl::ascii_islower(text[next])) {
        i = next - 1;
        continue;
      }
    }
    bool nbsp = c == '\xC2' && i + 1 < text.size() && text[i + 1] == '\xA0';
    if (nbsp) ++i;
    if (nbsp || absl::ascii_isspace(c) || (static_cast<unsigned char>(c) < 0x20)) {
      if (!out.empty() && out.back() != ' ') out += ' ';
    } else {
      out += c;
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::vector<std::string> SplitSentences(absl::string_view text) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '.' && text[i] != '!' && text[i] != '?') continue;
    size_t end = i + 1;
    while (end < text.size() && (text[end] == '"' || text[end] == ')' || text[end] == '\'')) ++end;
    bool at_end = end >= text.size();
    if (!at_end && text[end] != ' ') continue;
    if (text[i] == '.' && IsAbbreviation(text.substr(begin, i - begin))) continue;
    if (!at_end && end + 1 < text.size() && absl::ascii_islower(text[end + 1])) continue;
    absl::string_view sentence = absl::StripAsciiWhitespace(text.substr(begin, end - begin));
    if (!sentence.empty()) out.emplace_back(sentence);
    begin = end;
  }
  absl::string_view rest = absl::StripAsciiWhitespace(text.substr(begin));
  if (!rest.empty()) out.emplace_back(rest);
  return out;
}

std::vector<std::string> Terms(absl::string_view text) {
  std::vector<std::string> out;
  std::string word;
  auto flush = [&] {
    if (word.size() > 1 && !IsStopWord(word)) out.push_back(Stem(word));
    word.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    auto byte = static_cast<unsigned char>(c);
    // General punctuation (U+2000 to U+206F: quotes, dashes) and Latin-1 signs (U+0080 to U+00BF) divide words.
    bool three = byte == 0xE2 && i + 2 < text.size() &&
                 (static_cast<unsigned char>(text[i + 1]) == 0x80 ||
                  (static_cast<unsigned char>(text[i + 1]) == 0x81 && static_cast<unsigned char>(text[i + 2]) <= 0xAF));
    bool two = byte == 0xC2 && i + 1 < text.size();
    if (three || two) {
      flush();
      i += three ? 2 : 1;
    } else if (absl::ascii_isalnum(c) || (byte & 0x80)) {
      word += absl::ascii_tolower(c);
    } else {
      flush();
    }
  }
  flush();
  return out;
}

}  // namespace tutti
