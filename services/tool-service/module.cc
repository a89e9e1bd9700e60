#include "services/tool-service/module.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/http/curl_http_client.h"
#include "runtime/process/service_server.h"
#include "services/tool-service/adapters/document_tools.h"
#include "services/tool-service/adapters/http_tool.h"
#include "services/tool-service/rpc/services.h"

namespace tutti::tool_service {
namespace {

constexpr size_t kMaxWaitingCalls = 1024;

DocumentLibrary::Options LibraryOptions(const tutti::config::v1::ToolService& config) {
  DocumentLibrary::Options options;
  options.roots.assign(config.document_roots().begin(), config.document_roots().end());
  if (options.roots.empty()) {
    std::error_code error;
    std::filesystem::path here = std::filesystem::current_path(error);
    const char* home = getenv("HOME");
    // A whole home folder, or a whole machine, is nobody's intention.
    if (here == here.root_path() || (home && here == std::filesystem::path(home))) here /= "documents";
    options.roots.push_back(here.string());
  }
  options.max_document_bytes = config.max_document_bytes();
  options.max_documents = config.max_documents();
  return options;
}

class ToolServiceModule final : public Module {
 public:
  ToolServiceModule(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone)
      : config_(config),
        standalone_(standalone),
        library_(LibraryOptions(config.tool_service())),
        pool_(runtime.NewWorkers("tools", std::max(1, config.tool_service().worker_threads()), kMaxWaitingCalls)),
        runner_(catalogue_, *pool_, runtime.clock),
        serving_(runtime, "tool-service"),
        tool_rpc_(serving_.env(), catalogue_, runner_),
        execution_rpc_(serving_.env(), runner_) {
    for (auto& tool : NewDocumentTools(library_)) catalogue_.Add(std::move(tool));
    catalogue_.Add(NewCalculatorTool());
    catalogue_.Add(NewHttpTool(*http_, config.tool_service().http()));
    if (!config.tool_service().test_count_file().empty()) {
      catalogue_.Add(NewTestCountTool(config.tool_service().test_count_file()));
    }
  }
  ~ToolServiceModule() override { Drain(absl::Now()); }

  absl::Status Start(const Peers&) override {
    tool_rpc_.Offer(serving_.runtime().local_methods);
    execution_rpc_.Offer(serving_.runtime().local_methods);
    RpcServer::Options server;
    if (!standalone_)
      server.address = absl::StrCat(config_.process().bind_address(), ":", config_.tool_service().grpc_port());
    server.port_flag = "--tool-service.grpc-port";
    server.max_message_bytes = static_cast<int>(config_.process().max_message_bytes());
    server.reflected = {"tutti.tool.v1.ToolService", "tutti.tool.v1.ToolExecutionService"};
    return serving_.Serve(std::move(server));
  }
  void Drain(absl::Time deadline) override { serving_.Drain(deadline); }

 private:
  const tutti::config::v1::Config& config_;
  const bool standalone_;
  DocumentLibrary library_;
  std::unique_ptr<HttpClient> http_ = NewCurlHttpClient();
  Catalogue catalogue_;
  std::unique_ptr<WorkQueue> pool_;
  ToolRunner runner_;
  ServiceServer serving_;
  ToolRpc tool_rpc_;
  ToolExecutionRpc execution_rpc_;
};

}  // namespace

std::unique_ptr<Module> NewToolService(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return std::make_unique<ToolServiceModule>(runtime, config, standalone);
}

}  // namespace tutti::tool_service
