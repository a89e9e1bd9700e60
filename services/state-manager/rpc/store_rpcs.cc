// The unary methods: all have one shape.
#include "runtime/status/macros.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {

#define TUTTI_STORE_METHOD(Class, Service, Name)                                                                \
  grpc::ServerUnaryReactor* Class::Name(grpc::CallbackServerContext* context, const v1::Name##Request* request, \
                                        v1::Name##Response* response) {                                         \
    return ServeUnary(env_, context, request, response, *this, "tutti.state.v1." #Service "/" #Name,            \
                      &Class::Handle##Name);                                                                    \
  }                                                                                                             \
  Task<absl::Status> Class::Handle##Name(CallContext& call, const v1::Name##Request& request,                   \
                                         v1::Name##Response& response) {                                        \
    TUTTI_CO_ASSIGN_OR_RETURN(response, co_await store_.Name(*call.executor, request));                         \
    co_return absl::OkStatus();                                                                                 \
  }

TUTTI_STORE_METHOD(RunStoreRpc, RunStoreService, CreateRun)
TUTTI_STORE_METHOD(RunStoreRpc, RunStoreService, GetRun)
TUTTI_STORE_METHOD(RunStoreRpc, RunStoreService, ListRuns)
TUTTI_STORE_METHOD(RunStoreRpc, RunStoreService, RequestCancel)
TUTTI_STORE_METHOD(RunStoreRpc, RunStoreService, ListUsage)
TUTTI_STORE_METHOD(WorkflowStoreRpc, WorkflowStoreService, PutWorkflow)
TUTTI_STORE_METHOD(WorkflowStoreRpc, WorkflowStoreService, GetWorkflow)
TUTTI_STORE_METHOD(WorkflowStoreRpc, WorkflowStoreService, ListWorkflows)
TUTTI_STORE_METHOD(LeaseRpc, LeaseService, RegisterInstance)
TUTTI_STORE_METHOD(LeaseRpc, LeaseService, Heartbeat)
TUTTI_STORE_METHOD(LeaseRpc, LeaseService, ClaimRuns)
TUTTI_STORE_METHOD(LeaseRpc, LeaseService, ReleaseInstance)

}  // namespace tutti::state_manager
