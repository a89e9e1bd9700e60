#include "services/tool-service/domain/catalogue.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/nearest_name.h"

namespace tutti::tool_service {

void Catalogue::Add(std::unique_ptr<Tool> tool) {
  std::string name = tool->name();
  tools_[name] = std::move(tool);
}

absl::StatusOr<Tool*> Catalogue::Find(const std::string& name, const Json& parameters) const {
  auto it = tools_.find(name);
  if (it == tools_.end()) {
    std::vector<std::string> names;
    for (const auto& [known, tool] : tools_) names.push_back(known);
    return Error(absl::StatusCode::kNotFound, "TOOL_NOT_FOUND",
                 absl::StrCat("no tool \"", name, "\"", DidYouMean(name, names), "; `tutti tools list` shows them"))
        .Metadata("tool", name);
  }
  absl::Status fits = ValidateJson(it->second->parameters_schema(), parameters, "parameters");
  if (!fits.ok()) return Prefix(fits, absl::StrCat("tool ", name, ": "));
  return it->second.get();
}

absl::StatusOr<Json> Catalogue::Call(const std::string& name, const Json& parameters, const ToolCallInfo& info) const {
  TUTTI_ASSIGN_OR_RETURN(Tool * tool, Find(name, parameters));
  return tool->Call(parameters, info);
}

}  // namespace tutti::tool_service
