// Reads one file of one format.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/tool-service/domain/document.h"

namespace tutti::tool_service {

// Errors are for people: "encrypted", "damaged: …", "has no text". They make a file skipped, never a call fail.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // True for the file endings of this format, lower case, with the dot.
  virtual bool Reads(const std::string& extension) const = 0;
  // Pages of normalised UTF-8 text.
  virtual absl::StatusOr<std::vector<std::string>> Read(const std::string& path) const = 0;
};

}  // namespace tutti::tool_service
