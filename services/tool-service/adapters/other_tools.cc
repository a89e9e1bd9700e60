#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"
#include "services/tool-service/adapters/document_tools.h"
#include "services/tool-service/domain/calculator.h"

namespace tutti::tool_service {
namespace {

class CalculatorTool final : public Tool {
 public:
  std::string name() const override { return "calculate"; }
  std::string description() const override {
    return "Calculates exactly with decimals and fractions: + - * / ^ and parentheses. 0.1 + 0.2 is 0.3.";
  }
  Json parameters_schema() const override {
    return {{"type", "object"},
            {"properties",
             {{"expression", {{"type", "string"}, {"minLength", 1}, {"maxLength", 10000}}},
              {"digits",
               {{"type", "integer"},
                {"minimum", 0},
                {"maximum", 1000},
                {"description", "Places after the point when the result has no end, default 28"}}}}},
            {"required", {"expression"}},
            {"additionalProperties", false}};
  }
  absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo&) override {
    TUTTI_ASSIGN_OR_RETURN(auto result, Calculate(parameters["expression"], parameters.value("digits", 28)));
    return Json{{"value", result.decimal}, {"exact", result.exact}, {"fraction", result.fraction}};
  }
};

class TestCountTool final : public Tool {
 public:
  explicit TestCountTool(std::string file) : file_(std::move(file)) {}
  std::string name() const override { return "test_count"; }
  std::string description() const override { return "For tests: appends the call's idempotency key to a file."; }
  Json parameters_schema() const override { return {{"type", "object"}}; }
  bool idempotent() const override { return false; }
  absl::StatusOr<Json> Call(const Json& parameters, const ToolCallInfo& info) override {
    int file = open(file_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return absl::UnavailableError(absl::StrCat(file_, ": ", strerror(errno)));
    std::string line = absl::StrCat(info.idempotency_key, "\n");
    ssize_t written = write(file, line.data(), line.size());
    close(file);
    if (written != static_cast<ssize_t>(line.size()))
      return absl::UnavailableError(absl::StrCat(file_, ": short write"));
    return Json{{"key", info.idempotency_key}, {"parameters", parameters}};
  }

 private:
  const std::string file_;
};

}  // namespace

std::unique_ptr<Tool> NewCalculatorTool() { return std::make_unique<CalculatorTool>(); }
std::unique_ptr<Tool> NewTestCountTool(std::string file) { return std::make_unique<TestCountTool>(std::move(file)); }

}  // namespace tutti::tool_service
