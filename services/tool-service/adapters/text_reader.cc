#include <iconv.h>
#include <uchardet/uchardet.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "runtime/text/sentences.h"
#include "runtime/text/utf8.h"
#include "services/tool-service/adapters/readers.h"

namespace tutti::tool_service {
namespace {

absl::StatusOr<std::string> Convert(absl::string_view bytes, const std::string& charset) {
  iconv_t converter = iconv_open("UTF-8//TRANSLIT", charset.c_str());
  if (converter == reinterpret_cast<iconv_t>(-1))
    return absl::InvalidArgumentError(absl::StrCat("unknown encoding ", charset));
  std::string out(bytes.size() * 4 + 16, '\0');
  char* in = const_cast<char*>(bytes.data());
  size_t in_left = bytes.size();
  char* to = out.data();
  size_t out_left = out.size();
  size_t result = iconv(converter, &in, &in_left, &to, &out_left);
  iconv_close(converter);
  if (result == static_cast<size_t>(-1)) {
    return absl::DataLossError(absl::StrCat("not valid ", charset, " at byte ", bytes.size() - in_left));
  }
  out.resize(out.size() - out_left);
  return out;
}

class TextReader final : public DocumentReader {
 public:
  bool Reads(const std::string& extension) const override {
    return extension == ".txt" || extension == ".md" || extension == ".markdown" || extension == ".text";
  }
  absl::StatusOr<std::vector<std::string>> Read(const std::string& path) const override {
    TUTTI_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
    TUTTI_ASSIGN_OR_RETURN(std::string text, ToUtf8(bytes));
    if (text.find('\0') != std::string::npos) return absl::DataLossError("binary, not text");
    return std::vector<std::string>{NormaliseText(text)};
  }
};

}  // namespace

std::unique_ptr<DocumentReader> NewTextReader() { return std::make_unique<TextReader>(); }

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::PermissionDeniedError(absl::StrCat("cannot be opened: ", strerror(errno)));
  std::stringstream bytes;
  bytes << in.rdbuf();
  if (in.bad()) return absl::DataLossError(absl::StrCat("cannot be read: ", strerror(errno)));
  return std::move(bytes).str();
}

absl::StatusOr<std::string> ToUtf8(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "\xEF\xBB\xBF")) bytes.remove_prefix(3);
  if (absl::StartsWith(bytes, "\xFF\xFE")) return Convert(bytes.substr(2), "UTF-16LE");
  if (absl::StartsWith(bytes, "\xFE\xFF")) return Convert(bytes.substr(2), "UTF-16BE");
  if (IsValidUtf8(bytes)) return std::string(bytes);
  uchardet_t detector = uchardet_new();
  uchardet_handle_data(detector, bytes.data(), bytes.size());
  uchardet_data_end(detector);
  std::string charset = uchardet_get_charset(detector);
  uchardet_delete(detector);
  // Every byte means something in Windows-1252's superset of Latin-1: the last resort.
  if (charset.empty() || charset == "ASCII") charset = "WINDOWS-1252";
  auto converted = Convert(bytes, charset);
  return converted.ok() ? converted : Convert(bytes, "ISO-8859-1");
}

std::vector<std::unique_ptr<DocumentReader>> AllReaders() {
  std::vector<std::unique_ptr<DocumentReader>> readers;
  readers.push_back(NewPdfReader());
  readers.push_back(NewDocxReader());
  readers.push_back(NewHtmlReader());
  readers.push_back(NewTextReader());
  return readers;
}

}  // namespace tutti::tool_service
