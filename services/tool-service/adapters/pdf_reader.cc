#include <poppler/cpp/poppler-document.h>
#include <poppler/cpp/poppler-global.h>
#include <poppler/cpp/poppler-page.h>

#include <map>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/text/sentences.h"
#include "services/tool-service/adapters/readers.h"

namespace tutti::tool_service {
namespace {

constexpr int kMaxPages = 20000;

// A line with its digits made equal: running heads differ only in the page's number.
std::string HeadKey(absl::string_view line) {
  std::string key;
  for (char c : absl::StripAsciiWhitespace(line)) key += absl::ascii_isdigit(c) ? '#' : c;
  return key;
}

// Removes first and last lines that return on at least three pages: heads and feet of a book.
void RemoveRunningHeads(std::vector<std::vector<std::string>>& pages) {
  std::map<std::string, int> seen;
  auto edges = [](std::vector<std::string>& lines) {
    std::vector<size_t> out;
    for (size_t i = 0; i < lines.size() && out.size() < 2; ++i) {
      if (!absl::StripAsciiWhitespace(lines[i]).empty()) out.push_back(i);
    }
    size_t top = out.size();
    for (size_t i = lines.size(); i-- > 0 && out.size() < top + 2;) {
      if (!absl::StripAsciiWhitespace(lines[i]).empty()) out.push_back(i);
    }
    return out;
  };
  for (auto& lines : pages) {
    for (size_t i : edges(lines)) ++seen[HeadKey(lines[i])];
  }
  for (auto& lines : pages) {
    for (size_t i : edges(lines)) {
      if (seen[HeadKey(lines[i])] >= 3) lines[i].clear();
    }
  }
}

class PdfReader final : public DocumentReader {
 public:
  PdfReader() {
    poppler::set_debug_error_function([](const std::string&, void*) {}, nullptr);  // not onto our standard error
  }
  bool Reads(const std::string& extension) const override { return extension == ".pdf"; }
  absl::StatusOr<std::vector<std::string>> Read(const std::string& path) const override {
    std::unique_ptr<poppler::document> document(poppler::document::load_from_file(path));
    if (!document) return absl::DataLossError("damaged, or no PDF");
    if (document->is_locked()) return absl::PermissionDeniedError("encrypted: it needs a password");
    if (document->pages() > kMaxPages) return absl::ResourceExhaustedError("more than 20000 pages");
    std::vector<std::vector<std::string>> pages;
    for (int i = 0; i < document->pages(); ++i) {
      std::unique_ptr<poppler::page> page(document->create_page(i));
      std::string text;
      if (page) {
        poppler::byte_array bytes = page->text().to_utf8();
        text.assign(bytes.begin(), bytes.end());
      }
      pages.push_back(absl::StrSplit(text, '\n'));
    }
    RemoveRunningHeads(pages);
    std::vector<std::string> out;
    for (const auto& lines : pages) out.push_back(NormaliseText(absl::StrJoin(lines, "\n")));
    return out;
  }
};

}  // namespace

std::unique_ptr<DocumentReader> NewPdfReader() { return std::make_unique<PdfReader>(); }

}  // namespace tutti::tool_service
