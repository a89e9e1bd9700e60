// The formats: PDF (poppler), DOCX (libzip, pugixml), HTML (gumbo), Markdown and text (uchardet, iconv).
#pragma once

#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/tool-service/ports/document_reader.h"

namespace tutti::tool_service {

std::vector<std::unique_ptr<DocumentReader>> AllReaders();

std::unique_ptr<DocumentReader> NewPdfReader();
std::unique_ptr<DocumentReader> NewDocxReader();
std::unique_ptr<DocumentReader> NewHtmlReader();
std::unique_ptr<DocumentReader> NewTextReader();

// The whole file. Errors say why.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// Bytes of unknown encoding as UTF-8: byte order mark, valid UTF-8, else what uchardet finds.
absl::StatusOr<std::string> ToUtf8(absl::string_view bytes);

}  // namespace tutti::tool_service
