// Documents as text by page, and how they are cut into passages.
#pragma once

#include <string>
#include <vector>

namespace tutti::tool_service {

struct Document {
  std::string name;                // path below the folder, with `/`
  std::vector<std::string> pages;  // UTF-8, normalised; formats without pages have one
};

// A file that could not be read, and why.
struct SkippedFile {
  std::string name;
  std::string reason;
};

// A piece of one page, a few sentences long.
struct Passage {
  std::string text;
  int page = 1;  // from 1
};

// Passages of about `target_bytes`, whole sentences, never over a page's end. Tables of contents and other runs of dots
// are left out.
std::vector<Passage> CutPassages(const Document& document, size_t target_bytes = 500);

}  // namespace tutti::tool_service
