// The tools by name: finds them, checks parameters against their schemas, calls them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/tool-service/ports/tool.h"

namespace tutti::tool_service {

class Catalogue {
 public:
  void Add(std::unique_ptr<Tool> tool);
  const std::map<std::string, std::unique_ptr<Tool>>& tools() const { return tools_; }
  // NOT_FOUND: no such tool. INVALID_ARGUMENT: the parameters do not fit its schema (BadRequest names each). Blocks.
  absl::StatusOr<Json> Call(const std::string& name, const Json& parameters, const ToolCallInfo& info) const;
  // The tool that Call would call, its parameters checked.
  absl::StatusOr<Tool*> Find(const std::string& name, const Json& parameters) const;

 private:
  std::map<std::string, std::unique_ptr<Tool>> tools_;
};

}  // namespace tutti::tool_service
