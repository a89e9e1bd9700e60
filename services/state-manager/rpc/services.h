// The state-manager's gRPC services: each method maps a call to the store and its answer back.
#pragma once

#include "runtime/rpc/server_calls.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/ports/store.h"
#include "tutti/state/v1/journal_service.grpc.pb.h"
#include "tutti/state/v1/lease_service.grpc.pb.h"
#include "tutti/state/v1/run_store_service.grpc.pb.h"
#include "tutti/state/v1/workflow_store_service.grpc.pb.h"

namespace tutti::state_manager {

class JournalRpc final : public v1::JournalService::CallbackService {
 public:
  JournalRpc(ServerEnv& env, Store& store, WatchHub& hub) : env_(env), store_(store), hub_(hub) {}
  grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* Append(grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::ReadJournalResponse>* ReadJournal(grpc::CallbackServerContext* context,
                                                                 const v1::ReadJournalRequest* request) override;
  grpc::ServerWriteReactor<v1::WatchJournalResponse>* WatchJournal(grpc::CallbackServerContext* context,
                                                                   const v1::WatchJournalRequest* request) override;

 private:
  Task<absl::Status> HandleAppend(CallContext& call, StreamReader<v1::AppendRequest>& reader,
                                  StreamWriter<v1::AppendResponse>& writer);
  Task<absl::Status> HandleRead(CallContext& call, const v1::ReadJournalRequest& request,
                                StreamWriter<v1::ReadJournalResponse>& writer);
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchJournalRequest& request,
                                 StreamWriter<v1::WatchJournalResponse>& writer);
  ServerEnv& env_;
  Store& store_;
  WatchHub& hub_;
};

#define TUTTI_STORE_METHOD(Name)                                                                         \
 public:                                                                                                 \
  grpc::ServerUnaryReactor* Name(grpc::CallbackServerContext* context, const v1::Name##Request* request, \
                                 v1::Name##Response* response) override;                                 \
                                                                                                         \
 private:                                                                                                \
  Task<absl::Status> Handle##Name(CallContext& call, const v1::Name##Request& request, v1::Name##Response& response)

class RunStoreRpc final : public v1::RunStoreService::CallbackService {
 public:
  RunStoreRpc(ServerEnv& env, Store& store) : env_(env), store_(store) {}
  TUTTI_STORE_METHOD(CreateRun);
  TUTTI_STORE_METHOD(GetRun);
  TUTTI_STORE_METHOD(ListRuns);
  TUTTI_STORE_METHOD(RequestCancel);
  TUTTI_STORE_METHOD(ListUsage);

 private:
  ServerEnv& env_;
  Store& store_;
};

class WorkflowStoreRpc final : public v1::WorkflowStoreService::CallbackService {
 public:
  WorkflowStoreRpc(ServerEnv& env, Store& store) : env_(env), store_(store) {}
  TUTTI_STORE_METHOD(PutWorkflow);
  TUTTI_STORE_METHOD(GetWorkflow);
  TUTTI_STORE_METHOD(ListWorkflows);

 private:
  ServerEnv& env_;
  Store& store_;
};

class LeaseRpc final : public v1::LeaseService::CallbackService {
 public:
  LeaseRpc(ServerEnv& env, Store& store, WatchHub& hub) : env_(env), store_(store), hub_(hub) {}
  grpc::ServerWriteReactor<v1::WatchInstanceResponse>* WatchInstance(grpc::CallbackServerContext* context,
                                                                     const v1::WatchInstanceRequest* request) override;
  TUTTI_STORE_METHOD(RegisterInstance);
  TUTTI_STORE_METHOD(Heartbeat);
  TUTTI_STORE_METHOD(ClaimRuns);
  TUTTI_STORE_METHOD(ReleaseInstance);

 private:
  Task<absl::Status> HandleWatch(CallContext& call, const v1::WatchInstanceRequest& request,
                                 StreamWriter<v1::WatchInstanceResponse>& writer);
  ServerEnv& env_;
  Store& store_;
  WatchHub& hub_;
};

#undef TUTTI_STORE_METHOD

}  // namespace tutti::state_manager
