#include "services/tool-service/adapters/document_tools.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/sentences.h"
#include "runtime/text/utf8.h"

namespace tutti::tool_service {
namespace {

constexpr size_t kMaxReadBytes = 1 << 20;

Json FolderProperty() { return {{"type", "string"}, {"description", "Path of the folder with the documents"}}; }

Json SkippedToJson(const Corpus& corpus) {
  Json out = Json::array();
  for (const auto& file : corpus.skipped) out.push_back({{"name", file.name}, {"reason", file.reason}});
  return out;
}

class ListTool final : public Tool {
 public:
  explicit ListTool(DocumentLibrary& library) : library_(library) {}
  std::string name() const override { return "documents_list"; }
  std::string description() const override { return "Lists the documents of a folder, and those that cannot be read."; }
  Json parameters_schema() const override {
    return {{"type", "object"},
            {"properties", {{"folder", FolderProperty()}}},
            {"required", {"folder"}},
            {"additionalProperties", false}};
  }
  absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo& info) override {
    TUTTI_ASSIGN_OR_RETURN(auto corpus, library_.Open(parameters["folder"], info));
    Json documents = Json::array();
    for (const auto& document : corpus->documents) {
      documents.push_back({{"name", document.name}, {"pages", document.pages.size()}});
    }
    return Json{{"documents", std::move(documents)}, {"skipped", SkippedToJson(*corpus)}};
  }

 private:
  DocumentLibrary& library_;
};

class ReadTool final : public Tool {
 public:
  explicit ReadTool(DocumentLibrary& library) : library_(library) {}
  std::string name() const override { return "documents_read"; }
  std::string description() const override { return "Reads the text of a document, page by page."; }
  Json parameters_schema() const override {
    return {{"type", "object"},
            {"properties",
             {{"folder", FolderProperty()},
              {"document", {{"type", "string"}, {"description", "Its name as documents_list gives it"}}},
              {"first_page", {{"type", "integer"}, {"minimum", 1}, {"description", "Default 1"}}},
              {"last_page", {{"type", "integer"}, {"minimum", 1}, {"description", "Default: as many as fit"}}}}},
            {"required", {"folder", "document"}},
            {"additionalProperties", false}};
  }
  absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo& info) override {
    TUTTI_ASSIGN_OR_RETURN(auto corpus, library_.Open(parameters["folder"], info));
    std::string name = parameters["document"];
    const Document* document = corpus->Find(name);
    if (!document) {
      return Error(
          absl::StatusCode::kNotFound, "DOCUMENT_NOT_FOUND",
          absl::StrCat("no readable document \"", name, "\" in ", corpus->folder, "; documents_list names them"));
    }
    auto total = static_cast<int64_t>(document->pages.size());
    int64_t first = parameters.value("first_page", int64_t{1});
    int64_t last = std::min(parameters.value("last_page", total), total);
    Json pages = Json::array();
    size_t bytes = 0;
    bool cut = false;
    for (int64_t page = first; page <= last && !cut; ++page) {
      const std::string& text = document->pages[static_cast<size_t>(page - 1)];
      bytes += text.size();
      cut = bytes > kMaxReadBytes && !pages.empty();
      if (!cut) pages.push_back({{"page", page}, {"text", text}});
    }
    return Json{
        {"document", name}, {"pages", std::move(pages)}, {"total_pages", document->pages.size()}, {"truncated", cut}};
  }

 private:
  DocumentLibrary& library_;
};

class SearchTool final : public Tool {
 public:
  explicit SearchTool(DocumentLibrary& library) : library_(library) {}
  std::string name() const override { return "documents_search"; }
  std::string description() const override {
    return "Finds the passages of a folder's documents that fit a query best (full text, BM25), with document and "
           "page.";
  }
  Json parameters_schema() const override {
    return {
        {"type", "object"},
        {"properties",
         {{"folder", FolderProperty()},
          {"query", {{"type", "string"}, {"minLength", 1}, {"maxLength", 1000}, {"description", "Words to look for"}}},
          {"limit",
           {{"type", "integer"}, {"minimum", 1}, {"maximum", 100}, {"description", "Most passages, default 10"}}}}},
        {"required", {"folder", "query"}},
        {"additionalProperties", false}};
  }
  absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo& info) override {
    TUTTI_ASSIGN_OR_RETURN(auto corpus, library_.Open(parameters["folder"], info));
    Json passages = Json::array();
    for (const auto& hit : corpus->index->Search(parameters["query"], parameters.value("limit", 10))) {
      passages.push_back({{"document", hit.document}, {"page", hit.page}, {"text", hit.text}, {"score", hit.score}});
    }
    return Json{{"passages", std::move(passages)},
                {"documents", corpus->documents.size()},
                {"skipped", SkippedToJson(*corpus)}};
  }

 private:
  DocumentLibrary& library_;
};

// A quotation stands on its page when its words do, whatever the white space, the letters' case and the kind of quotes.
std::string Comparable(absl::string_view text) {
  std::string plain = absl::StrReplaceAll(
      NormaliseText(text),
      {{"\xE2\x80\x98", "'"}, {"\xE2\x80\x99", "'"}, {"\xE2\x80\x9C", "\""}, {"\xE2\x80\x9D", "\""}});
  return absl::AsciiStrToLower(plain);
}

class VerifyTool final : public Tool {
 public:
  explicit VerifyTool(DocumentLibrary& library) : library_(library) {}
  std::string name() const override { return "citations_verify"; }
  std::string description() const override {
    return "Checks that each citation's quotation stands in the named document on the named page. Answers passed, "
           "score (the "
           "share that does) and feedback.";
  }
  Json parameters_schema() const override {
    Json citation = {
        {"type", "object"},
        {"properties",
         {{"document", {{"type", "string"}}}, {"page", {{"type", "integer"}}}, {"quote", {{"type", "string"}}}}},
        {"required", {"document", "page", "quote"}}};
    return {{"type", "object"},
            {"properties",
             {{"folder", FolderProperty()},
              {"citations", {{"type", "array"}, {"items", citation}, {"maxItems", 1000}}},
              {"minimum", {{"type", "integer"}, {"minimum", 0}, {"description", "Fewest citations, default 1"}}}}},
            {"required", {"folder", "citations"}},
            {"additionalProperties", false}};
  }
  absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo& info) override {
    TUTTI_ASSIGN_OR_RETURN(auto corpus, library_.Open(parameters["folder"], info));
    const Json& citations = parameters["citations"];
    size_t good = 0;
    Json checked = Json::array();
    ComparablePages pages;
    std::string feedback;
    for (const auto& citation : citations) {
      if (info.given_up(absl::Now())) return absl::CancelledError("the call was given up while citations were checked");
      std::string problem = Problem(*corpus, citation, pages);
      if (problem.empty()) {
        ++good;
      } else if (feedback.size() < 1500) {
        absl::StrAppend(&feedback, feedback.empty() ? "" : "; ", problem);
      }
      checked.push_back(
          {{"document", citation["document"]}, {"page", citation["page"]}, {"verified", problem.empty()}});
    }
    auto minimum = static_cast<size_t>(parameters.value("minimum", int64_t{1}));
    if (citations.size() < minimum) {
      absl::StrAppend(&feedback, feedback.empty() ? "" : "; ", "there are ", citations.size(), " citations, at least ",
                      minimum, " are needed");
    }
    double score = citations.empty() ? 0 : static_cast<double>(good) / static_cast<double>(citations.size());
    return Json{{"passed", good == citations.size() && citations.size() >= minimum},
                {"score", score},
                {"feedback", feedback},
                {"checked", std::move(checked)}};
  }

 private:
  using ComparablePages = std::map<std::pair<std::string, int64_t>, std::string>;
  static std::string Problem(const Corpus& corpus, const Json& citation, ComparablePages& pages) {
    std::string name = citation["document"];
    int64_t page = citation["page"];
    std::string where = absl::StrCat(name, " page ", page);
    const Document* document = corpus.Find(name);
    if (!document) return absl::StrCat(where, ": there is no such document");
    if (page < 1 || page > static_cast<int64_t>(document->pages.size())) {
      return absl::StrCat(where, ": the document has ", document->pages.size(), " pages");
    }
    std::string quote = Comparable(citation["quote"].get<std::string>());
    if (quote.size() < 10) return absl::StrCat(where, ": the quotation is too short to be checked");
    auto [known, is_new] = pages.try_emplace({name, page});  // each page is made comparable once a call
    if (is_new) known->second = Comparable(document->pages[static_cast<size_t>(page) - 1]);
    if (known->second.find(quote) == std::string::npos) {
      return absl::StrCat(where, ": \"", Utf8Prefix(citation["quote"].get_ref<const std::string&>(), 80),
                          "\" does not stand there");
    }
    return "";
  }
  DocumentLibrary& library_;
};

}  // namespace

std::vector<std::unique_ptr<Tool>> NewDocumentTools(DocumentLibrary& library) {
  std::vector<std::unique_ptr<Tool>> tools;
  tools.push_back(std::make_unique<ListTool>(library));
  tools.push_back(std::make_unique<ReadTool>(library));
  tools.push_back(std::make_unique<SearchTool>(library));
  tools.push_back(std::make_unique<VerifyTool>(library));
  return tools;
}

}  // namespace tutti::tool_service
