// The tools over folders of documents, and the calculator.
#pragma once

#include <memory>
#include <vector>

#include "services/tool-service/adapters/document_library.h"
#include "services/tool-service/ports/tool.h"

namespace tutti::tool_service {

// documents_list, documents_read, documents_search, citations_verify. `library` must outlive them.
std::vector<std::unique_ptr<Tool>> NewDocumentTools(DocumentLibrary& library);
// calculate.
std::unique_ptr<Tool> NewCalculatorTool();
// test_count: appends its idempotency key to `file`, for tests that count effects from outside.
std::unique_ptr<Tool> NewTestCountTool(std::string file);

}  // namespace tutti::tool_service
