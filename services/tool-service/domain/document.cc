#include "services/tool-service/domain/document.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/text/sentences.h"
#include "runtime/text/utf8.h"

namespace tutti::tool_service {
namespace {

constexpr size_t kMaxSentenceBytes = 1200;

// Lines of a table of contents, an index or a table: dots or digits instead of words.
bool IsNoise(const std::string& sentence) {
  if (absl::StrContains(sentence, ". . .") || absl::StrContains(sentence, "....")) return true;
  size_t letters = static_cast<size_t>(std::count_if(
      sentence.begin(), sentence.end(), [](char c) { return isalpha(static_cast<unsigned char>(c)) || (c & 0x80); }));
  return letters * 2 < sentence.size();
}

}  // namespace

std::vector<Passage> CutPassages(const Document& document, size_t target_bytes) {
  std::vector<Passage> out;
  for (size_t page = 0; page < document.pages.size(); ++page) {
    Passage current;
    current.page = static_cast<int>(page) + 1;
    auto flush = [&] {
      if (!current.text.empty()) out.push_back(current);
      current.text.clear();
    };
    for (std::string& sentence : SplitSentences(document.pages[page])) {
      if (IsNoise(sentence)) continue;
      // Lists and tables have no full stops: they go in pieces, cut between words.
      while (sentence.size() > kMaxSentenceBytes) {
        flush();
        size_t end = Utf8Prefix(sentence, kMaxSentenceBytes).size();
        if (size_t space = sentence.rfind(' ', end); space != std::string::npos && space > end / 2) end = space;
        current.text = sentence.substr(0, end);
        flush();
        sentence.erase(0, end);
      }
      if (!current.text.empty() && current.text.size() + sentence.size() > target_bytes) flush();
      absl::StrAppend(&current.text, current.text.empty() ? "" : " ", sentence);
    }
    flush();
  }
  return out;
}

}  // namespace tutti::tool_service
