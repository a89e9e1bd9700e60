// Every method of the contracts is served: by the process that has it, and, when it is public, by the gateway.
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "google/api/annotations.pb.h"
#include "tests/support/suite_process.h"
#include "tutti/agent/v1/agent_service.pb.h"
#include "tutti/monitoring/v1/monitoring_service.pb.h"
#include "tutti/rpc/v1/call_stream_service.pb.h"
#include "tutti/state/v1/audit_service.pb.h"
#include "tutti/state/v1/budget_service.pb.h"
#include "tutti/state/v1/cache_service.pb.h"
#include "tutti/state/v1/context_service.pb.h"
#include "tutti/state/v1/conversation_service.pb.h"
#include "tutti/state/v1/journal_service.pb.h"
#include "tutti/state/v1/lease_service.pb.h"
#include "tutti/state/v1/memory_service.pb.h"
#include "tutti/state/v1/run_store_service.pb.h"
#include "tutti/state/v1/schedule_store_service.pb.h"
#include "tutti/state/v1/session_service.pb.h"
#include "tutti/state/v1/workflow_store_service.pb.h"
#include "tutti/tool/v1/tool_service.pb.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/schedule_service.pb.h"
#include "tutti/workflow/v1/workflow_service.pb.h"

namespace tutti::testing {
namespace {

using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;

// As SuiteProcess numbers them.
enum Process : size_t { kEngine = 1, kAgents = 2, kTools = 3, kState = 4, kMonitoring = 5 };

struct Contract {
  Process process;
  const FileDescriptor* file;
};

std::vector<Contract> Contracts() {
  namespace state = tutti::state::v1;
  namespace workflow = tutti::workflow::v1;
  return {{kEngine, workflow::CreateWorkflowRequest::descriptor()->file()},
          {kEngine, workflow::StartRunRequest::descriptor()->file()},
          {kEngine, workflow::CreateScheduleRequest::descriptor()->file()},
          {kEngine, tutti::rpc::v1::ExchangeRequest::descriptor()->file()},
          {kAgents, tutti::agent::v1::InvokeAgentRequest::descriptor()->file()},
          {kTools, tutti::tool::v1::CallToolRequest::descriptor()->file()},
          {kState, state::AppendRequest::descriptor()->file()},
          {kState, state::CreateRunRequest::descriptor()->file()},
          {kState, state::PutWorkflowRequest::descriptor()->file()},
          {kState, state::ClaimRunsRequest::descriptor()->file()},
          {kState, state::CreateContextRequest::descriptor()->file()},
          {kState, state::StoreMemoryRequest::descriptor()->file()},
          {kState, state::CreateConversationRequest::descriptor()->file()},
          {kState, state::GetCacheEntryRequest::descriptor()->file()},
          {kState, state::PutScheduleRequest::descriptor()->file()},
          {kState, state::CreateSessionRequest::descriptor()->file()},
          {kState, state::ListAuditRecordsRequest::descriptor()->file()},
          {kState, state::SetBudgetRequest::descriptor()->file()},
          {kMonitoring, tutti::monitoring::v1::GetHealthRequest::descriptor()->file()}};
}

// What an empty request, alone, is answered. A stream that goes on ends at the deadline.
grpc::StatusCode Ask(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  grpc::CompletionQueue queue;
  const grpc::Slice nothing("");
  grpc::ByteBuffer request(&nothing, 1), response;
  grpc::Status status;
  auto call = stub.PrepareUnaryCall(&context, method, request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status.error_code();
}

void ForEachMethod(const FileDescriptor& file, const std::function<void(const MethodDescriptor&)>& visit) {
  for (int s = 0; s < file.service_count(); ++s) {
    for (int m = 0; m < file.service(s)->method_count(); ++m) visit(*file.service(s)->method(m));
  }
}

std::string PathOf(const MethodDescriptor& method) {
  return absl::StrCat("/", method.service()->full_name(), "/", method.name());
}

class MethodsTest : public ::testing::TestWithParam<Form> {
 protected:
  MethodsTest() : suite_({.form = GetParam(), .data_dir = NewTempDir("methods") + "/data", .flags = {}, .env = {}}) {}
  SuiteProcess suite_;
};

INSTANTIATE_TEST_SUITE_P(Forms, MethodsTest, ::testing::Values(Form::kOneProcess, Form::kSixProcesses),
                         [](const auto& info) { return info.param == Form::kOneProcess ? "One" : "Six"; });

TEST_P(MethodsTest, WhoHasAMethodServesIt) {
  if (GetParam() == Form::kOneProcess) GTEST_SKIP() << "only the gateway can be reached";
  ASSERT_TRUE(suite_.Start());
  for (const auto& [process, file] : Contracts()) {
    auto channel = grpc::CreateChannel(suite_.address(process), grpc::InsecureChannelCredentials());
    ForEachMethod(*file, [&, &channel = channel](const MethodDescriptor& method) {
      EXPECT_NE(Ask(channel, PathOf(method)), grpc::StatusCode::UNIMPLEMENTED) << PathOf(method);
    });
  }
  for (size_t process = 0; process < 6; ++process) {
    auto channel = grpc::CreateChannel(suite_.address(process), grpc::InsecureChannelCredentials());
    for (const char* own : {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
      EXPECT_NE(Ask(channel, own), grpc::StatusCode::UNIMPLEMENTED) << own << " of process " << process;
    }
    EXPECT_EQ(Ask(channel, "/tutti.workflow.v1.RunService/NoSuchMethod"), grpc::StatusCode::UNIMPLEMENTED);
  }
}

TEST_P(MethodsTest, TheGatewayServesThePublicOnesOnly) {
  ASSERT_TRUE(suite_.Start());
  int shown = 0, hidden = 0;
  for (const Contract& contract : Contracts()) {
    ForEachMethod(*contract.file, [&](const MethodDescriptor& method) {
      const bool is_public = method.options().HasExtension(google::api::http);
      const auto answer = Ask(suite_.channel(), PathOf(method));
      EXPECT_EQ(answer != grpc::StatusCode::UNIMPLEMENTED, is_public) << PathOf(method);
      ++(is_public ? shown : hidden);
    });
  }
  EXPECT_GT(shown, 30);
  EXPECT_GT(hidden, 20);
}

}  // namespace
}  // namespace tutti::testing
