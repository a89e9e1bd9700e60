#include <gumbo.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/status/macros.h"
#include "runtime/text/sentences.h"
#include "services/tool-service/adapters/readers.h"

namespace tutti::tool_service {
namespace {

class Arena {
 public:
  void* Allocate(size_t size) {
    blocks_.push_back(std::make_unique<char[]>(std::max<size_t>(size, 1)));
    return blocks_.back().get();
  }

 private:
  std::vector<std::unique_ptr<char[]>> blocks_;
};

bool IsSkipped(GumboTag tag) {
  return tag == GUMBO_TAG_SCRIPT || tag == GUMBO_TAG_STYLE || tag == GUMBO_TAG_NAV || tag == GUMBO_TAG_NOSCRIPT ||
         tag == GUMBO_TAG_TEMPLATE || tag == GUMBO_TAG_FOOTER || tag == GUMBO_TAG_HEAD || tag == GUMBO_TAG_SVG;
}

bool IsBlock(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_P:
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_LI:
    case GUMBO_TAG_H1:
    case GUMBO_TAG_H2:
    case GUMBO_TAG_H3:
    case GUMBO_TAG_H4:
    case GUMBO_TAG_H5:
    case GUMBO_TAG_H6:
    case GUMBO_TAG_TR:
    case GUMBO_TAG_DT:
    case GUMBO_TAG_DD:
    case GUMBO_TAG_PRE:
    case GUMBO_TAG_BLOCKQUOTE:
    case GUMBO_TAG_SECTION:
    case GUMBO_TAG_ARTICLE:
    case GUMBO_TAG_TD:
    case GUMBO_TAG_TH:
    case GUMBO_TAG_BR:
      return true;
    default:
      return false;
  }
}

// Headings get a full stop, so that they do not run into the sentence after them.
bool IsHeading(GumboTag tag) { return tag >= GUMBO_TAG_H1 && tag <= GUMBO_TAG_H6; }

void CollectText(const GumboNode* node, std::string& out, int depth) {
  if (depth > 400) return;
  if (node->type == GUMBO_NODE_TEXT || node->type == GUMBO_NODE_WHITESPACE || node->type == GUMBO_NODE_CDATA) {
    out += node->v.text.text;
    return;
  }
  if (node->type != GUMBO_NODE_ELEMENT && node->type != GUMBO_NODE_DOCUMENT) return;
  bool element = node->type == GUMBO_NODE_ELEMENT;
  if (element && IsSkipped(node->v.element.tag)) return;
  const GumboVector& children = element ? node->v.element.children : node->v.document.children;
  size_t before = out.size();
  for (unsigned i = 0; i < children.length; ++i)
    CollectText(static_cast<const GumboNode*>(children.data[i]), out, depth + 1);
  if (!element) return;
  if (IsHeading(node->v.element.tag) && out.size() > before) out += ".";
  if (IsBlock(node->v.element.tag)) out += '\n';
}

class HtmlReader final : public DocumentReader {
 public:
  bool Reads(const std::string& extension) const override { return extension == ".html" || extension == ".htm"; }
  absl::StatusOr<std::vector<std::string>> Read(const std::string& path) const override {
    TUTTI_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
    TUTTI_ASSIGN_OR_RETURN(std::string html, ToUtf8(bytes));
    // gumbo frees its tree by recursion, which deep nesting would carry past the stack's end: freed all at once
    // instead.
    Arena arena;
    GumboOptions options = kGumboDefaultOptions;
    options.userdata = &arena;
    options.allocator = [](void* self, size_t size) { return static_cast<Arena*>(self)->Allocate(size); };
    options.deallocator = [](void*, void*) {};
    GumboOutput* output = gumbo_parse_with_options(&options, html.data(), html.size());
    std::string text;
    CollectText(output->document, text, 0);
    return std::vector<std::string>{NormaliseText(text)};
  }
};

}  // namespace

std::unique_ptr<DocumentReader> NewHtmlReader() { return std::make_unique<HtmlReader>(); }

}  // namespace tutti::tool_service
