#include <zip.h>

#include <pugixml.hpp>

#include <memory>

#include "runtime/status/macros.h"
#include "runtime/text/sentences.h"
#include "services/tool-service/adapters/readers.h"

namespace tutti::tool_service {
namespace {

constexpr zip_uint64_t kMaxXmlBytes = 64 << 20;  // a small archive may unpack to a very large file

struct ZipCloser {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};

void CollectText(const pugi::xml_node& node, std::string& out, int depth) {
  if (depth > 200) return;
  for (const auto& child : node.children()) {
    std::string name = child.name();
    if (name == "w:t") out += child.text().get();
    if (name == "w:tab" || name == "w:br") out += ' ';
    CollectText(child, out, depth + 1);
    if (name == "w:p" || name == "w:tr") out += '\n';
    if (name == "w:tc") out += ' ';
  }
}

class DocxReader final : public DocumentReader {
 public:
  bool Reads(const std::string& extension) const override { return extension == ".docx"; }
  absl::StatusOr<std::vector<std::string>> Read(const std::string& path) const override {
    int code = 0;
    std::unique_ptr<zip_t, ZipCloser> archive(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (!archive) return absl::DataLossError("damaged, encrypted, or no DOCX (not a zip archive)");
    zip_stat_t stat;
    if (zip_stat(archive.get(), "word/document.xml", 0, &stat) != 0) {
      return absl::DataLossError("no DOCX: word/document.xml is missing");
    }
    if (stat.encryption_method != ZIP_EM_NONE) return absl::PermissionDeniedError("encrypted: it needs a password");
    if (stat.size > kMaxXmlBytes) return absl::ResourceExhaustedError("unpacks to more than 64 MiB");
    std::string xml(stat.size, '\0');
    zip_file_t* file = zip_fopen(archive.get(), "word/document.xml", 0);
    if (!file) return absl::DataLossError("damaged: word/document.xml cannot be unpacked");
    zip_int64_t read = zip_fread(file, xml.data(), xml.size());
    zip_fclose(file);
    if (read != static_cast<zip_int64_t>(xml.size()))
      return absl::DataLossError("damaged: word/document.xml is cut off");
    pugi::xml_document document;
    if (!document.load_buffer(xml.data(), xml.size()))
      return absl::DataLossError("damaged: word/document.xml is no XML");
    std::string text;
    CollectText(document, text, 0);
    TUTTI_ASSIGN_OR_RETURN(text, ToUtf8(text));
    return std::vector<std::string>{NormaliseText(text)};
  }
};

}  // namespace

std::unique_ptr<DocumentReader> NewDocxReader() { return std::make_unique<DocxReader>(); }

}  // namespace tutti::tool_service
