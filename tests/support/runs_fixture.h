// A suite, and what its callers do with runs.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/json/json.h"
#include "runtime/status/grpc_status.h"
#include "tests/support/suite_process.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::testing {

class RunsFixture : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { signal(SIGPIPE, SIG_IGN); }

  absl::StatusOr<workflow::v1::Run> Start(workflow::v1::StartRunRequest request, const Json& input = Json::object(),
                                          int wait_seconds = 0) {
    ToProto(input, request.mutable_input());
    if (wait_seconds > 0) request.mutable_wait_timeout()->set_seconds(wait_seconds);
    grpc::ClientContext context;
    workflow::v1::StartRunResponse response;
    absl::Status status = FromGrpc(suite_->runs()->StartRun(&context, request, &response));
    if (!status.ok()) return status;
    return response.run();
  }
  absl::StatusOr<workflow::v1::Run> StartSpec(const std::string& yaml, const Json& input = Json::object(),
                                              int wait_seconds = 0) {
    workflow::v1::StartRunRequest request;
    *request.mutable_spec() = SpecFromYaml(yaml);
    return Start(std::move(request), input, wait_seconds);
  }
  workflow::v1::Run Get(const std::string& run_id) {
    grpc::ClientContext context;
    workflow::v1::GetRunRequest request;
    request.set_run_id(run_id);
    workflow::v1::GetRunResponse response;
    EXPECT_TRUE(suite_->runs()->GetRun(&context, request, &response).ok());
    return response.run();
  }
  std::vector<workflow::v1::StepRecord> StepsOf(const std::string& run_id) {
    workflow::v1::Run run = Get(run_id);
    return {run.steps().begin(), run.steps().end()};
  }
  template <class Request, class Response>
  absl::Status Call(grpc::Status (workflow::v1::RunService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                           Response*),
                    const Request& request, Response* response = nullptr) {
    grpc::ClientContext context;
    Response own;
    return FromGrpc(((*suite_->runs()).*method)(&context, request, response ? response : &own));
  }
  absl::Status Signal(const std::string& run_id, const std::string& name, const Json& payload,
                      const std::string& sender = "", const std::string& request_id = "") {
    workflow::v1::SignalRunRequest request;
    request.set_run_id(run_id);
    request.set_signal(name);
    request.set_sender(sender);
    request.set_request_id(request_id);
    ToProto(payload, request.mutable_payload());
    return Call(&workflow::v1::RunService::Stub::SignalRun, request);
  }
  template <class Request>
  Request For(const std::string& run_id) {
    Request request;
    request.set_run_id(run_id);
    return request;
  }
  bool Becomes(const std::string& run_id, workflow::v1::RunState state, double seconds = 15) {
    return Eventually([&] { return Get(run_id).state() == state; }, seconds);
  }
  // Stores a definition.
  absl::Status Apply(const std::string& yaml) {
    grpc::ClientContext context;
    workflow::v1::CreateWorkflowRequest create;
    *create.mutable_spec() = SpecFromYaml(yaml);
    workflow::v1::CreateWorkflowResponse created;
    return FromGrpc(
        workflow::v1::WorkflowService::NewStub(suite_->channel())->CreateWorkflow(&context, create, &created));
  }

  std::unique_ptr<SuiteProcess> suite_;
};

}  // namespace tutti::testing
