// The tool-service's gRPC services.
#pragma once

#include "runtime/rpc/local_methods.h"
#include "runtime/rpc/server_calls.h"
#include "services/tool-service/domain/catalogue.h"
#include "tutti/tool/v1/tool_service.pb.h"

namespace tutti::tool_service {

namespace v1 = tutti::tool::v1;

// Runs tools on worker threads: they may block.
class ToolRunner {
 public:
  ToolRunner(const Catalogue& catalogue, WorkQueue& pool, const Clock& clock)
      : catalogue_(catalogue), pool_(pool), clock_(clock) {}
  // RESOURCE_EXHAUSTED: too many calls wait.
  Task<absl::StatusOr<Json>> Run(CallContext& call, std::string tool, Json parameters, std::string idempotency_key);

 private:
  const Catalogue& catalogue_;
  WorkQueue& pool_;
  const Clock& clock_;
};

class ToolRpc final {
 public:
  ToolRpc(ServerEnv& env, const Catalogue& catalogue, ToolRunner& runner)
      : env_(env), catalogue_(catalogue), runner_(runner) {}
  void Offer(LocalMethods& local) {
    local.Add(env_, "tutti.tool.v1.ToolService/ListTools", *this, &ToolRpc::HandleList);
    local.Add(env_, "tutti.tool.v1.ToolService/CallTool", *this, &ToolRpc::HandleCall);
  }

 private:
  Task<absl::Status> HandleList(CallContext& call, const v1::ListToolsRequest& request,
                                v1::ListToolsResponse& response);
  Task<absl::Status> HandleCall(CallContext& call, const v1::CallToolRequest& request, v1::CallToolResponse& response);
  ServerEnv& env_;
  const Catalogue& catalogue_;
  ToolRunner& runner_;
};

class ToolExecutionRpc final {
 public:
  ToolExecutionRpc(ServerEnv& env, ToolRunner& runner) : env_(env), runner_(runner) {}
  void Offer(LocalMethods& local) {
    local.Add(env_, "tutti.tool.v1.ToolExecutionService/Execute", *this, &ToolExecutionRpc::HandleExecute);
  }

 private:
  Task<absl::Status> HandleExecute(CallContext& call, const v1::ExecuteRequest& request, v1::ExecuteResponse& response);
  ServerEnv& env_;
  ToolRunner& runner_;
};

}  // namespace tutti::tool_service
